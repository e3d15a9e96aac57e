import pytest

from keras_prune.benchmark.energy import energy, main
from keras_prune.networks import PaperRow

LAYER = [PaperRow("fc", 1e6, 2e6, 100, 10, 10)]


def test_energy_counts_one_fetch_and_two_operations_per_weight():
    assert energy(LAYER, pruned=False) == pytest.approx(640 + 3.7 + 0.9)
    assert energy(LAYER, pruned=False, memory="SRAM") == pytest.approx(5 + 3.7 + 0.9)


def test_energy_of_pruned_layers_includes_indices():
    assert energy(LAYER) == pytest.approx(0.1 * (640 * (1 + 5 / 32) + 4.6))
    convolution = [LAYER[0]._replace(layer="conv1")]
    assert energy(convolution) == pytest.approx(0.1 * (640 * (1 + 8 / 32) + 4.6))


def test_energy_of_networks_is_the_sum_of_their_layers():
    assert energy(LAYER * 3) == pytest.approx(3 * energy(LAYER))


def test_energy_rejects_other_memory():
    with pytest.raises(ValueError, match=r"`memory` must be 'DRAM' or 'SRAM'\. Received: memory='disk'"):
        energy(LAYER, memory="disk")


def test_main_prints_the_four_networks(capsys):
    main()
    printed = capsys.readouterr().out
    assert all(network in printed for network in ("lenet_300_100", "lenet_5", "alexnet", "vgg16"))

import pytest
from benchmark_rows import measurement, results

plt = pytest.importorskip("matplotlib.pyplot", reason="figures need matplotlib")
from keras_prune.benchmark.figures import all_figures, speed_ups, time_against_density  # noqa: E402


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def two_engines(densities=(0.1, 0.4)):
    """One engine that is twice as fast as dense at 10%, and half as fast at 40%."""
    return results(
        *(
            [measurement("LiteRT", 100, density, baseline=True), measurement("MKL CSR", 500 * density, density)]
            for density in densities
        )
    )


def test_time_against_density_marks_crossovers():
    ax = time_against_density(two_engines(), "net/fc", 1)
    curves = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in ax.lines}
    assert curves["fastest dense"] == [(10, 100), (40, 100)]
    assert curves["MKL CSR"] == [(10, 50), (40, 200)]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [pytest.approx(20)]


def test_time_against_density_rejects_one_density():
    with pytest.raises(ValueError, match="needs two densities"):
        time_against_density(two_engines([0.1]), "net/fc", 1)


def test_speed_ups_draws_bars_from_one():
    ax = speed_ups(two_engines(), 1)
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches] == [(1, 2), (1, 0.5)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["net/fc, 10.0%", "net/fc, 40.0%"]


def test_speed_ups_rejects_other_batch_sizes():
    with pytest.raises(ValueError, match="Received: batch_size=64"):
        speed_ups(two_engines(), 64)


def test_all_figures_draws_all_measurements():
    assert [name for name, _ in all_figures(two_engines())] == ["speed_ups_batch_1", "density_net_fc_batch_1"]
    assert [name for name, _ in all_figures(two_engines([0.1]))] == ["speed_ups_batch_1"]
    assert not list(all_figures(results([measurement("MKL CSR", 10)])))

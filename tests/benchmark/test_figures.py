import pytest

plt = pytest.importorskip("matplotlib.pyplot", reason="figures need matplotlib")
from keras_prune.benchmark.figures import speed_ups, time_against_density  # noqa: E402
from keras_prune.benchmark.results import Measurement, Results  # noqa: E402


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def results(densities=(0.1, 0.4)):
    """One engine that is twice as fast as dense at 10 %, and half as fast at 40 %."""
    rows = []
    for density in densities:
        for engine, baseline, time in (("LiteRT", True, 100.0), ("MKL CSR", False, 500 * density)):
            rows.append(Measurement("net/fc", density, 1, engine, baseline, time, time, time, 9, 8, 0.0))
    return Results(rows, {}, {}, {})


def test_time_against_density_has_a_curve_for_each_engine_and_marks_the_crossover():
    ax = time_against_density(results(), "net/fc", 1)
    curves = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in ax.lines}
    assert curves["fastest dense"] == [(10, 100), (40, 100)]
    assert curves["MKL CSR"] == [(10, 50), (40, 200)]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [pytest.approx(20)]


def test_one_density_is_no_curve():
    with pytest.raises(ValueError, match="two densities and a dense engine"):
        time_against_density(results([0.1]), "net/fc", 1)


def test_bars_grow_from_one():
    ax = speed_ups(results(), 1)
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches] == [(1, 2), (1, 0.5)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["net/fc, 10.0%", "net/fc, 40.0%"]


def test_a_batch_size_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="Received: batch_size=64"):
        speed_ups(results(), 64)

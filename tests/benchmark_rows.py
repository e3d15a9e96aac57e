"""Made-up results of a benchmark."""

from keras_prune.benchmark.engines import ENGINES
from keras_prune.benchmark.results import Measurement, Results, with_speed_ups

_ENGINES = {engine.name: engine for engine in ENGINES}


def measurement(name, microseconds, density=0.1, batch_size=1, baseline=False, spread=0.01):
    """A measurement of one of `ENGINES`."""
    engine = _ENGINES[name]
    return Measurement(
        workload="net/fc",
        density=density,
        batch_size=batch_size,
        engine=name,
        runtime=engine.runtime,
        pattern=engine.pattern,
        baseline=baseline,
        quantized=engine.quantized,
        microseconds=microseconds,
        low=microseconds * (1 - spread),
        high=microseconds * (1 + spread),
        calls=10,
        weight_bytes=1_000_000,
        difference=0.0,
    )


def results(*groups, refused=(), absent=()):
    """Results of groups of measurements with the same workload, density and batch size."""
    rows = [row for group in groups for row in with_speed_ups(group)]
    return Results(rows, dict(refused), {}, dict(absent), {"processor": "x86_64", "device": "cpu:0"})

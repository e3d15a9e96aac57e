import json

import keras
import pytest
from benchmark_rows import measurement, results

import keras_prune as kp
from keras_prune.benchmark import advice as module
from keras_prune.benchmark.advice import advice


def test_advice_names_one_sparse_engine_per_runtime():
    given = advice(
        results(
            [
                measurement("TensorFlow", 100, baseline=True),
                measurement("LiteRT", 50, baseline=True),
                measurement("MKL CSR", 10),
                measurement("TensorFlow CSR", 25),
                measurement("tf.sparse (COO)", 30),
                measurement("LiteRT sparse 4x1", 8),
                measurement("LiteRT int8", 4),
            ]
        )
    )
    (choice,) = given.choices
    assert choice.dense.engine == "LiteRT"
    assert [row.engine for row in choice.sparse] == ["LiteRT sparse 4x1", "MKL CSR", "TensorFlow CSR"]
    assert choice.quantized.engine == "LiteRT int8"
    assert str(given).replace("\n", " ") == (
        "net/fc at 10.0%, batch 1: LiteRT sparse 4x1, if pruned in Blocks(block_size=(4, 1), reduction='mean'), is "
        "6.2x as fast (1.00 MB); MKL CSR is 5.0x as fast (1.00 MB); TensorFlow CSR is 2.0x as fast (1.00 MB); the "
        "fastest dense engine is LiteRT (50 us, 1.00 MB). With weights rounded to 8 bits, zeros or not, LiteRT int8 "
        "is 12.5x as fast (1.00 MB)."
    )
    assert repr(given) == "<Advice: [<Choice for net/fc, batch 1: LiteRT sparse 4x1>]>"
    values = json.loads(json.dumps(given.to_dict(), allow_nan=False))
    assert values["choices"][0]["quantized"] == values["results"]["rows"][-1]


def test_advice_is_dense_if_nothing_is_clearly_faster():
    group = [measurement("LiteRT", 50, baseline=True, spread=0.2), measurement("MKL CSR", 45, spread=0.2)]
    given = advice(results(group))
    assert given.choices[0].sparse == []
    assert str(given).replace("\n", " ") == (
        "net/fc at 10.0%, batch 1: stay dense, with LiteRT (50 us, 1.00 MB); no sparse engine is clearly faster."
    )


def test_advice_needs_a_dense_engine():
    assert advice(results([measurement("MKL CSR", 10)])).choices == []


def test_compare_runtimes_measures_the_plain_model(monkeypatch):
    measured = []
    monkeypatch.setattr(module, "benchmark", lambda *arguments, **settings: measured.append(arguments) or results())
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")], name="net")
    model = kp.prune(model, kp.TargetSparsity(0.75))
    kp.cut(model)
    kp.compare_runtimes(model, batch_size=3, device="gpu:0")
    ((workloads, *settings),) = measured
    assert [(workload.name, workload.density) for workload in workloads] == [("net", 0.25), ("net/fc", 0.25)]
    assert settings == [[3], "gpu:0"]
    assert kp.layers.pruned_weights(model)  # The model is still pruned.


def test_compare_runtimes_rejects_unbuilt_models():
    with pytest.raises(ValueError, match="no weights yet"):
        kp.compare_runtimes(keras.Sequential([keras.layers.Dense(4)]))

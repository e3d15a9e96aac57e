import json

import keras
import numpy as np
import pytest

import keras_prune as kp


def test_report_runs_as_a_process(folder, start):
    done = start("report", "dense.keras", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = kp.report(keras.models.load_model("dense.keras"))
    assert json.loads(done.stdout) == json.loads(json.dumps({"model": "dense.keras", "html": None, **report.to_dict()}))


def test_report_measures_activations(folder, run):
    x = np.random.default_rng(0).normal(size=(8, 16)).astype("float32")
    np.save("x.npy", x)
    assert run("report", "dense.keras") == f"{kp.report(keras.models.load_model('dense.keras'))}\n"
    expected = kp.report(keras.models.load_model("dense.keras"), x)
    assert run("report", "dense.keras", "--data=x.npy") == f"{expected}\n"


def test_report_writes_a_page(folder, run):
    pytest.importorskip("matplotlib")
    values = json.loads(run("report", "dense.keras", "--html=page.html", "--json"))
    assert values["html"] == "page.html"
    assert "fc1" in (folder / "page.html").read_text()

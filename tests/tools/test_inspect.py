import json

import keras

import keras_prune as kp
from keras_prune.tools import inspect


def test_inspect_runs_as_a_process(folder, start):
    done = start("inspect", "dense.keras", "--json")
    assert done.returncode == 0, done.stderr
    report = kp.report(keras.models.load_model("dense.keras"))
    assert json.loads(done.stdout) == json.loads(json.dumps({"model": "dense.keras", **report.to_dict()}))


def test_inspect_prints_report_and_deployment_plan(folder, run):
    model = keras.models.load_model("dense.keras")
    plan = kp.deployment_plan(model)
    assert run(inspect, "dense.keras") == f"{kp.report(model)}\n"
    assert run(inspect, "dense.keras", "--runtime=litert") == f"{kp.report(model)}\n{plan}\n"
    values = json.loads(run(inspect, "dense.keras", "--runtime=litert", "--json"))
    assert values["plan"] == json.loads(json.dumps(plan.to_dict()))

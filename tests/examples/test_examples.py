"""The examples run as processes, as a user starts them."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_prune as kp

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="the examples read tfds and write .tflite with TensorFlow"
)


def start(script, *flags, cwd, made_up_images=0, backend="tensorflow"):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]),
        "TFDS_DATA_DIR": str(data_dir()),
        "KERAS_BACKEND": backend,
    }
    command = [sys.executable, str(EXAMPLES / script), *flags]
    if made_up_images:
        environment["TFDS_DATA_DIR"] = str(cwd / "no_datasets")
        command[1:1] = [str(pathlib.Path(__file__).parent / "run_on_made_up_images.py"), str(made_up_images)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run(script, *flags, cwd, **arguments):
    done = start(script, *flags, cwd=cwd, **arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def data_dir():
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR", pathlib.Path.home() / "tensorflow_datasets")).resolve()


needs_mnist = pytest.mark.skipif(
    not (data_dir() / "mnist").exists(), reason=f"MNIST is not among the datasets in {data_dir()}"
)


@needs_tensorflow
def test_quickstart_prunes_eightfold_without_loss(tmp_path):
    done = start("quickstart.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")  # No line of TensorFlow.
    output = done.stdout

    compression = float(re.search(r"connections: ([\d.]+)x", output)[1])
    dense, pruned = map(float, re.search(r"dense ([\d.]+)%, pruned ([\d.]+)%", output).groups())
    assert compression >= 8
    assert pruned >= dense - 0.25  # One of 450 digits may differ on another processor.
    assert float(re.search(r"largest difference from the Keras model ([0-9.]+e[-+]\d+)", output)[1]) < 1e-4
    model = keras.models.load_model(tmp_path / "output/quickstart/digits.keras", compile=False)
    assert kp.report(model).compression == pytest.approx(compression, abs=0.06)
    tflite_bytes = (tmp_path / "output/quickstart/digits.tflite").stat().st_size
    assert tflite_bytes < 0.3 * 4 * model.count_params()


@needs_tensorflow
def test_several_workers_as_one_worker_prunes_in_fit(tmp_path):
    # `tests/experiments/test_kill_workers.py` runs two and three.
    assert "worker_0.keras: 10.0x" in run("several_workers.py", "--fit", "--epochs=9", cwd=tmp_path)
    backups = [file.name for file in (tmp_path / "output/several_workers/backup").iterdir()]
    assert backups == ["after_epoch_9.weights.h5"]


@needs_tensorflow
@needs_mnist
def test_mnist_report_agrees_with_its_model(tmp_path):
    flags = ["--dense_epochs=1", "--epochs=1", "--compression=4", "--seed=7", "--block_size=4,1", "--reference"]
    run("mnist.py", *flags, f"--output_dir={tmp_path}", cwd=tmp_path)

    report = json.loads((tmp_path / "report.json").read_text())
    assert report["network"] == "lenet_300_100"
    assert report["seed"] == 7
    assert {row["name"]: row["weights"] for row in report["rows"]} == {"fc1": 235_200, "fc2": 30_000, "fc3": 1_000}
    assert report["compression"] == pytest.approx(4, abs=0.01)
    assert 0 < report["test_error"] < 10
    assert 0 < report["reference_error"] < 10
    assert "Training" in (tmp_path / "report.html").read_text()
    model = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert [row.kept for row in kp.report(model).rows] == [row["kept"] for row in report["rows"]]
    blocks = keras.ops.convert_to_numpy(model.get_layer("fc1").kernel).reshape(196, 4, 300) != 0
    assert (blocks.all(1) == blocks.any(1)).all()


@needs_tensorflow
def test_flag_out_of_range_gives_one_line(tmp_path):
    done = start("mnist.py", "--epochs=0", cwd=tmp_path)
    assert done.returncode == 1
    assert "flag --epochs=0: 0 is not" in done.stderr
    assert not (tmp_path / "output").exists()


@pytest.mark.slow
@needs_tensorflow
@needs_mnist
@pytest.mark.parametrize(("flags", "compression"), [([], 12), (["--block_size=4,1", "--compression=10"], 10)])
def test_mnist_keeps_the_accuracy_over_three_seeds(tmp_path, flags, compression):
    reports = []
    for seed in range(3):
        run("mnist.py", f"--seed={seed}", "--reference", f"--output_dir={tmp_path}", *flags, cwd=tmp_path)
        reports.append(json.loads((tmp_path / "report.json").read_text()))

    def mean(key):
        return sum(report[key] for report in reports) / len(reports)

    assert all(report["compression"] >= compression - 0.01 for report in reports)
    assert mean("test_error") <= mean("reference_error") + 0.1
    assert mean("test_error") <= 1.75


@pytest.mark.slow
@needs_tensorflow
def test_cifar10_measurements_agree_with_its_files(tmp_path):
    flags = ["--network=vgg", "--seeds=3", "--width=2", "--dense_epochs=1", "--epochs=1", "--compressions=1.5,2"]
    flags += ["--max_drop=1", f"--results_dir={tmp_path}", f"--output_dir={tmp_path}", f"--figures_dir={tmp_path}"]
    run("cifar10.py", *flags, cwd=tmp_path, made_up_images=300)

    measured = json.loads((tmp_path / "cifar10_vgg_3.json").read_text())
    # Layers that the scan of an untrained network spares count here, though not for the rounds.
    assert [one["compression"] for one in measured["rounds"]] == pytest.approx([1, 1.5, 2], rel=0.1)
    assert all(0 <= one["eval_accuracy"] <= 1 for one in measured["rounds"])
    chosen = measured["rounds"][measured["chosen"]]
    model = keras.models.load_model(tmp_path / "vgg/seed_3/pruned.keras", compile=False)
    assert [row.kept for row in kp.report(model).rows] == [row["kept"] for row in chosen["layers"]]
    assert set(measured["files"]) == {"pruned.keras", "pruned.kprune", "pruned.tflite"}
    sparse = kp.load_sparse(tmp_path / "vgg/seed_3/pruned.kprune")
    inputs = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(sparse.predict(inputs, verbose=0), model.predict(inputs, verbose=0))

    written = (tmp_path / "cifar10_vgg_3.json").stat().st_mtime_ns
    output = run("cifar10.py", *flags, "--table=vgg", "--figure=vgg", cwd=tmp_path)
    assert (tmp_path / "cifar10_vgg_3.json").stat().st_mtime_ns == written
    assert output.count("x | ") == 3
    assert (tmp_path / "cifar10_vgg_rounds.png").exists()
    assert (tmp_path / "cifar10_vgg_sensitivity.png").exists()


@pytest.mark.slow
@needs_tensorflow
def test_imagenet_resumes_in_mixed_precision(tmp_path):
    flags = ["--network=vgg16", "--weights=none", "--image_size=32", "--batch_size=4", "--dense_epochs=1", "--epochs=1"]
    flags += ["--scan_batches=1", "--max_drop=1", f"--output_dir={tmp_path}"]
    flags += ["--compressions=2,4", "--distribution=mirrored"]
    output = run("imagenet.py", *flags, cwd=tmp_path, made_up_images=8)

    assert len(re.findall(r"round \d: ", output)) == 3
    assert "Epoch 1/1" in output or "2/2 - " in output
    results = json.loads((tmp_path / "vgg16/report.json").read_text())
    assert results["compression"] == pytest.approx(4, abs=0.01)
    assert {"dense_accuracy", "dense_top_5_accuracy", "pruned_accuracy", "pruned_top_5_accuracy"} <= set(results)
    dropouts = {row["name"]: row["dropout"] for row in results["layers"]}
    assert dropouts["block1_conv1"] is None
    assert 0 < dropouts["fc1"] < 0.5
    sparse = kp.load_sparse(tmp_path / "vgg16/pruned.kprune")
    assert [row.kept for row in kp.report(sparse).rows] == [row["kept"] for row in results["layers"]]

    again = run("imagenet.py", *flags, cwd=tmp_path, made_up_images=8)
    assert "2/2 - " not in again  # No epoch is trained twice.
    assert results == json.loads((tmp_path / "vgg16/report.json").read_text())


@pytest.mark.slow
@needs_tensorflow
def test_transfer_prunes_the_head_and_then_the_backbone(tmp_path):
    flags = ["--weights=none", "--alpha=0.35", "--image_size=32", "--batch_size=8", "--head_epochs=1"]
    flags += ["--tuning_epochs=0", "--rounds=1", "--epochs=1", f"--output_dir={tmp_path}"]
    output = run("transfer.py", *flags, cwd=tmp_path, made_up_images=16)

    head, everything = (int(total.replace(",", "")) for total in re.findall(r"; [\d,]+ of ([\d,]+) left", output))
    assert head == 1280 * 5
    assert everything > 10 * head
    report = kp.report(keras.models.load_model(tmp_path / "pruned.keras", compile=False))
    rows = {row.name.split("/")[-1]: row for row in report.rows}
    assert rows["head"].density < 0.7
    assert rows["block_5_expand"].density < 0.7
    assert rows["block_5_depthwise"].density == 1

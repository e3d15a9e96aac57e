"""On several JAX devices and processes, masks and cuts are those of one device."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="keras.distribution is JAX's")
ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "tests/training/train_jax.py"


def run(way, folder, processes=1, devices=1):
    """Runs the script in new processes, since devices are set before a backend starts. Returns their results."""
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax"}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    outputs = [folder / f"{way}_{index}" for index in range(processes)]
    with contextlib.ExitStack() as stack:
        started = []
        for index, output in enumerate(outputs):
            command = [sys.executable, SCRIPT, way, output, *([str(index), port] if processes > 1 else [])]
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            log, _ = process.communicate(timeout=300)
            assert process.returncode == 0, log.decode()
    return [(np.load(f"{output}.npz"), pathlib.Path(f"{output}.kprune").read_bytes()) for output in outputs]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return run("single", tmp_path_factory.mktemp("single"))[0]


@pytest.mark.parametrize(("way", "processes"), [("2x2", 1), ("4x1", 2), ("2x2", 2), ("1x4", 2)])
def test_masks_over_four_devices_are_those_of_one(way, processes, single, tmp_path):
    expected, file = single
    densities = [expected[f"fit/{epoch}/hidden"].mean() for epoch in range(4)]
    assert densities[0] > densities[1] > densities[2] == densities[3]
    for results, sparse_file in run(way, tmp_path, processes, 4 // processes):
        for name in expected:
            if name.startswith("fit/weight") or name.endswith("threshold"):
                np.testing.assert_allclose(results[name], expected[name], atol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(results[name], expected[name], err_msg=name)
        assert sparse_file == file
        # Keras reads and writes no weights that no process holds as a whole.
        refused = {"refused/save", "refused/backup", "refused/rounds"}
        assert refused & {*results} == (refused if way == "1x4" and processes == 2 else set())

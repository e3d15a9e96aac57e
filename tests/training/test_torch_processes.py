"""Tests of training in two processes of PyTorch, which gives the masks and weights of a single one."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import TORCH

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not TORCH, reason="torch.distributed is PyTorch's")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a function from a way to train to the results of both processes."""
    folder = tmp_path_factory.mktemp("trained")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "torch",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [*torchrun, ROOT / "tests/training/train_torch.py", folder],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # To end the processes that it starts, too.
    )
    try:
        log, _ = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, log.decode()
    return lambda way: [dict(np.load(folder / f"{way}-{rank}.npz")) for rank in range(2)]


@pytest.mark.parametrize(
    ("way", "alone"),
    [("keras", "keras"), ("torch", "torch"), ("fit", "keras"), ("resumed", "keras"), ("sharded", "torch")],
)
def test_two_processes_train_like_one(way, alone, trained):
    single, first, second = trained(f"alone-{alone}")[0], *trained(way)
    densities = [single[f"mask/{epoch}/hidden"].mean() for epoch in range(4)]
    assert densities[0] > densities[1] > densities[2] == densities[3]
    for name, expected in single.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        atol = 0 if name.startswith("mask") else 1e-5
        np.testing.assert_allclose(first[name], expected, rtol=0, atol=atol, err_msg=name)


def test_processes_resume_from_the_same_epoch(trained):
    for results in trained("resumed"):
        assert results["epochs"].tolist() == [2, 3]


def test_each_process_holds_half_of_a_sharded_model(trained):
    for results in trained("sharded"):
        held, whole = results["bytes"]
        assert held == whole / 2


def test_fully_shard_alone_does_not_reach_the_weights_of_keras(trained):
    # Keras computes with the tensors it had before. Once it does not, the docs and `Sharded` can go.
    for results in trained("plain"):
        assert not results["sharded"].any()
        assert results["whole"].all()

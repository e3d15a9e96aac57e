"""Measures the memory of two PyTorch processes that train dense layers with DDP and with FSDP2.

KERAS_BACKEND=torch python experiments/fsdp_memory.py
python experiments/fsdp_memory.py --table          # Markdown, from the measurements alone
"""

import gc
import json
import os
import pathlib
import subprocess
import sys

import measurements
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("layers", 8, "Number of Dense layers.")
flags.DEFINE_integer("width", 2048, "Inputs and outputs of each.")
flags.DEFINE_string("results", "docs/data/fsdp_memory.json", "File of the measurements.")
flags.DEFINE_bool("table", False, "Only print the table of the measurements.")
flags.DEFINE_string("way", "", "Measurement for this process of torchrun. The script starts these itself.")
WAYS = {
    "DDP, plain": "`DistributedDataParallel`, plain",
    "DDP, pruned": "`DistributedDataParallel`, pruned",
    "FSDP2, plain": "`fully_shard` of plain Keras layers, which shards nothing",
    "sharded, plain": "`Sharded`, plain",
    "sharded, pruned": "`Sharded`, pruned",
}


def measure(way) -> dict:
    """Returns the bytes of this process after it has built the network, and their peak in three steps."""
    import keras
    import torch
    import torch.distributed as dist
    from fully_sharded import Sharded
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    import keras_prune as kp

    dist.init_process_group("gloo")
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    keras.utils.set_random_seed(0)
    before = measurements.memory("VmRSS")
    layers = [keras.layers.Dense(FLAGS.width, "relu") for _ in range(FLAGS.layers)]
    model = keras.Sequential([keras.Input((FLAGS.width,)), *layers])
    if way.endswith("pruned"):
        kp.prune(model, kp.StdThreshold(0.7))
    if way.startswith("DDP"):
        forward = DistributedDataParallel(model)
    elif way.startswith("sharded"):
        forward = fully_shard(torch.nn.Sequential(*(Sharded(layer, mesh) for layer in layers)), mesh=mesh)
    else:
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        forward = fully_shard(model, mesh=mesh)
    gc.collect()
    built = measurements.memory("VmRSS") - before
    measurements.reset_high_water()
    optimizer = torch.optim.Adam([one for one in forward.parameters() if one.requires_grad], 1e-4)
    for _ in range(3):
        optimizer.zero_grad()
        forward(torch.randn(4, FLAGS.width)).square().mean().backward()
        optimizer.step()
    peak = measurements.memory("VmHWM") - before
    dist.destroy_process_group()
    return {"built": built, "peak": peak}


def start(way) -> dict:
    """Measures in two new processes, and returns the results of the first."""
    examples = pathlib.Path(__file__).resolve().parents[1] / "examples"
    path = os.pathsep.join([str(examples), os.environ.get("PYTHONPATH", "")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, __file__, f"--way={way}", f"--layers={FLAGS.layers}", f"--width={FLAGS.width}"]
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)  # Freed memory goes back to the system at once.
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def table(measured) -> str:
    """Returns the Markdown table."""
    lines = ["| | after building | peak of 3 steps |", "|---|---|---|"]
    for way, found in measured["ways"].items():
        lines.append(f"| {WAYS[way]} | {found['built'] / 2**20:.0f} MiB | {found['peak'] / 2**20:.0f} MiB |")
    return "\n".join(lines)


def main(_):
    if FLAGS.way:
        found = measure(FLAGS.way)
        if os.environ["RANK"] == "0":
            print(json.dumps(found), flush=True)
        return
    if not FLAGS.table:
        ways = {way: start(way) for way in WAYS}
        measurements.write(FLAGS.results, {"layers": FLAGS.layers, "width": FLAGS.width, "ways": ways})
    print(table(measurements.read(FLAGS.results)))


if __name__ == "__main__":
    app.run(main)

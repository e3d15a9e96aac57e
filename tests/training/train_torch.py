"""Trains pruned models in several processes of PyTorch: `torchrun --nproc-per-node 2 train_torch.py FOLDER`.

Each process writes `WAY-RANK.npz` for each way to train, with its weights and the masks it had at every epoch.
"""

import pathlib
import sys

import keras
import numpy as np
import torch
import torch.distributed as dist
from fully_sharded import Sharded
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")
SCHEDULE = kp.Iterative(rounds=3)


def make(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(4, name="head")]
    return kp.prune(keras.Sequential([keras.Input((8,)), *layers]), kp.StdThreshold(1.0))


def masks(root, epoch):
    return {
        f"mask/{epoch}/{weight.layer.name}": keras.ops.convert_to_numpy(weight.mask)
        for weight in kp.layers.pruned_weights(root)
    }


def weights(model):
    kp.cut(model, None)  # An optimizer of PyTorch moves pruned weights.
    return {f"weight/{i}": weight for i, weight in enumerate(model.get_weights())}


def batches(rank, size):
    """The share that one process has of each batch of 32."""
    return [(torch.tensor(X[i + rank : i + 32 : size]), torch.tensor(Y[i + rank : i + 32 : size])) for i in (0, 32)]


def train_by_hand(library, rank=0, size=1):
    """Trains with an optimizer of Keras or PyTorch. The processes start with other weights, which DDP makes equal."""
    model, results = make(seed=rank), {}
    forward = DistributedDataParallel(model) if size > 1 else model
    if library == "keras":
        optimizer = keras.optimizers.Adam(0.01)
        optimizer.build(model.trainable_variables)
    else:
        optimizer = torch.optim.Adam(forward.parameters(), 0.01)
    for epoch in range(4):
        kp.cut(model, SCHEDULE(epoch), optimizer if library == "keras" else None)
        for x, y in batches(rank, size):
            forward.zero_grad()
            mse_loss(forward(x), y).backward()
            if library == "keras":
                variables = model.trainable_variables
                optimizer.apply([variable.value.grad for variable in variables], variables)
            else:
                optimizer.step()
        results |= masks(model, epoch)
    return results | weights(model)


def train_by_fit(rank, size, epochs=4, backups=()):
    """Trains with `fit`. A hook of PyTorch averages each gradient over the processes."""
    model, results = make(), {}

    def average(parameter):
        dist.all_reduce(parameter.grad)
        parameter.grad /= size

    for variable in model.trainable_variables:
        variable.value.register_post_accumulate_grad_hook(average)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    record = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: results.update(masks(model, epoch)))
    x, y = (np.concatenate(arrays) for arrays in zip(*batches(rank, size), strict=True))
    callbacks = [kp.PruningCallback(SCHEDULE, verbose=0), record, *backups]
    history = model.fit(x, y, batch_size=32 // size, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return results | weights(model) | {"epochs": history.epoch}


def resume(rank, size, folder):
    """Resumes training after a kill before process 1 saved the last epoch."""
    before = train_by_fit(rank, size, epochs=3, backups=[kp.PruningBackup(folder)])
    if rank == 1:
        (folder / "worker_1_of_2/after_epoch_3.weights.h5").unlink()
    dist.barrier()
    return before | train_by_fit(rank, size, backups=[kp.PruningBackup(folder)])


def fully_shard_keras(rank, size):
    """Checks which gradients an unchanged Keras model gets under FSDP2."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
    mesh = dist.init_device_mesh("cpu", (size,))
    for module in [*model.layers, model]:
        fully_shard(module, mesh=mesh)
    (x, y), _ = batches(rank, size)
    mse_loss(model(x), y).backward()
    return {
        "sharded": [parameter.grad is not None for parameter in model.parameters()],
        "whole": [variable.value.grad is not None for variable in model.trainable_variables],
    }


def train_sharded(rank, size):
    model, results = make(), {}
    mesh = dist.init_device_mesh("cpu", (size,))
    parts = [Sharded(layer, mesh) for layer in model.layers]
    forward = fully_shard(torch.nn.Sequential(*parts), mesh=mesh)
    parameters = list(forward.parameters())
    optimizer = torch.optim.Adam([one for one in parameters if one.requires_grad], 0.01)
    for epoch in range(4):
        for part in parts:
            part.gather()
            kp.cut(part.layers[0], SCHEDULE(epoch))
            results |= masks(part.layers[0], epoch)
            part.scatter()
        for x, y in batches(rank, size):
            forward.zero_grad()
            mse_loss(forward(x), y).backward()
            optimizer.step()
    stored = sum(variable.value.nbytes for variable in model.trainable_variables)
    results["bytes"] = [
        stored + sum(one.to_local().nbytes for one in parameters),
        sum(one.nbytes for one in parameters),
    ]
    for part in parts:
        part.gather()
    return results | weights(model)


def main(folder):
    alone = {f"alone-{library}": train_by_hand(library) for library in ("keras", "torch")}
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    together = {library: train_by_hand(library, rank, size) for library in ("keras", "torch")}
    together |= {"fit": train_by_fit(rank, size), "sharded": train_sharded(rank, size)}
    together["resumed"] = resume(rank, size, folder / "backup")
    together["plain"] = fully_shard_keras(rank, size)
    dist.destroy_process_group()
    for way, results in (alone | together).items():
        np.savez(folder / f"{way}-{rank}.npz", **results)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

"""Prunes a network with FSDP2, in which every PyTorch process holds a part of each weight and mask.

KERAS_BACKEND=torch torchrun --standalone --nproc-per-node 2 examples/fully_sharded.py
"""

import os
import pathlib

import keras
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.utils.checkpoint import checkpoint

import keras_prune as kp

EPOCHS, BATCH = 12, 64


class Sharded(torch.nn.Module):
    """A Keras layer, or a model as one layer, whose weights and masks FSDP2 shards.

    `fully_shard` alone does not shard them, because Keras computes with the tensors in its variables (Keras 3.15). Here
    Keras reads the parameters of this module instead, in a `keras.StatelessScope`. Between `scatter` and `gather`, the
    variables of Keras are empty.

    Args:
        layer: Built Keras layer, plain or pruned.
        mesh: `DeviceMesh` over the processes.
    """

    def __init__(self, layer, mesh):
        super().__init__()
        self.layers = [layer]  # In a list, which hides the variables of Keras from PyTorch.
        self.variables = [*layer.trainable_variables, *(weight.mask for weight in kp.layers.pruned_weights(layer))]
        ids = {id(variable) for variable in self.variables}
        self.others = [variable for variable in layer.variables if id(variable) not in ids]
        self.parts = torch.nn.ParameterList(
            torch.nn.Parameter(variable.value.detach().contiguous(), variable.trainable) for variable in self.variables
        )
        fully_shard(self, mesh=mesh)
        self.release()

    def forward(self, inputs):
        """Computes the layer, and recomputes it in the backward pass, which frees whole masked weights in between."""
        state = [variable.value.detach().clone() for variable in self.others]
        outputs, state = checkpoint(self.call, inputs, state, use_reentrant=False)
        for variable, value in zip(self.others, state, strict=True):
            variable.assign(value)
        return outputs

    def call(self, inputs, state):
        """Returns the outputs and the new state, such as that of a dropout."""
        variables, values = [*self.variables, *self.others], [*self.parts, *state]
        with keras.StatelessScope(zip(variables, values, strict=True)) as scope:
            outputs = self.layers[0](inputs, training=self.training)
        return outputs, [scope.get_current_value(variable) for variable in self.others]

    def gather(self):
        """Sets the variables of Keras to the whole values."""
        for variable, part in zip(self.variables, self.parts, strict=True):
            variable.value.data = part.full_tensor()

    @torch.no_grad()
    def scatter(self):
        """Copies the values back from the variables of Keras."""
        for variable, part in zip(self.variables, self.parts, strict=True):
            part.copy_(distribute_tensor(variable.value.data, part.device_mesh, part.placements))
        self.release()

    def release(self):
        """Frees the tensors of the variables of Keras."""
        for variable in self.variables:
            variable.value.data = variable.value.data.new_empty(0)


def main():
    from sklearn.datasets import load_digits  # The class above does not need it.

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32, device=device) / 16
    y = torch.tensor(digits.target, device=device)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(256, "relu"), keras.layers.Dense(256, "relu"), keras.layers.Dense(10)]
    model = kp.prune(keras.Sequential([keras.Input((64,)), *layers]), kp.TargetSparsity(0.9))
    mesh = dist.init_device_mesh(device, (size,))
    parts = [Sharded(layer, mesh) for layer in model.layers]
    forward = fully_shard(torch.nn.Sequential(*parts), mesh=mesh)
    optimizer = torch.optim.Adam([one for one in forward.parameters() if one.requires_grad], 1e-3)
    schedule = kp.Polynomial(start=2, end=8)
    for epoch in range(EPOCHS):
        for part in parts:  # One layer is whole at a time.
            part.gather()
            kp.cut(part.layers[0], schedule(epoch))
            part.scatter()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for start in range(0, len(x) - size * BATCH + 1, size * BATCH):
            rows = order[start + rank : start + size * BATCH : size]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(forward(x[rows]), y[rows]).backward()
            optimizer.step()
    parameters = list(forward.parameters())
    held, whole = sum(one.to_local().nbytes for one in parameters), sum(one.nbytes for one in parameters)
    for part in parts:
        part.gather()
    kp.cut(model, None)  # Resets pruned weights that the momentum of Adam has moved to zero.
    if rank == 0:
        accuracy = (model(x).argmax(1) == y).float().mean()
        print(f"{kp.report(model).compression:.1f}x, accuracy {accuracy:.2%}, {held:,} of {whole:,} bytes on a process")
        pathlib.Path("output").mkdir(exist_ok=True)
        model.save("output/fully_sharded.keras")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

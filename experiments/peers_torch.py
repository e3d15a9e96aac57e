"""`torch.nn.utils.prune` in `peers.py`: five rounds of `global_unstructured` in a plain loop."""

import copy

import numpy as np
import torch
from peers_training import EPSILON, RATE
from torch.nn.utils import prune

ROUNDS = 5


class Torch:
    """A `torch.nn.Sequential`, trained in a loop."""

    name = "torch.nn.utils.prune"
    packages = ("torch",)

    def __init__(self, training):
        self.training = training

    def dense(self):
        torch.manual_seed(self.training.seed)
        nn = torch.nn
        model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
        for layer in model[::2]:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        return model

    def copy(self, model):
        return copy.deepcopy(model)

    def train(self, model, epochs, on_epoch, compression=None):
        weights = [(layer, "weight") for layer in model[::2]]
        every = self.training.pruned_epochs // ROUNDS
        random = np.random.default_rng(self.training.seed)
        optimizer = torch.optim.Adam(model.parameters(), RATE, eps=EPSILON)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * self.training.steps)
        for epoch in range(epochs):
            if compression and epoch % every == 0 and epoch < ROUNDS * every:
                # `amount` is a share of what is left.
                prune.global_unstructured(weights, prune.L1Unstructured, amount=1 - compression ** (-1 / ROUNDS))
            for batch in self.training.batches(random):
                images, labels = map(torch.from_numpy, batch)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
                rate.step()
            on_epoch()
        if compression:
            for layer, name in weights:
                prune.remove(layer, name)
        return model

    def logits(self, model, images):
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()

    def kernels(self, model):
        return [layer.weight.detach().numpy().T for layer in model[::2]]


class TorchFlushing(Torch):
    """The same without denormal numbers, which the moments of pruned weights become, and which take longer."""

    name = "torch.nn.utils.prune, set_flush_denormal"

    def __init__(self, training):
        super().__init__(training)
        torch.set_flush_denormal(True)

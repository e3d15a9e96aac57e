"""jaxpruner in `peers.py`: its global magnitude pruning in a plain loop of JAX and optax."""

import importlib.metadata
import json

import jax
import jaxpruner
import ml_collections
import numpy as np
import optax
from peers_training import EPSILON, RATE


def logits_of(params, x):
    """Returns what LeNet-300-100 makes of images."""
    for name in ("fc1", "fc2"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["fc3"]["kernel"] + params["fc3"]["bias"]


class JaxPruner:
    """A tree of parameters, trained in a loop."""

    packages = ("jaxpruner", "jax", "optax")

    def __init__(self, training):
        self.training = training
        source = json.loads(importlib.metadata.distribution("jaxpruner").read_text("direct_url.json"))
        self.name = f"jaxpruner {source['vcs_info']['commit_id'][:7]}"

    def dense(self):
        keys = jax.random.split(jax.random.PRNGKey(self.training.seed), 3)
        kernel, sizes = jax.nn.initializers.glorot_uniform(), (784, 300, 100, 10)
        return {
            f"fc{i + 1}": {"kernel": kernel(keys[i], sizes[i : i + 2]), "bias": np.zeros(sizes[i + 1], "float32")}
            for i in range(3)
        }

    def copy(self, model):
        return model  # Arrays of JAX do not change.

    def pruner(self, compression):
        config = ml_collections.ConfigDict(
            {
                "algorithm": "global_magnitude",
                "dist_type": "uniform",  # Required, and not used by global pruning.
                "sparsity": 1 - 1 / compression,
                "update_freq": self.training.steps,
                "update_start_step": 0,
                "update_end_step": self.training.pruned_epochs * self.training.steps,
            }
        )
        return jaxpruner.create_updater_from_config(config)

    def train(self, model, epochs, on_epoch, compression=None):
        optimizer = optax.adam(optax.cosine_decay_schedule(RATE, epochs * self.training.steps), eps=EPSILON)
        pruner = self.pruner(compression) if compression else None
        optimizer = pruner.wrap_optax(optimizer) if pruner else optimizer

        def loss(params, images, labels):
            return optax.softmax_cross_entropy_with_integer_labels(logits_of(params, images), labels).mean()

        @jax.jit
        def step(params, state, images, labels):
            updates, state = optimizer.update(jax.grad(loss)(params, images, labels), state, params)
            params = optax.apply_updates(params, updates)
            return pruner.post_gradient_update(params, state) if pruner else params, state

        random, state = np.random.default_rng(self.training.seed), optimizer.init(model)
        for _ in range(epochs):
            for batch in self.training.batches(random):
                model, state = step(model, state, *batch)
            jax.block_until_ready(model)
            on_epoch()
        return model

    def logits(self, model, images):
        return np.asarray(logits_of(model, images))

    def kernels(self, model):
        return [np.asarray(layer["kernel"]) for layer in model.values()]

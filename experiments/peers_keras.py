"""keras_prune and tfmot in `peers.py`: a Keras model and `fit`."""

import os

import numpy as np
from peers_training import EPSILON, RATE


class KerasPeer:
    """A model of Keras 3, trained by `fit`."""

    def __init__(self, training):
        import keras

        self.training, self.keras = training, keras

    def dense(self):
        keras = self.keras
        keras.utils.set_random_seed(self.training.seed)
        sizes = {300: "relu", 100: "relu", 10: None}
        return keras.Sequential([keras.Input((784,)), *(keras.layers.Dense(n, name) for n, name in sizes.items())])

    def copy(self, model):
        copy = self.keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        return copy

    def prune(self, model, compression):
        """Returns the model to train, and its callbacks."""
        raise NotImplementedError

    def strip(self, model):
        raise NotImplementedError

    def train(self, model, epochs, on_epoch, compression=None):
        keras = self.keras
        trained, callbacks = self.prune(model, compression) if compression else (model, [])
        rate = keras.optimizers.schedules.CosineDecay(RATE, epochs * self.training.steps)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trained.compile(keras.optimizers.Adam(rate, epsilon=EPSILON), loss)
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: on_epoch()))
        trained.fit(*self.training.data, batch_size=self.training.batch, epochs=epochs, callbacks=callbacks, verbose=0)
        return self.strip(trained) if compression else trained

    def logits(self, model, images):
        return model.predict(images, batch_size=1000, verbose=0)

    def kernels(self, model):
        return [weight for weight in model.get_weights() if np.ndim(weight) == 2]


class KerasPrune(KerasPeer):
    """keras_prune with its defaults: the largest magnitudes of the model."""

    def __init__(self, training):
        super().__init__(training)
        backend = self.keras.backend.backend()
        self.name = f"keras_prune, {backend}"
        self.packages = ["keras_prune", "keras", backend]

    def criterion(self, compression):
        return 1 - 1 / compression

    def prune(self, model, compression):
        import keras_prune as kp

        return kp.prune(model, self.criterion(compression)), [kp.PruningCallback()]

    def strip(self, model):
        import keras_prune as kp

        return kp.strip(model)


class CommonQuality(KerasPrune):
    """keras_prune with one quality for all layers."""

    def __init__(self, training):
        super().__init__(training)
        self.name = self.name.replace(",", " CommonQuality,")

    def criterion(self, compression):
        from keras_prune import budgets

        return budgets.CommonQuality(compression)


class Tfmot(KerasPeer):
    """tfmot: the same share of each layer, with its polynomial schedule."""

    name = "tfmot"
    packages = ("tensorflow-model-optimization", "tf_keras", "tensorflow")

    def __init__(self, training):
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import tensorflow_model_optimization
        import tf_keras

        self.training, self.keras = training, tf_keras
        self.sparsity = tensorflow_model_optimization.sparsity.keras

    def prune(self, model, compression):
        steps = self.training.steps
        last = self.training.pruned_epochs * steps
        schedule = self.sparsity.PolynomialDecay(0.0, 1 - 1 / compression, 0, last, frequency=steps)
        return self.sparsity.prune_low_magnitude(model, schedule), [self.sparsity.UpdatePruningStep()]

    def strip(self, model):
        return self.sparsity.strip_pruning(model)

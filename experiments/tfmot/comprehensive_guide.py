"""The tutorial "Pruning comprehensive guide", in short: what can be pruned, a custom loop, saving and loading."""

import tempfile

import common
import keras
import numpy as np

from keras_prune.compat import tfmot

np.random.seed(0)
input_shape = [20]
x_train = np.random.randn(1, 20).astype(np.float32)
y_train = keras.utils.to_categorical(np.random.randint(20, size=1), num_classes=20)


def setup_model():
    model = keras.Sequential([keras.layers.Dense(20, input_shape=input_shape), keras.layers.Flatten()])
    common.start(model)
    return model


pretrained_weights = tempfile.mkdtemp() + "/pretrained.weights.h5"
setup_model().save_weights(pretrained_weights)

# Prune a whole model.
base_model = setup_model()
base_model.load_weights(pretrained_weights)
model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(base_model)
model_for_pruning.summary()


# Prune some layers.
def apply_pruning_to_dense(layer):
    if isinstance(layer, keras.layers.Dense):
        return tfmot.sparsity.keras.prune_low_magnitude(layer)
    return layer


keras.models.clone_model(setup_model(), clone_function=apply_pruning_to_dense).summary()

# Functional and Sequential models, layer by layer.
i = keras.Input(shape=(20,))
x = tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(10))(i)
o = keras.layers.Flatten()(x)
keras.Model(inputs=i, outputs=o).summary()
keras.Sequential(
    [
        tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(20, input_shape=input_shape)),
        keras.layers.Flatten(),
    ]
).summary()


# A layer that prunes its bias, too.
class MyDenseLayer(keras.layers.Dense, tfmot.sparsity.keras.PrunableLayer):
    def get_prunable_weights(self):
        return [self.kernel, self.bias]


keras.Sequential(
    [tfmot.sparsity.keras.prune_low_magnitude(MyDenseLayer(20, input_shape=input_shape)), keras.layers.Flatten()]
).summary()

# Train with `fit`.
log_dir = tempfile.mkdtemp()
callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), common.follow(keras, model_for_pruning)]
if common.HAS_TENSORBOARD:
    callbacks.append(tfmot.sparsity.keras.PruningSummaries(log_dir=log_dir))
model_for_pruning.compile(loss=keras.losses.categorical_crossentropy, optimizer="adam", metrics=["accuracy"])
model_for_pruning.fit(x_train, y_train, callbacks=callbacks, epochs=120, verbose=0)

# Train in a custom loop of TensorFlow.
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    looped = tfmot.sparsity.keras.prune_low_magnitude(setup_model())
    loss = keras.losses.categorical_crossentropy
    optimizer = keras.optimizers.Adam()
    unused_arg = -1
    looped.optimizer = optimizer
    step_callback = tfmot.sparsity.keras.UpdatePruningStep()
    step_callback.set_model(looped)
    step_callback.on_train_begin()
    if common.HAS_TENSORBOARD:
        log_callback = tfmot.sparsity.keras.PruningSummaries(log_dir=log_dir)
        log_callback.set_model(looped)
    for _ in range(2):
        if common.HAS_TENSORBOARD:
            log_callback.on_epoch_begin(epoch=unused_arg)
        for _ in range(60):
            step_callback.on_train_batch_begin(batch=unused_arg)
            with tf.GradientTape() as tape:
                logits = looped(x_train, training=True)
                loss_value = loss(y_train, logits)
            grads = tape.gradient(loss_value, looped.trainable_variables)
            optimizer.apply_gradients(zip(grads, looped.trainable_variables, strict=True))
        step_callback.on_epoch_end(batch=unused_arg)
    common.NOTES["loop"] = {name: float(np.mean(weight == 0)) for name, weight in common.kernels(looped).items()}

# Save, load, and strip.
_, keras_model_file = tempfile.mkstemp(".h5")
model_for_pruning.save(keras_model_file, include_optimizer=True)
with tfmot.sparsity.keras.prune_scope():
    loaded_model = keras.models.load_model(keras_model_file)
loaded_model.summary()
model_for_export = tfmot.sparsity.keras.strip_pruning(model_for_pruning)
model_for_export.summary()

# Blocks.
tfmot.sparsity.keras.prune_low_magnitude(setup_model(), block_size=[1, 16]).summary()
common.finish(model_for_export)

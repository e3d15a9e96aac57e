"""The tutorial "Structural pruning of weights from your model", in short."""

import common
import keras

from keras_prune.compat import tfmot

prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
train_images, train_labels = common.images(3200, (28, 28, 1))
pruning_params_2_by_4 = {"sparsity_m_by_n": (2, 4)}
pruning_params_sparsity_0_5 = {
    "pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(target_sparsity=0.5, begin_step=0, frequency=100)
}
model = keras.Sequential(
    [
        prune_low_magnitude(
            keras.layers.Conv2D(
                8, 5, padding="same", activation="relu", input_shape=(28, 28, 1), name="pruning_sparsity_0_5"
            ),
            **pruning_params_sparsity_0_5,
        ),
        keras.layers.MaxPooling2D((2, 2), (2, 2), padding="same"),
        prune_low_magnitude(
            keras.layers.Conv2D(16, 5, padding="same", name="structural_pruning"), **pruning_params_2_by_4
        ),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D((2, 2), (2, 2), padding="same"),
        keras.layers.Flatten(),
        prune_low_magnitude(
            keras.layers.Dense(64, activation="relu", name="structural_pruning_dense"), **pruning_params_2_by_4
        ),
        keras.layers.Dropout(common.DROPOUT),
        keras.layers.Dense(10),
    ]
)
common.start(model)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
model.summary()
model.fit(
    train_images,
    train_labels,
    batch_size=32,
    epochs=2,
    shuffle=False,
    verbose=0,
    callbacks=[tfmot.sparsity.keras.UpdatePruningStep(), common.follow(keras, model)],
)
model = tfmot.sparsity.keras.strip_pruning(model)
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    print("TFLite file:", len(tf.lite.TFLiteConverter.from_keras_model(model).convert()), "bytes")
common.finish(model)

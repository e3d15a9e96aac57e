"""The example imdb_lstm.py, in short: an embedding and an LSTM."""

import common
import keras
import numpy as np

from keras_prune.compat import tfmot


def print_model_sparsity(pruned_model):
    for layer in pruned_model.layers:
        if layer.name.startswith("prune_low_magnitude"):
            for weight in layer.layer.get_prunable_weights():
                print(layer.name, weight.name, np.mean(keras.ops.convert_to_numpy(weight) == 0))


max_features, maxlen, batch_size = 2000, 20, 32
x_train, y_train = common.texts(3200, max_features, maxlen)
model = keras.Sequential()
model.add(keras.Input((maxlen,)))
model.add(keras.layers.Embedding(max_features, 16))
model.add(keras.layers.LSTM(16))
model.add(keras.layers.Dropout(common.DROPOUT))
model.add(keras.layers.Dense(1))
model.add(keras.layers.Activation("sigmoid"))
common.start(model)
model = tfmot.sparsity.keras.prune_low_magnitude(
    model,
    tfmot.sparsity.keras.PolynomialDecay(initial_sparsity=0.3, final_sparsity=0.7, begin_step=100, end_step=300),
)
model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
if hasattr(keras, "ops"):  # Keras 2 has none.
    print_model_sparsity(model)
callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), common.follow(keras, model)]
model.fit(x_train, y_train, batch_size=batch_size, epochs=3, shuffle=False, callbacks=callbacks, verbose=0)
if hasattr(keras, "ops"):
    print_model_sparsity(model)
common.finish(model)

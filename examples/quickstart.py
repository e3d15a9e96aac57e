"""Trains, prunes, saves, exports and compares a digit classifier in under a minute, with no download.

    python examples/quickstart.py

Uses the 1,797 handwritten digits of scikit-learn, and writes `output/quickstart/digits.keras` and
`digits.tflite`.
"""

import math
import pathlib

import _quiet  # noqa: F401
import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_prune as kp

OUTPUT_DIR = pathlib.Path("output/quickstart")
BATCH_SIZE = 64
EPOCHS_PER_ROUND = 15


def compile_and_fit(model, epochs, callbacks=()):
    """Trains with Adam. In every round of 15 epochs, the learning rate falls along a cosine."""
    steps = EPOCHS_PER_ROUND * math.ceil(len(train_x) / BATCH_SIZE)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecayRestarts(3e-3, steps, t_mul=1.0)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(train_x, train_y, batch_size=BATCH_SIZE, epochs=epochs, verbose=0, callbacks=list(callbacks))


def accuracy(model):
    """Returns the share of right answers on the held-out digits."""
    return model.evaluate(test_x, test_y, verbose=0, return_dict=True)["accuracy"]


keras.utils.set_random_seed(2)
digits = load_digits()
train_x, test_x, train_y, test_y = train_test_split(
    digits.images[..., None].astype("float32") / 16, digits.target, test_size=0.25, random_state=0
)

# 1. Train a dense model.
l2 = keras.regularizers.L2(3e-5)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Flatten(),
        keras.layers.Dense(256, "relu", kernel_regularizer=l2, name="fc1"),
        keras.layers.Dropout(0.3, name="dropout"),
        keras.layers.Dense(64, "relu", kernel_regularizer=l2, name="fc2"),
        keras.layers.Dense(10, kernel_regularizer=l2, name="fc3"),
    ]
)
compile_and_fit(model, epochs=2 * EPOCHS_PER_ROUND)
dense_accuracy = accuracy(model)

# 2. Prune connections below a growing share of each layer's standard deviation, and retrain after each of five cuts.
kp.prune(model, kp.StdThreshold(quality=1.0))
schedule = kp.Iterative(rounds=5, epochs_per_round=EPOCHS_PER_ROUND)
compile_and_fit(model, epochs=5 * EPOCHS_PER_ROUND, callbacks=[kp.PruningCallback(schedule)])
pruned_accuracy = accuracy(model)
print(kp.report(model, test_x))

# 3. Make it a plain Keras model again and save it. The export also runs the file and compares it with the model.
kp.strip(model)
OUTPUT_DIR.mkdir(parents=True, exist_ok=True)
model.save(OUTPUT_DIR / "digits.keras")
print(kp.export_tflite(model, OUTPUT_DIR / "digits.tflite", x=test_x))

reloaded = keras.models.load_model(OUTPUT_DIR / "digits.keras").predict(test_x, verbose=0)
difference = np.abs(reloaded - model.predict(test_x, verbose=0)).max()
if difference > 1e-4:
    raise SystemExit(f"the outputs of digits.keras differ from those of the model by {difference:.1e}")
print(f"accuracy on held-out digits: dense {dense_accuracy:.2%}, pruned {pruned_accuracy:.2%}")

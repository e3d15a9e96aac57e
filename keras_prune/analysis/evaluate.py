"""Evaluation: one number from one pass over validation data."""

import keras


def evaluate(model, data, monitor: str = "accuracy", batch_size: int | None = None, steps: int | None = None) -> float:
    """Returns what a compiled model measures on `data`.

    Args:
        model: Compiled Keras model.
        data: What `fit` takes as `validation_data`: `(x, y)`, `(x, y, sample_weight)`, or a dataset of batches.
        monitor: String, `"loss"` or a metric that the model was compiled with. Defaults to `"accuracy"`.
        batch_size: Integer. Defaults to `None`, Keras's own.
        steps: Integer, how many batches of a dataset to take. Defaults to `None`, all.

    Raises:
        ValueError: If the model is not compiled, or does not measure `monitor`.
    """
    if not model.compiled:
        raise ValueError(
            "Measuring a model takes a metric: call model.compile(..., metrics=['accuracy']) first. "
            f"Received: model={model.name!r}, not compiled"
        )
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    values = model.evaluate(
        x, y, sample_weight=sample_weight, batch_size=batch_size, steps=steps, verbose=0, return_dict=True
    )
    if monitor not in values:
        raise ValueError(
            "monitor must be a metric that the model was compiled with, such as metrics=['accuracy']. "
            f"Received: monitor={monitor!r}, measured are {sorted(values)}"
        )
    return float(values[monitor])

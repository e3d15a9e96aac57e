"""Measure a compiled model on validation data, and find out which values are better."""

import keras

from keras_prune import _keras
from keras_prune._arguments import is_number, require_integer


def evaluate(model, data, monitor: str = "accuracy", batch_size: int | None = None, steps: int | None = None) -> float:
    """Returns the value of a metric of a compiled model.

    Args:
        model: Compiled Keras model.
        data: Validation data as for `fit`: `(x, y)`, `(x, y, sample_weight)`, or a dataset of batches.
        monitor: String, `"loss"` or a metric that the model was compiled with. Defaults to `"accuracy"`.
        batch_size: Integer. Defaults to `None`, 32 where `data` holds arrays.
        steps: Integer, number of batches of a dataset to use. Defaults to `None`, all. An endless dataset needs it.

    Raises:
        ValueError: If the model is not compiled or does not measure `monitor`, or if `data` is endless.
    """
    if not model.compiled:
        raise ValueError(
            "The model has no metrics. Call model.compile(..., metrics=['accuracy']) first. "
            f"Received: model={model.name!r} with model.compiled=False"
        )
    require_end(data, steps)
    values = {} if _is_empty(data) else _evaluate(model, data, batch_size, steps)
    if not values:
        raise ValueError(
            "The model is measured on validation data with at least one sample: (x, y), (x, y, sample_weight), or a "
            f"dataset of batches. Received: data={data!r}"
        )
    if monitor not in values:
        raise ValueError(
            f"The model does not measure {monitor!r}. `monitor` must be one of {sorted(values)}; compile the model "
            f"with the metrics that you need. Received: monitor={monitor!r}"
        )
    return float(values[monitor])


def _evaluate(model, data, batch_size, steps) -> dict[str, float]:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    try:
        return model.evaluate(
            x, y, sample_weight=sample_weight, batch_size=batch_size, steps=steps, verbose=0, return_dict=True
        )
    except StopIteration:  # Keras raises it for a dataset without batches.
        return {}


def _is_empty(data) -> bool:
    """Whether data is known to have no samples. Some datasets do not tell before they are read."""
    if data is None or isinstance(data, str):
        return True
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches == 0
    if not isinstance(data, (tuple, list, dict)) and not hasattr(data, "shape"):
        return False
    arrays = [array for array in keras.tree.flatten(data) if array is not None]
    return not arrays or any(0 in tuple(getattr(array, "shape", ()))[:1] for array in arrays)


def direction(model, monitor: str, mode: str = "auto") -> int:
    """Returns `1` if more of a metric is better, `-1` if less is.

    Args:
        model: Compiled Keras model. Evaluate it before a `mode` of `"auto"`, since Keras creates metrics at
            the first evaluation.
        monitor: String, `"loss"` or a metric that the model was compiled with.
        mode: `"min"`, `"max"` or `"auto"`, as in the callbacks of Keras. `"auto"` works for losses and for metrics of
            Keras, including metrics of a single output (`"head_mae"`). Defaults to `"auto"`.

    Raises:
        ValueError: If `mode` is invalid, or is `"auto"` and Keras does not know the metric.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> direction(model, "loss"), direction(model, "my_score", mode="max")
    (-1, 1)
    """
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"`mode` must be 'auto', 'min' or 'max'. Received: mode={mode!r}")
    if mode != "auto":
        return 1 if mode == "max" else -1
    if monitor == "loss" or monitor.endswith("_loss"):
        return -1
    for name, known in sorted(_keras.metric_directions(model).items(), key=lambda item: -len(item[0])):
        if monitor == name or monitor.endswith(f"_{name}"):
            return 1 if known == "up" else -1
    raise ValueError(
        f"Keras does not know whether more or less of {monitor!r} is better. Pass mode='max' or mode='min'. "
        f"Received: monitor={monitor!r}, mode={mode!r}"
    )


def require_max_drop(max_drop) -> None:
    """Raises a `ValueError` if `max_drop` is not a number of at least 0."""
    if not (is_number(max_drop) and max_drop >= 0):
        raise ValueError(
            f"`max_drop` is how much worse the metric may become, a number of at least 0. Received: {max_drop=}"
        )


def require_end(data, steps: int | None) -> None:
    """Raises a `ValueError` if `steps` is not a positive integer, or is `None` and a dataset is known to be endless.

    This is known of a `tf.data.Dataset` and a `keras.utils.PyDataset`, but not of a Python generator.
    """
    if steps is not None:
        require_integer("steps", steps, 1)
    if steps is None and _is_endless(data):
        raise ValueError(
            f"The dataset is endless. Pass `steps`, the number of batches to take. Received: data={data!r}, steps=None"
        )


def _is_endless(data) -> bool:
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    cardinality = getattr(data, "cardinality", None)  # Of a tf.data.Dataset, without importing TensorFlow.
    return callable(cardinality) and bool(cardinality() == -1)

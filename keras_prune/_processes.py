"""Count the processes that train one model together, and exchange arrays between them.

Keras has no function for it. On TensorFlow, the strategy that the model was created in decides. A model under a
`ParameterServerStrategy` counts as trained by one process, because only the coordinator runs the script.
"""

from typing import Any

import numpy as np


def process_count(model=None) -> int:
    """Returns how many processes train a model together, 1 unless the backend was set up for more."""
    return _place(model)[1]


def process_index(model=None) -> int:
    """Returns the number of this process among those that train a model together, from 0."""
    return _place(model)[0]


def gather(values, model=None) -> np.ndarray:
    """Returns the arrays of all processes, stacked on a first axis in the order of `process_index`.

    Every process must call it with an array of the same shape and dtype, and waits for the others.
    """
    values = np.ascontiguousarray(values).reshape(np.shape(values))  # NumPy gives a number an axis.
    count = process_count(model)
    if count == 1 or not values.size:
        return np.stack([values] * count)
    # As bytes, because JAX cuts 64-bit numbers to 32 bits.
    rows = _gather_bytes(np.frombuffer(values.tobytes(), "uint8"), count, model)
    return np.ascontiguousarray(rows).view(values.dtype).reshape(count, *values.shape)


def _place(model) -> tuple[int, int]:
    if _backend() == "jax":
        import jax

        return jax.process_index(), jax.process_count()
    if _backend() == "torch":
        from torch import distributed

        together = distributed.is_available() and distributed.is_initialized()
        return (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    if _backend() == "tensorflow" and (strategy := _workers_strategy(model)):
        ids = strategy.experimental_distribute_values_from_function(lambda replica: replica.replica_id_in_sync_group)
        devices = len(strategy.extended.worker_devices)
        return strategy.experimental_local_results(ids)[0] // devices, strategy.num_replicas_in_sync // devices
    return 0, 1


def _gather_bytes(row, count, model):
    if _backend() == "jax":
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(row))
    if _backend() == "torch":
        import torch

        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        rows = [torch.empty(len(row), dtype=torch.uint8, device=device) for _ in range(count)]
        torch.distributed.all_gather(rows, torch.tensor(row, device=device))
        return torch.stack(rows).cpu().numpy()
    import tensorflow as tf

    strategy = _workers_strategy(model)
    # TensorFlow gathers no bytes. Each worker sends a row from every device that it has.
    sent = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(row[None].astype("int32")))
    return strategy.gather(sent, axis=0).numpy()[:: len(strategy.extended.worker_devices)].astype("uint8")


def _workers_strategy(model) -> Any:
    """Returns the strategy of a model if several workers run the same script, else `None`."""
    import tensorflow as tf

    strategy = tf.distribute.get_strategy() if model is None else model.distribute_strategy
    return strategy if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) else None


def _backend() -> str:
    import keras  # Not above, because modules that `_lazy.import_after` imports after Keras import this one.

    return keras.backend.backend()

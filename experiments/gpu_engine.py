"""Interface of the engines that `gpu.py` times."""

import importlib.util
import time

import numpy as np


class Engine:
    """One way to multiply inputs by the weights of a layer.

    Args:
        problem: `Problem`.
        batch: Integer, number of inputs.
        device: `"cpu"` or `"gpu"`.

    Attributes:
        name: String, the name of its row.
        library: String, the module that it needs.
        pattern: String, the sparsity pattern of its weights, see `Problem.reference`.
        kind: `"float32"` for dense float32, the reference; `"dense"` for other dense engines; `"sparse"` for engines
            that skip zeros.
        tolerance: Float, the largest relative error that is accepted.
        clock: String, how the time is taken.
        joins: Boolean, whether products with the same weights may be joined into one. Then each has its own copy.
        weight_bytes: Integer, the size of the weights.
        details: Dict of further values for the entry in the results.
    """

    name = ""
    library = ""
    pattern = "single"
    kind = "sparse"
    tolerance = 1e-5
    clock = "host"
    joins = False
    weight_bytes = 0

    def __init__(self, problem, batch, device):
        self.problem, self.batch, self.device, self.details = problem, batch, device, {}
        self.load()

    @classmethod
    def missing(cls, device):
        """Returns why the engine can't run on the device, or `None`."""
        if importlib.util.find_spec(cls.library) is None:
            return f"{cls.library} is not installed"
        return None

    def load(self):
        """Puts the weights on the device and sets `weight_bytes`."""
        raise NotImplementedError

    def prepare(self, copies, products):
        """Prepares products that go through copies of the weights in turn, each with its own copy of the inputs."""
        raise NotImplementedError

    def run(self):
        """Starts the prepared products and returns their outputs."""
        raise NotImplementedError

    def wait(self, outputs):
        """Waits until `run` is done."""
        raise NotImplementedError

    def to_numpy(self, outputs):
        """Returns the first of the outputs as float64 of shape `(batch, outputs)`."""
        raise NotImplementedError

    def error(self, reference):
        """Returns the relative error of the outputs: the norm of the difference over the norm of the reference."""
        outputs = self.to_numpy(self.run())
        if outputs.shape != reference.shape:
            raise ValueError(f"the outputs have shape {outputs.shape} instead of {reference.shape}")
        return float(np.linalg.norm(outputs - reference) / np.linalg.norm(reference))

    def seconds(self, repeats):
        """Returns the seconds that all prepared products take, `repeats` times in a row, by `clock`."""
        return self.host_seconds(repeats)

    def host_seconds(self, repeats):
        """Returns the same by the clock of the host."""
        self.wait(self.run())
        started = time.perf_counter()
        for _ in range(repeats):
            outputs = self.run()
        self.wait(outputs)
        return time.perf_counter() - started

    def call_seconds(self):
        """Returns the seconds of one run with a wait, as in a program that needs the outputs at once."""
        started = time.perf_counter()
        self.wait(self.run())
        return time.perf_counter() - started

    def close(self):
        """Frees what the engine holds on the device."""
        self.__dict__.clear()

"""Engines on PyTorch: dense and CSR, for single layers."""

import numpy as np

from keras_prune.benchmark.engine import Engine, kernel_of, threads
from keras_prune.sparse.matrices import Connections


class PyTorchDense(Engine):
    """`torch.matmul`."""

    name = runtime = "PyTorch"
    baseline = True
    packages = ("torch",)

    def __init__(self, model, device):
        import torch

        torch.set_num_threads(threads())
        self.device = torch.device(device.replace("gpu", "cuda"))
        self.weight = self._load(kernel_of(model))

    @classmethod
    def devices(cls):
        import torch

        return ["cpu:0", *(f"gpu:{index}" for index in range(torch.cuda.device_count()))]

    def prepare(self, inputs):
        import torch

        tensor = torch.from_numpy(inputs).to(self.device)

        def run():
            with torch.inference_mode():
                outputs = (self.weight @ tensor.T).T
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return outputs

        return run

    def to_numpy(self, outputs):
        return outputs.cpu().numpy()

    def _load(self, kernel):
        import torch

        self.weight_bytes = kernel.nbytes
        return torch.from_numpy(np.ascontiguousarray(kernel.T)).to(self.device)


class PyTorchCSR(PyTorchDense):
    """`torch.sparse_csr_tensor`."""

    name = "PyTorch CSR"
    baseline = False

    def _load(self, kernel):
        import torch

        values, columns, row_starts = Connections.of(kernel)
        self.weight_bytes = values.nbytes + columns.nbytes + row_starts.nbytes
        parts = (torch.from_numpy(part).to(self.device) for part in (row_starts, columns, values))
        return torch.sparse_csr_tensor(*parts, size=kernel.shape[::-1], check_invariants=False)

"""Engines of `gpu.py` on PyTorch for weights in blocks, in groups, and with two of every four kept."""

import contextlib

import gpu_torch_engines
import numpy as np


class TorchBSR(gpu_torch_engines.TorchCSR):
    """`torch.sparse_bsr_tensor` in float32."""

    name = "PyTorch BSR 32x32"
    pattern = "blocks"
    tolerance = 2e-3  # Its kernel for more than one input may use TF32.

    def weights(self):
        import torch

        values, columns, starts = map(self.tensor, self.problem.blocks)
        size = self.problem.padded, self.problem.inputs
        values = values.to(getattr(torch, self.dtype))
        yield torch.sparse_bsr_tensor(starts, columns, values, size=size, check_invariants=False)


class TorchBSRBfloat16(TorchBSR):
    """`torch.sparse_bsr_tensor` in bfloat16, a Triton kernel, which takes at least 16 inputs."""

    name = "PyTorch BSR 32x32 bfloat16"
    dtype = "bfloat16"
    tolerance = 2e-2

    def inputs(self):
        return self.tensor(padded(self.problem.x(self.batch)).T, self.dtype)

    def to_rows(self, outputs):
        return outputs.T[: self.batch]


class TorchGroups(gpu_torch_engines.TorchDense):
    """Groups of 64 outputs that read the same inputs: a gather and a batched product."""

    name = "PyTorch blocks 1x64"
    pattern = "groups"
    kind = "sparse"

    def weights(self):
        read, weights = self.problem.groups
        yield self.tensor(weights.transpose(0, 2, 1), self.dtype)
        yield self.tensor(read.reshape(-1))

    def inputs(self):
        return self.tensor(self.problem.x(self.batch).T, self.dtype)

    def product(self, weights, x):
        weight, read = weights
        gathered = x.index_select(0, read).reshape(weight.shape[0], weight.shape[2], self.batch)
        return weight @ gathered

    def to_rows(self, outputs):
        return outputs.reshape(-1, self.batch).T


class TorchGroupsBfloat16(TorchGroups):
    """The same in bfloat16."""

    name = "PyTorch blocks 1x64 bfloat16"
    dtype = "bfloat16"
    tolerance = 2e-2


class TorchTwoOfFour(gpu_torch_engines.TorchDense):
    """`torch.sparse.to_sparse_semi_structured` in bfloat16, through its operator of cuSPARSELt."""

    name = "PyTorch 2:4 bfloat16"
    pattern = "2:4"
    kind = "sparse"
    dtype = "bfloat16"
    tolerance = 2e-2
    out_dtype = None

    @classmethod
    def missing(cls, device):
        return super().missing(device) or (None if device == "gpu" else "PyTorch has 2:4 weights on a GPU only")

    def weights(self):
        import torch

        weight = self.problem.two_of_four_int8 if self.dtype == "int8" else self.problem.two_of_four
        packed = torch.sparse.to_sparse_semi_structured(self.tensor(weight, self.dtype))
        if packed.packed is None or packed.meta is not None:
            raise RuntimeError(f"PyTorch packed the weights as {type(packed).__name__} instead of for cuSPARSELt")
        yield packed.packed

    def inputs(self):
        import torch

        x = padded(self.problem.x(self.batch))
        x = self.tensor(self.problem.as_int8(x) if self.dtype == "int8" else x, self.dtype)
        keywords = {"out_dtype": self.out_dtype and getattr(torch, self.out_dtype)}
        self.keywords = {key: value for key, value in keywords.items() if value}
        # Not every version of cuSPARSELt can search.
        with contextlib.suppress(Exception):
            self.keywords["alg_id"] = int(torch._cslt_sparse_mm_search(self.weight[0], x.T, **self.keywords))
        self.details["algorithm"] = self.keywords.get("alg_id")
        return x

    def product(self, weights, x):
        import torch

        return torch._cslt_sparse_mm(weights[0], x.T, **self.keywords)

    def to_rows(self, outputs):
        return outputs.T[: self.batch]


class TorchTwoOfFourFloat16(TorchTwoOfFour):
    """The same in float16."""

    name = "PyTorch 2:4 float16"
    dtype = "float16"


class TorchTwoOfFourInt8(TorchTwoOfFour):
    """The same with weights and inputs of 8 bits and outputs of 32."""

    name = "PyTorch 2:4 int8"
    pattern = "2:4 int8"
    dtype = "int8"
    out_dtype = "int32"
    tolerance = 1e-6


ENGINES = (
    TorchGroups,
    TorchGroupsBfloat16,
    TorchBSR,
    TorchBSRBfloat16,
    TorchTwoOfFourFloat16,
    TorchTwoOfFour,
    TorchTwoOfFourInt8,
)


def padded(x):
    """Returns inputs with rows of zeros up to a multiple of 16."""
    return np.pad(x, [(0, -len(x) % 16), (0, 0)])

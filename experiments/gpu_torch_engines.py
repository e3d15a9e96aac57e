"""Engines of `gpu.py` on PyTorch."""

import contextlib

import gpu_engine
import numpy as np


class TorchDense(gpu_engine.Engine):
    """`torch.matmul` in float32, without TF32."""

    name = "PyTorch float32"
    library = "torch"
    kind = "float32"
    dtype = "float32"
    tf32 = False

    def load(self):
        import torch

        self.target = torch.device("cuda" if self.device == "gpu" else "cpu")
        self.clock = "events, graph" if self.device == "gpu" else "host"
        self.graph = None
        self.weight = tuple(self.weights())
        self.weight_bytes = sum(map(tensor_bytes, self.weight))
        self.x = self.inputs()

    @classmethod
    def missing(cls, device):
        reason = super().missing(device)
        if reason is None and device == "gpu":
            import torch

            if not torch.cuda.is_available():
                return "PyTorch finds no GPU"
        return reason

    def tensor(self, array, dtype=None):
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.target)
        return tensor.to(getattr(torch, dtype)) if dtype else tensor

    def weights(self):
        yield self.tensor(self.problem.kernel, self.dtype)

    def inputs(self):
        return self.tensor(self.problem.x(self.batch), self.dtype)

    def product(self, weights, x):
        return x @ weights[0]

    def to_rows(self, outputs):
        """Returns the outputs as `(batch, outputs)`."""
        return outputs

    def prepare(self, copies, products):
        self.graph = None
        weights = [tuple(part.clone() for part in self.weight) for _ in range(copies)]
        self.pairs = [(weights[place % copies], self.x.clone()) for place in range(products)]
        if products > 1 and self.device == "gpu" and self.clock.endswith("graph"):
            try:
                self._capture()
            except Exception as error:
                import torch

                torch.cuda.synchronize()
                self.graph, self.clock = None, f"events, no graph ({str(error).strip().splitlines()[0][:80]})"

    def _capture(self):
        import torch

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._products()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        local = {"capture_error_mode": "thread_local"}  # Calls in threads of JAX are not errors.
        with torch.inference_mode(), self._precision(), torch.cuda.graph(graph, **local):
            self.kept = [self.product(*pair) for pair in self.pairs]
        self.graph = graph

    @contextlib.contextmanager
    def _precision(self):
        import torch

        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    def _products(self):
        import torch

        with torch.inference_mode(), self._precision():
            return [self.product(*pair) for pair in self.pairs]

    def run(self):
        if self.graph is None:
            return self._products()
        self.graph.replay()
        return self.kept

    def wait(self, outputs):
        import torch

        if self.device == "gpu":
            torch.cuda.synchronize()

    def close(self):
        import torch

        super().close()
        torch.cuda.empty_cache()

    def seconds(self, repeats):
        if self.device != "gpu":
            return self.host_seconds(repeats)
        import torch

        self.run()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            self.run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3

    def to_numpy(self, outputs):
        self.wait(outputs)
        return self.to_rows(outputs[0]).double().cpu().numpy()


class TorchTF32(TorchDense):
    """`torch.matmul` in float32, with TF32 allowed."""

    name = "PyTorch TF32"
    kind = "dense"
    tf32 = True
    tolerance = 2e-3


class TorchBfloat16(TorchDense):
    """`torch.matmul` in bfloat16."""

    name = "PyTorch bfloat16"
    kind = "dense"
    dtype = "bfloat16"
    tolerance = 2e-2


class TorchCSR(TorchDense):
    """`torch.sparse_csr_tensor`, cuSPARSE on a GPU."""

    name = "PyTorch CSR"
    kind = "sparse"

    def weights(self):
        import torch

        values, columns, starts = map(self.tensor, self.problem.csr)
        size = self.problem.outputs, self.problem.inputs
        yield torch.sparse_csr_tensor(starts, columns, values, size=size, check_invariants=False)

    def inputs(self):
        x = self.problem.x(self.batch)
        return self.tensor(x[0] if self.batch == 1 else x.T, self.dtype)

    def product(self, weights, x):
        return weights[0] @ x

    def to_rows(self, outputs):
        return outputs.reshape(1, -1) if self.batch == 1 else outputs.T


ENGINES = (TorchDense, TorchTF32, TorchBfloat16, TorchCSR)


def tensor_bytes(tensor):
    """Returns the bytes of a dense or sparse tensor."""
    import torch

    if tensor.layout == torch.strided:
        return tensor.numel() * tensor.element_size()
    return sum(map(tensor_bytes, (tensor.values(), tensor.col_indices(), tensor.crow_indices())))


def card():
    """Returns the properties of the first GPU that timings depend on, with the speed of a copy in GB/s."""
    import torch

    if not torch.cuda.is_available():
        return {}
    properties = torch.cuda.get_device_properties(0)
    source = torch.empty(2**28, device="cuda").normal_()
    target = torch.empty_like(source)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    for _ in range(3):
        target.copy_(source)
    events[0].record()
    for _ in range(10):
        target.copy_(source)
    events[1].record()
    torch.cuda.synchronize()
    moved = 10 * 2 * source.numel() * 4
    return {
        "card": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "copy_gb_per_s": round(moved / events[0].elapsed_time(events[1]) / 1e6),
        "cuda": torch.version.cuda,
        "cusparselt": torch.backends.cusparselt.version() if hasattr(torch.backends, "cusparselt") else None,
    }

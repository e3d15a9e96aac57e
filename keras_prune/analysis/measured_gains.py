"""Shares of zeros from which on a runtime or file format gains, with date and machine of the measurement."""

from typing import NamedTuple


class Threshold(NamedTuple):
    """A share of zeros, with the date and the machine of its measurement."""

    sparsity: float
    date: str
    machine: str


_X86 = "experiments/litert_layers.py: ai-edge-litert 2.3, x86-64 with AVX-512, 1 thread, float32"

MEASURED = {
    # Below this share, TensorFlow's converter leaves a weight dense.
    "encoded": Threshold(0.3, "2026-11-20", _X86),
    # From 33% on, single zeros save more bytes than their indices take.
    "smaller": Threshold(0.35, "2026-11-20", _X86),
    # Blocks of (4, 1) save more bytes than their indices take whenever they are encoded.
    "smaller in blocks": Threshold(0.3, "2026-11-20", _X86),
    "faster in blocks": Threshold(0.85, "2026-11-20", _X86),
    # Documented by XNNPACK, not measured here.
    "faster in XNNPACK": Threshold(2 / 3, "2026-11-20", "README of TensorFlow Lite's XNNPACK delegate"),
}


def measured(gain: str) -> float:
    """Returns the share of zeros from which on there is a gain, one of the keys of `MEASURED`."""
    return MEASURED[gain].sparsity

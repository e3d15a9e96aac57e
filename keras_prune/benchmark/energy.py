"""Estimate the energy for one input from Fig. 1 of the paper: `python -m keras_prune.benchmark.energy`.

Each surviving connection is fetched once from DRAM or on-chip SRAM, together with its relative index. The weight takes
32 bits, the index 5 bits in dense layers and 8 bits in convolutions. Each use of a connection takes one multiplication
and one addition. Activations, control and leakage are not counted, and zero activations are not skipped.
"""

from collections.abc import Sequence

from keras_prune.networks import TABLES, PaperRow
from keras_prune.terminal.tables import Table, table_with_lines

# Picojoules for 32 bits in 45 nm CMOS (Han et al. 2015, Fig. 1).
PICOJOULES = {
    "int add": 0.1,
    "float add": 0.9,
    "register": 1.0,
    "int multiply": 3.1,
    "float multiply": 3.7,
    "SRAM": 5.0,
    "DRAM": 640.0,
}


def energy(rows: Sequence[PaperRow], pruned: bool = True, memory: str = "DRAM") -> float:
    """Returns the energy for one input in microjoules.

    Args:
        rows: List of `PaperRow`, the layers of a network without the total, as in `keras_prune.networks.TABLES`.
        pruned: Boolean, whether to count the layers at their `density` and with relative indices. Defaults to `True`.
        memory: `"DRAM"` or `"SRAM"`, which stores the weights. Defaults to `"DRAM"`.

    Raises:
        ValueError: If `memory` is invalid.

    Example:

    >>> from keras_prune.benchmark.energy import energy
    >>> fc6 = [PaperRow("fc6", 38e6, 75e6, 36, 9, 3)]
    >>> round(energy(fc6, pruned=False)), round(energy(fc6)), round(energy(fc6, memory="SRAM"))
    (24492, 2546, 35)
    """
    if memory not in ("DRAM", "SRAM"):
        raise ValueError(f"`memory` must be 'DRAM' or 'SRAM'. Received: memory={memory!r}")
    picojoules = 0.0
    for row in rows:
        density = row.density / 100 if pruned else 1.0
        index_bits = (8 if row.layer.startswith("conv") else 5) if pruned else 0
        picojoules += density * row.weights * (1 + index_bits / 32) * PICOJOULES[memory]
        picojoules += density * row.flop / 2 * (PICOJOULES["float multiply"] + PICOJOULES["float add"])
    return picojoules / 1e6


def main():
    """Prints the estimate for the paper's four networks."""
    numbers = ("dense, DRAM", "pruned, DRAM", "pruned, SRAM", "dense / pruned, DRAM", "dense DRAM / pruned SRAM")
    table = Table("microjoules for one input, 45 nm", ["network"], numbers)
    for network, rows in TABLES.items():
        layers = rows[:-1]
        dense, dram, sram = energy(layers, False), energy(layers), energy(layers, memory="SRAM")
        table.add_row(
            network, *(f"{x:,.1f}" for x in (dense, dram, sram)), f"{dense / dram:.1f}x", f"{dense / sram:.0f}x"
        )
    print(table_with_lines(table, []))


if __name__ == "__main__":
    main()

"""Prints what `keras-prune benchmark` has measured as Markdown.

    python experiments/benchmark_tables.py output/benchmark/benchmark.json

Takes several files as one. Layers of the paper are compared with the ratios that its authors published.
"""

import itertools
import json
import operator
import pathlib

from absl import app
from gpu_tables import TITAN_X, line, number

# Speed-ups at batch 1 that the authors published for MKL on a desktop CPU.
PUBLISHED = dict(zip(TITAN_X, (2.45, 4.83, 1.27, 9.28, 9.86, 1.00), strict=True))
BLOCKS, UNPACKED = "LiteRT sparse 4x1", "LiteRT sparse"


def grid(columns, cell):
    """Returns a table with a line for each engine, in the order of `keras-prune benchmark`."""
    from keras_prune.benchmark.engines import ENGINES

    head = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    present = {engine for rows in columns.values() for engine in rows}
    names = [engine.name for engine in ENGINES if engine.name in present]

    def of_column(name):
        return lambda column: cell(columns[column], columns[column][name]) if name in columns[column] else "-"

    return "\n".join(head + [line(name, of_column(name), columns) for name in names])


def gain(row):
    """Returns the speed-up of an engine."""
    return f"{row['speed_up']:.1f}x" if row["speed_up"] >= 0.995 else f"{row['speed_up']:.2g}x"


def time(rows, row):
    """Returns a time with its speed-up, in bold if it is the fastest of the column."""
    text = number(row["microseconds"])
    if not row["baseline"] and row["speed_up"] is not None:
        text += f" ({gain(row)})"
    return f"**{text}**" if row["microseconds"] == min(one["microseconds"] for one in rows.values()) else text


def beside_published(batches):
    """Returns the fastest engines that skip the zeros of float32 weights, beside the published ratios."""
    titles = [f"batch {batch}" for batch in batches] + [f"{BLOCKS}, batch {batch}" for batch in batches]
    lines = [f"| | {' | '.join(titles)} | published, CPU | published, GPU |", "|---|" + "---|" * (len(titles) + 2)]
    for layer, (dense, sparse) in TITAN_X.items():
        columns = [next(rows for name, rows in one.items() if name.startswith(layer)) for one in batches.values()]
        cells = []
        for rows in columns:
            skipping = [row for row in rows.values() if not (row["baseline"] or row["quantized"])]
            skipping = [row for row in skipping if row["engine"] != UNPACKED]
            best = max(skipping, key=operator.itemgetter("speed_up"))
            cells.append(f"{gain(best)}, {best['engine']}")
        cells += [gain(rows[BLOCKS]) for rows in columns]
        lines.append(f"| {layer} | {' | '.join(cells)} | {PUBLISHED[layer]:.2f}x | {dense / sparse:.2f}x |")
    return "\n".join(lines)


def crossovers(found):
    """Returns the densities below which engines are faster than the fastest dense one."""
    lines = ["| layer | batch | engine | faster than dense below a density of |", "|---|---|---|---|"]
    for one in sorted(found, key=lambda one: -1 if one["density"] is None else -one["density"]):
        below = {None: "all of these", 0: "none of these"}.get(one["density"], f"{one['density'] or 0:.1%}")
        lines.append(f"| {one['workload']} | {one['batch_size']} | {one['engine']} | {below} |")
    return "\n".join(lines)


def tables(files):
    """Returns the title and the Markdown of each table."""
    rows = sorted((row for file in files for row in file["rows"]), key=lambda row: (row["workload"], row["density"]))
    batches = {}
    for row in rows:
        column = f"{row['workload']}, {row['density']:.0%}"
        batches.setdefault(row["batch_size"], {}).setdefault(column, {})[row["engine"]] = row
    batches = dict(sorted(batches.items()))
    found = {f"Batch {batch}, microseconds": grid(columns, time) for batch, columns in batches.items()}
    first = next(iter(batches.values()))
    found["Weights, MB"] = grid(first, lambda _, row: f"{row['weight_bytes'] / 1e6:.3g}")
    if set(TITAN_X) <= {row["workload"] for row in rows}:
        found["Beside the published ratios"] = beside_published(batches)
    if crossings := list(itertools.chain.from_iterable(file["crossovers"] for file in files)):
        found["Cross-over densities"] = crossovers(crossings)
    return found


def main(arguments):
    files = [json.loads(pathlib.Path(path).read_text(encoding="utf-8")) for path in arguments[1:]]
    print("\n\n".join(f"**{title}**\n\n{table}" for title, table in tables(files).items()))


if __name__ == "__main__":
    app.run(main)

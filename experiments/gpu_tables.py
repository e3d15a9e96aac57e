"""Markdown tables of the measurements of `gpu.py`."""

LAYERS = ("alexnet/fc6", "alexnet/fc7", "alexnet/fc8", "vgg16/fc6", "vgg16/fc7", "vgg16/fc8")
ENGINES = (
    "PyTorch float32",
    "JAX float32",
    "TensorFlow float32",
    "PyTorch TF32",
    "JAX TF32",
    "PyTorch bfloat16",
    "JAX bfloat16",
    "PyTorch CSR",
    "JAX BCSR",
    "JAX BCOO",
    "TensorFlow CSR",
    "tf.sparse (COO)",
    "PyTorch blocks 1x64",
    "JAX blocks 1x64",
    "PyTorch BSR 32x32",
    "PyTorch blocks 1x64 bfloat16",
    "JAX blocks 1x64 bfloat16",
    "PyTorch BSR 32x32 bfloat16",
    "PyTorch 2:4 float16",
    "PyTorch 2:4 bfloat16",
    "PyTorch 2:4 int8",
)
# Microseconds at batch 1 that the authors published for a Titan X, with cuBLAS (dense) and cuSPARSE (pruned).
TITAN_X = {
    "alexnet/fc6": (542, 135),
    "alexnet/fc7": (243, 66),
    "alexnet/fc8": (81, 55),
    "vgg16/fc6": (1468, 167),
    "vgg16/fc7": (243, 40),
    "vgg16/fc8": (81, 48),
}
NETWORKS = ("LeNet-300-100", "LeNet-5", "ResNet-20")
CHECKS = ("dense", "convolutional", "lstm", "dense, mixed_bfloat16")
BACKENDS = ("jax", "torch", "tensorflow")
NOT_MEASURED = "not measured"


def tables(results):
    """Returns all tables with their titles, as Markdown."""
    return "\n\n".join(f"**{title}**\n\n{table}" for title, table in blocks(results).items())


def blocks(results):
    """Returns a dict from the title of each table to its Markdown.

    Args:
        results: Dict, the content of the JSON file.
    """
    rows = {(row["layer"], row["batch"]): row for row in results.get("layers", {}).get("rows", [])}
    found = {"Ratios at batch 1": ratios(results, rows)}
    for batch in (1, 64, 1024):
        found[f"Batch {batch}, microseconds"] = times(rows, batch)
    found["One call with its wait at batch 1, microseconds"] = calls(rows)
    found["Training steps"] = training(results.get("training", {}))
    found["Checks"] = checks(results.get("smoke", {}))
    return found


def ratios(results, rows):
    """Returns the speed-ups at batch 1 beside the published ones."""
    lines = [
        f"| | {' | '.join(LAYERS)} |",
        "|---|" + "---|" * len(LAYERS),
        line("Titan X, published: cuSPARSE over dense", lambda layer: ratio(*TITAN_X[layer])),
    ]
    best = ("blocks 1x64", "BSR 32x32", "CSR", "BCSR", "BCOO")

    def csr(layer):
        entries = by_engine(rows, layer, 1)
        return ratio(time(entries, "PyTorch float32"), time(entries, "PyTorch CSR"))

    def fastest(layer, suffix, dense):
        entries = by_engine(rows, layer, 1)
        sparse = {f"{lib} {kind}{suffix}" for lib in ("PyTorch", "JAX") for kind in best} & set(entries)
        baseline = [
            entries[f"{lib} {dense}"]["microseconds"] for lib in ("PyTorch", "JAX") if f"{lib} {dense}" in entries
        ]
        if not sparse or not baseline:
            return NOT_MEASURED
        name = min(sparse, key=lambda name: entries[name]["microseconds"])
        return f"{ratio(min(baseline), time(entries, name))} ({name.removesuffix(suffix)})"

    def bandwidth(layer, engine):
        entry = by_engine(rows, layer, 1).get(engine)
        copy = results.get("layers", {}).get("machine", {}).get("copy_gb_per_s")
        if not entry or not copy:
            return NOT_MEASURED
        return f"{100 * entry['weight_bytes'] / entry['microseconds'] / 1e3 / copy:.0f}%"

    lines.append(line("PyTorch CSR (cuSPARSE) over dense float32", csr))
    lines.append(line("Fastest sparse float32 over dense float32", lambda layer: fastest(layer, "", "float32")))
    lines.append(
        line("Fastest sparse bfloat16 over dense bfloat16", lambda layer: fastest(layer, " bfloat16", "bfloat16"))
    )
    for engine in ("PyTorch float32", "PyTorch CSR", "PyTorch blocks 1x64"):
        title = f"{engine}: weights read, of the speed of a copy"
        lines.append(line(title, lambda layer, engine=engine: bandwidth(layer, engine)))
    return "\n".join(lines)


def times(rows, batch):
    """Returns the microseconds of every engine, with the speed-up over the fastest dense float32 engine."""
    lines = [f"| us | {' | '.join(LAYERS)} |", "|---|" + "---|" * len(LAYERS)]
    if batch == 1:
        for place, title in enumerate(("Titan X, dense (published)", "Titan X, cuSPARSE (published)")):
            lines.append(line(title, lambda layer, place=place: f"{TITAN_X[layer][place]:,}"))
    for engine in ENGINES:

        def cell(layer, engine=engine):
            entries = by_engine(rows, layer, batch)
            entry = entries.get(engine)
            if not entry:
                return "refused" if engine in rows.get((layer, batch), {}).get("refused", {}) else NOT_MEASURED
            text = number(entry["microseconds"])
            if entry["kind"] != "float32":
                dense = [other["microseconds"] for other in entries.values() if other["kind"] == "float32"]
                text += f" ({ratio(min(dense), entry['microseconds'])})" if dense else ""
            fastest = min(other["microseconds"] for other in entries.values())
            return f"**{text}**" if entry["microseconds"] == fastest else text

        lines.append(line(engine, cell))
    return "\n".join(lines)


def calls(rows):
    """Returns the microseconds of a single call, with the start on the host and the wait."""
    lines = [f"| us | {' | '.join(LAYERS)} |", "|---|" + "---|" * len(LAYERS)]
    for engine in ENGINES:

        def cell(layer, engine=engine):
            entry = by_engine(rows, layer, 1).get(engine)
            return number(entry["call_microseconds"]) if entry else NOT_MEASURED

        lines.append(line(engine, cell))
    return "\n".join(lines)


def training(section):
    """Returns the time of a training step, pruned over plain."""
    lines = ["| network | backend | plain, ms a step | pruned / plain | pruned with its callback / plain | rounds |"]
    lines.append("|---|---|---|---|---|---|")
    for network in NETWORKS:
        for backend in BACKENDS:
            entries = section.get(backend, {}).get("entries", [])
            entry = next((entry for entry in entries if entry["network"] == network), {})
            if "plain_ms" in entry:
                ratios = (interval(entry[f"{kind}_ratio"]) for kind in ("pruned", "callback"))
                cells = [f"{entry['plain_ms']:.2f}", *ratios, str(entry["rounds"])]
            else:
                cells = [NOT_MEASURED] * 4
            lines.append(f"| {network} | {backend} | {' | '.join(cells)} |")
    return "\n".join(lines)


def checks(section):
    """Returns which checks passed on which backend."""
    lines = [f"| | {' | '.join(BACKENDS)} |", "|---|" + "---|" * len(BACKENDS)]
    for check in CHECKS:

        def cell(backend, check=check):
            entries = section.get(backend, {}).get("entries", [])
            entry = next((entry for entry in entries if entry["check"] == check), {})
            if entry.get("passed") is None:
                return NOT_MEASURED
            return ("passed" if entry["passed"] else f"failed: {entry['reason']}") + (
                f"; cuDNN {'used' if entry['cudnn_used'] else 'not used'}" if "cudnn_used" in entry else ""
            )

        lines.append(line(check, cell, BACKENDS))
    return "\n".join(lines)


def by_engine(rows, layer, batch):
    """Returns a dict from the name of each engine of a row to its entry."""
    return {entry["engine"]: entry for entry in rows.get((layer, batch), {}).get("entries", [])}


def time(entries, engine):
    """Returns the microseconds of an engine, `None` if it was not measured."""
    return entries[engine]["microseconds"] if engine in entries else None


def ratio(slow, fast):
    """Returns how many times faster the second time is."""
    if slow is None or fast is None:
        return NOT_MEASURED
    return f"{slow / fast:.1f}x" if slow > fast else f"{slow / fast:.2f}x"


def interval(values):
    """Returns a median with its interval."""
    return f"{values[0]:.2f} ({values[1]:.2f} to {values[2]:.2f})"


def number(value):
    """Returns microseconds with two digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def line(title, cell, columns=LAYERS):
    """Returns one line of a table."""
    return f"| {title} | {' | '.join(cell(column) for column in columns)} |"

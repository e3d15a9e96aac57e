"""Merge the measurements of several runs of `gpu.py`."""


def merge(older, newer, remark=""):
    """Returns the results of earlier runs, updated with those of a newer run.

    A row of the layers replaces the earlier row of the same layer and batch size. Other sections are replaced as a
    whole. If the time of an engine can't be used, see `unusable`, its earlier entry is kept.

    Args:
        older: Dict, the content of a JSON file, which may have been merged before.
        newer: Dict, the content of the JSON file of one run.
        remark: String, a remark on the run.
    """
    results = older | newer
    if "layers" in newer:
        results["layers"] = merge_layers(older.get("layers", {}), newer["layers"], remark)
    return results


def merge_layers(older, newer, remark):
    """Returns the layers section with the number of the run in every row and entry. `runs` describes the runs."""
    number = len(older.get("runs", [])) + 1
    rows = {place(row): row for row in older.get("rows", [])}
    for row in newer["rows"]:
        earlier = {entry["engine"]: entry for entry in rows.get(place(row), {}).get("entries", [])}
        entries, refused = [], dict(row["refused"])
        for entry in row["entries"]:
            name = entry["engine"]
            if reason := unusable(entry):
                refused[name] = f"run {number}: {reason}"
                entries += [earlier[name]] if name in earlier else []
            else:
                entries.append({"engine": name, "run": number} | entry)
        place_of_run = {"layer": row["layer"], "batch": row["batch"], "run": number}
        rows[place(row)] = place_of_run | row | {"entries": entries, "refused": refused}
    run = {"run": number, "remark": remark, **newer["machine"], "ends": newer["ends"]}
    return newer | {"rows": list(rows.values()), "runs": [*older.get("runs", []), run], "ends": []}


def place(row):
    """Returns the layer and batch size of a row."""
    return row["layer"], row["batch"]


def unusable(entry):
    """Returns why the time of an entry is not the time of one product, or `None`."""
    copies, products = entry["copies"], entry.get("products", entry["copies"])
    if entry["engine"].startswith("JAX") and products > copies:
        return (
            f"{entry['microseconds']:.4g} us for each of {products} products with {copies} copies of the weights; XLA "
            "may join products that share a copy"
        )
    return None

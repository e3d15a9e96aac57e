"""The JSON file in which a benchmark keeps its measurements, whole at any moment: they take hours to repeat."""

import json
import pathlib


def read(path) -> dict:
    """Returns what has been measured; nothing if there is no file yet."""
    path = pathlib.Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path, measured: dict) -> None:
    """Writes all measurements beside the file, and puts them in its place."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)

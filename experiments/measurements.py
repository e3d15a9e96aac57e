"""What benchmarks share: the JSON file of their measurements, never half-written, and the most memory held."""

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


def memory(field: str) -> int:
    """Returns what this process holds (`VmRSS`) or held at most since the last reset (`VmHWM`), in bytes (Linux)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def reset_high_water() -> None:
    """Lets `memory("VmHWM")` start from what the process holds now."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")

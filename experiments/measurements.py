"""Shared functions of the experiments for JSON files, processes and peak memory."""

import json
import pathlib
import subprocess
import sys


def read(path) -> dict:
    """Returns the measurements in a file, or an empty dict without a file."""
    path = pathlib.Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path, measured: dict) -> None:
    """Replaces the file with all measurements in one step."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def memory(field: str) -> int:
    """Returns the memory of this process (`VmRSS`), or its peak since the last reset (`VmHWM`), in bytes (Linux)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def reset_high_water() -> None:
    """Resets `memory("VmHWM")` to the present memory."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def run_apart(script, arguments) -> dict:
    """Runs a script in its own process, and returns the JSON object in the last line that it prints."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with status {done.returncode}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])

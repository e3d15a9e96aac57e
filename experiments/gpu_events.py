"""Events that a section of `gpu.py` reports from its own process, one on each line."""

import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import threading
import time

PREFIX = "@@ "
_LIBRARIES = ("keras", "keras_prune", "jax", "jaxlib", "torch", "triton", "tensorflow", "numpy")


def emit(kind, **values):
    """Writes one event to standard output."""
    print(f"\n{PREFIX}{json.dumps({'kind': kind, **values}, allow_nan=False)}", flush=True)


def follow(command, environment, seconds, handle, patience=math.inf):
    """Runs a process, and calls a function on each event while it runs.

    Args:
        command: List of strings.
        environment: Dict of the environment variables to add.
        seconds: Float, after which the process is killed.
        handle: Function of an event, a dict.
        patience: Float, seconds without an event after which the process is killed. Defaults to no limit.

    Returns:
        `None` if the process succeeded, otherwise a string that says how it failed.
    """
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    heard, ended, why = [time.time()], threading.Event(), []
    until = time.time() + seconds

    def watch():
        while not ended.wait(0.5):
            if time.time() > until or time.time() > heard[0] + patience:
                why.append(f"it was stopped after {seconds if time.time() > until else patience:.0f} s")
                process.kill()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    last = []
    try:
        for line in process.stdout:
            if line.startswith(PREFIX):
                heard[0] = time.time()
                handle(json.loads(line[len(PREFIX) :]))
            elif line.strip():
                last = [*last[-14:], line.rstrip()]
        status = process.wait()
    finally:
        ended.set()
        process.kill()
    if not status:
        return None
    print("\n".join(last), file=sys.stderr)
    return why[0] if why else f"the process ended with status {status}: {last[-1][:200] if last else 'no output'}"


def reason(error):
    """Returns the class and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


def gpu_found():
    """Returns whether the machine has an NVIDIA GPU with a driver."""
    return bool(_nvidia_smi()) or os.path.exists("/dev/nvidia0")


def machine(device):
    """Returns the card, the driver, the versions of the libraries and the date."""
    found = {"device": device, "date": time.strftime("%Y-%m-%d"), "python": platform.python_version()}
    if device == "gpu":
        parts = [part.strip() for part in _nvidia_smi().split(",")]
        found |= dict(zip(("card", "driver", "memory"), parts, strict=False))
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _nvidia_smi():
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""

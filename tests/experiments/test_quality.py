"""The table of the script that measures what a quality gives and costs."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_quality_table_has_the_means_of_the_seeds(tmp_path):
    def run(quality, rounds, seed, compression, error, **cut):
        one = {"network": "lenet_5", "seed": seed, "quality": quality, "rounds": rounds}
        return one | {"compression": compression, "error": error} | cut

    runs = [
        run(2.0, 1, 0, 12.0, 3.0, cut_error=20.0),
        run(2.0, 1, 1, 14.0, 4.0, cut_error=30.0),
        run(2.0, 5, 0, 90.0, 8.0),
        run(0.0, 1, 0, 1.0, 1.5, cut_error=1.6),
    ]
    file = tmp_path / "quality.json"
    file.write_text(json.dumps({"runs": {str(index): one for index, one in enumerate(runs)}}))
    command = [sys.executable, ROOT / "experiments/quality.py", "--table", f"--results={file}"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[2:] == [
        "| lenet_5 | dense | 1.0x |  | 1.6 (1.6) | 1.5 (1.5) |  |",
        "| lenet_5 | 2 | 13.0x | 90.0x | 25.0 (20.0, 30.0) | 3.5 (3.0, 4.0) | 8.0 (8.0) |",
    ]

"""Compile a model to object files and a header for C++ programs."""

import os
import re
import subprocess
import tempfile

from keras_prune import _keras
from keras_prune.export import saved_model
from keras_prune.export.sample import Sample
from keras_prune.export.verification import VerificationError


def write(model, path: str, inputs) -> None:
    """Writes object files and a header for one batch size with TensorFlow's `saved_model_cli`.

    Args:
        model: Plain Keras model with a graph.
        path: String, a new folder.
        inputs: List of one array for each input, of the batch size.

    Raises:
        VerificationError: If the compiler fails.
    """
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        saved_model.save(model, folder, [array.shape for array in inputs])
        os.mkdir(path)
        command = [*_keras.saved_model_cli(), "aot_compile_cpu", "--dir", folder]
        signature = ["--tag_set", "serve", "--signature_def_key", "serving_default"]
        outputs = ["--output_prefix", os.path.join(path, "model"), "--cpp_class", "PrunedModel"]
        done = subprocess.run([*command, *signature, *outputs], capture_output=True, text=True, check=False)
    if done.returncode:
        raise VerificationError(f"saved_model_cli fails with {done.stderr.strip().splitlines()[-1]}")
    os.remove(os.path.join(path, "model_makefile.inc"))  # It holds the paths of this machine,
    os.remove(os.path.join(path, "model_metadata.o"))  # and this is a copy of the weights that nothing refers to.
    header = os.path.join(path, "model.h")
    with open(header, encoding="utf-8") as file:
        content = file.read()
    with open(header, "w", encoding="utf-8") as file:
        file.write(_without_numbers(content))


def run(path: str, sample: Sample) -> None:
    """Returns `None`, because object files run only in the program that they are linked into."""


def _without_numbers(header: str) -> str:
    """Returns a header in which several inputs or outputs are accessed by their names alone.

    TensorFlow changes their numbers each time it compiles the same model.
    """
    for kind in ("arg", "result"):
        numbered = rf"^  \S.*\b(?:set_)?{kind}\d+(?:_\w+)?\(.*\{{\n(?:    .*\n)+  \}}\n\n?"
        if re.search(rf"\b{kind}1_data\(", header):
            note = f"  // The methods {kind}N are left out: their numbers change from one export to the next.\n\n"
            header = re.sub(numbered, "", re.sub(numbered, note, header, count=1, flags=re.M), flags=re.M)
    return header

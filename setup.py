"""Packaging of keras_prune."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# The home of the project, here and in CITATION.cff. The site takes it from here.
REPOSITORY = "https://github.com/OWNER/keras_prune"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def absolute(link):
    """Returns a link of the README that works outside the repository."""
    return f"{link[1]}({REPOSITORY}/{'raw' if link[1].startswith('!') else 'blob'}/main/{link[2]})"


# The oldest versions that the tests have passed with.
EXAMPLES = [
    "ai-edge-litert>=2.1",
    "importlib_resources",  # tensorflow-datasets 4.9.10 imports it and does not ask for it.
    "keras>=3.15",
    "matplotlib>=3.9",
    "scikit-learn>=1.5",
    "tensorflow>=2.21",
    "tensorflow-datasets>=4.9.10",
]
# What the benchmark compares beside the runtimes that Keras runs on.
BENCHMARK = ["absl-py>=2.1", "matplotlib>=3.9", "mkl>=2026.2", "scipy>=1.17", "sparse_dot_mkl>=0.9.10"]
TEST = [*EXAMPLES, "scipy>=1.17", "hypothesis>=6.100", "keras-hub>=0.32", "pytest>=8.0", "pytest-xdist>=3.6"]
# Every series of ruff and every release of pyright has rules of its own.
LINT = ["import-linter>=2.17", "pyright[nodejs]==1.1.414", "ruff==0.17.*"]
# The site. Its tables take a backend, its notebooks Matplotlib and scikit-learn too.
DOCS = [
    "ipykernel>=6.29",
    "jupytext>=1.19",
    "mkdocs-material>=9.7",
    "mkdocstrings[python]>=1.0",
    "nbconvert>=7.16",
    "ruff==0.17.*",
]

setup(
    name="keras_prune",
    version=re.search(r'^__version__ = "(.+)"$', (ROOT / "keras_prune/__init__.py").read_text(), re.MULTILINE)[1],
    description="Magnitude pruning for Keras 3: train, cut, retrain (Han et al. 2015)",
    long_description=re.sub(r"(!?\[[^\]]*\])\((?!\w+:)([^)]+)\)", absolute, README),
    long_description_content_type="text/markdown",
    url=REPOSITORY,
    project_urls={
        "Documentation": f"{REPOSITORY}/tree/main/docs",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
    },
    keywords=["keras", "pruning", "sparsity", "model compression", "tensorflow", "jax", "pytorch", "litert"],
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["keras_prune", "keras_prune.*"]),
    package_data={"keras_prune": ["py.typed", "*.pyi"]},
    entry_points={"console_scripts": ["keras-prune = keras_prune.tools.command:main"]},
    python_requires=">=3.11",
    # No backend among these: Keras runs on TensorFlow, JAX or PyTorch, and the choice is the user's.
    install_requires=["absl-py>=1.4", "keras>=3.15", "numpy>=2.0", "rich>=14.3"],
    extras_require={
        "jax": ["jax>=0.5", "flatbuffers>=24.3"],  # jax.export writes with flatbuffers.
        "torch": ["torch>=2.13"],
        "plots": ["matplotlib>=3.9"],
        "benchmark": BENCHMARK,
        "examples": EXAMPLES,
        # The rival of experiments/overhead.py, which wants absl-py 1 and Keras 2: for an environment of its own.
        "tfmot": ["tensorflow>=2.21", "tensorflow-model-optimization>=0.8.1", "tf_keras>=2.21"],
        "test": TEST,
        "docs": DOCS,
        "dev": [*TEST, *LINT, "build", "twine>=6.1"],
    },
    classifiers=[
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)

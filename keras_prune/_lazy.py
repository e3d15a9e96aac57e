"""Imports that wait: names until their first use (PEP 562), and modules until Keras is imported."""

import contextlib
import importlib
import importlib.abc
import sys
from typing import Any


def lazy_attributes(package: str, names: dict[str, list[str]]) -> tuple:
    """Returns `__all__`, `__getattr__` and `__dir__` of a module.

    Args:
        package: String, name of the module.
        names: Dict from the name of a module to the names that it exports. `[""]` exports the submodule itself.
    """
    origins = {name or origin.rpartition(".")[2]: (origin, name) for origin, of in names.items() for name in of}

    def __getattr__(attribute):
        if attribute not in origins:
            raise AttributeError(f"module {package!r} has no attribute {attribute!r}")
        origin, name = origins[attribute]
        module = importlib.import_module(origin)
        return getattr(module, name) if name else module

    return sorted(origins), __getattr__, lambda: sorted(origins)


def import_after(trigger: str, names: list[str]) -> None:
    """Imports modules now if `trigger` is imported, otherwise as soon as it is.

    Keras must know the classes of a pruned model before it can load one, also if the program only says
    `import keras_prune; import keras`. But importing Keras takes seconds, which `keras-prune --help` should not.

    Args:
        trigger: String, the name of a module, such as `"keras"`.
        names: Strings, names of modules that import the trigger.
    """
    if trigger in sys.modules:
        for name in names:
            importlib.import_module(name)
    else:
        sys.meta_path.insert(0, _ImportAfter(trigger, names))


class _ImportAfter(importlib.abc.MetaPathFinder):
    """Finds one module like the other finders do, and makes its loader import further modules after it.

    The further modules import the trigger, which is complete by then. Other threads that import it wait for the end,
    since the interpreter still holds its lock.
    """

    def __init__(self, trigger, names):
        self.trigger, self.names = trigger, names

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.trigger:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module):
                execute(module)  # If it fails, this finder stays for the next try.
                del loader.exec_module  # Only on this object, so that the method of the class is used again.
                with contextlib.suppress(ValueError):
                    sys.meta_path.remove(self)
                for name in self.names:
                    importlib.import_module(name)

            loader.exec_module = exec_module
        return spec

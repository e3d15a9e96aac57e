"""Attributes of a module that are imported at their first use (PEP 562)."""

import importlib


def lazy_attributes(package: str, names: dict[str, list[str]]) -> tuple:
    """Returns `__all__`, `__getattr__` and `__dir__` of a module.

    Args:
        package: String, name of the module.
        names: Dict from the name of a module to the names that it gives. A submodule gives itself as `[""]`.
    """
    origins = {name or origin.rpartition(".")[2]: (origin, name) for origin, of in names.items() for name in of}

    def __getattr__(attribute):
        if attribute not in origins:
            raise AttributeError(f"module {package!r} has no attribute {attribute!r}")
        origin, name = origins[attribute]
        module = importlib.import_module(origin)
        return getattr(module, name) if name else module

    return sorted(origins), __getattr__, lambda: sorted(origins)

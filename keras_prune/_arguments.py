"""Check arguments that many functions have: integers, numbers and paths."""

import numbers
import os


def is_integer(value) -> bool:
    """Whether a value is an integer, of Python or NumPy, and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value) -> bool:
    """Whether a value is a real number, of Python or NumPy, and no boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def require_integer(name: str, value, minimum: int) -> None:
    """Raises a `ValueError` if an argument is not an integer of at least `minimum`."""
    if not (is_integer(value) and value >= minimum):
        raise ValueError(f"`{name}` must be an integer of at least {minimum}. Received: {name}={value!r}")


def require_path(name: str, value) -> None:
    """Raises a `ValueError` if an argument is neither a string nor a path object."""
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"`{name}` must be a string or a path object. Received: {name}={value!r}")

"""Base class of rules with a pattern and a config."""

from typing import Any

import keras

from keras_prune.rules.patterns import Pattern, require_pattern


class Configured:
    """A rule with a pattern. It equals a rule of the same class with the same config.

    Args:
        pattern: A `Pattern`. Defaults to `None`, single connections.

    Raises:
        ValueError: If `pattern` is not a `Pattern`.
    """

    pattern = Pattern()

    def __init__(self, pattern: Pattern | None = None):
        self.pattern = require_pattern(pattern)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {} if self.pattern == Pattern() else {"pattern": keras.saving.serialize_keras_object(self.pattern)}

    @classmethod
    def from_config(cls, config):
        """Builds the rule that `get_config` described."""
        if "pattern" in config:
            config = {**config, "pattern": keras.saving.deserialize_keras_object(config["pattern"])}
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash(repr(self))

    def __repr__(self):
        values = {name: self.pattern if name == "pattern" else value for name, value in self.get_config().items()}
        arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"{type(self).__name__}({arguments})"

"""A table of config.json, read key by key: what is missing or unknown is refused by its name."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from enclave_worker.engine.errors import ModelConfigError


class ConfigReader:
    """One JSON object.

    Attributes:
        raw: its keys and values.
        where: how errors name it.
    """

    def __init__(self, raw: Mapping[str, Any], where: str = "config.json") -> None:
        """Read from `raw`."""
        self.raw = raw
        self.where = where

    def refuse(self, key: str, expected: str) -> ModelConfigError:
        """Return the error for a value that is not supported."""
        return ModelConfigError(
            f"{self.where} {key}: found {self.raw.get(key)!r}, expected {expected}"
        )

    def only(self, known: Collection[str], harmless: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse keys that are not known, and values that are not harmless.

        Silently ignoring one (a sliding window, a scaling of the residual stream) would load, run,
        and answer wrongly: the worst way to fail.
        """
        for key, value in self.raw.items():
            if key in harmless:
                if value not in harmless[key]:
                    raise ModelConfigError(
                        f"{self.where} {key}: found {value!r}, which is not supported; "
                        f"expected {harmless[key][0]!r} or no such key"
                    )
            elif key not in known:
                raise ModelConfigError(
                    f"{self.where}: found unknown key {key!r}, which might matter"
                )

    def count(self, key: str, default: int | None = None) -> int:
        """Return an integer of at least 1."""
        value = self.raw.get(key)
        value = default if value is None else value
        if type(value) is not int or value < 1:
            raise self.refuse(key, "an integer >= 1")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """Return a finite number above 0."""
        value: Any = self.raw.get(key)
        value = default if value is None else value
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.refuse(key, "a positive number")
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        value = self.raw.get(key)
        value = default if value is None else value
        if type(value) is not bool:
            raise self.refuse(key, "true or false")
        return value

    def word(self, key: str, *allowed: str) -> str:
        """Return one of the allowed words; the first where the key is absent."""
        value = self.raw.get(key)
        value = allowed[0] if value is None else value
        if not isinstance(value, str) or value not in allowed:
            raise self.refuse(key, " or ".join(map(repr, allowed)))
        return value

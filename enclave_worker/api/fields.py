"""Typed access to the members of a parsed JSON object, with OpenAI's reading of null as absent."""

from collections.abc import Iterable, Mapping
from typing import Any

from wire.excerpt import json_kind, json_value, shown

from .errors import ApiError, invalid

KEYWORD_MAX = 32  # characters of a keyword that a message repeats


def counted(value: Any) -> str:
    """What was found where an array belongs: its type, or how many items it has."""
    return f"an array of {len(value)} items" if isinstance(value, list) else json_kind(value)


class Fields:
    """Reads members one by one, then refuses whatever nobody asked for.

    A field that is silently dropped is a promise broken (a caller who sets `logprobs` must not get
    an answer without them), so `done` names the first member that was neither read nor listed.
    """

    def __init__(self, members: Any, where: str = "") -> None:
        """Take a parsed JSON value; anything but an object is refused.

        Args:
            members: the value, from wire.canonical.parse_strict.
            where: prefix of field names in messages, such as "messages[2].".
        """
        if not isinstance(members, Mapping):
            raise invalid(
                where.rstrip(".") or "body",
                f"found {json_kind(members)}, expected a JSON object",
                "invalid_type",
            )
        self._members = members
        self._where = where
        self._seen: set[str] = set()

    def name(self, key: str) -> str:
        """Return the full name of a field, for messages."""
        return self._where + key

    def raw(self, key: str) -> Any:
        """Return the member as parsed, None where absent or null."""
        self._seen.add(key)
        return self._members.get(key)

    def text(self, key: str, limit: int) -> str | None:
        """Return a string of at most `limit` characters, or None."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise invalid(self.name(key), f"found {json_kind(value)}, expected a string")
        if len(value) > limit:
            raise invalid(self.name(key), f"found {len(value)} characters, expected ≤ {limit}")
        return value

    def integer(self, key: str, low: int, high: int) -> int | None:
        """Return an integer in [low, high], or None; bool is not an integer here."""
        value = self.raw(key)
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            raise invalid(
                self.name(key),
                f"found {json_value(value)}, expected an integer from {low} to {high}",
            )
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        """Return a number in [low, high] as float, or None; NaN cannot be parsed to here."""
        value = self.raw(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not low <= value <= high:
            raise invalid(
                self.name(key),
                f"found {json_value(value)}, expected a number from {low:g} to {high:g}",
            )
        return float(value)

    def flag(self, key: str) -> bool:
        """Return a boolean, False where absent."""
        value = self.raw(key)
        if value is None:
            return False
        if type(value) is not bool:
            raise invalid(self.name(key), f"found {json_kind(value)}, expected true or false")
        return value

    def items(self, key: str, most: int) -> list[Any]:
        """Return an array of at most `most` items, empty where absent."""
        value = self.raw(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most:
            found = counted(value)
            raise invalid(self.name(key), f"found {found}, expected an array of at most {most}")
        return value

    def child(self, key: str) -> "Fields | None":
        """Return the members of an object, or None."""
        value = self.raw(key)
        return None if value is None else Fields(value, self.name(key) + ".")

    def one_of(self, key: str, allowed: Iterable[str]) -> str | None:
        """Return a string that is one of these, or None."""
        value = self.raw(key)
        known = tuple(allowed)
        if value is None or (isinstance(value, str) and value in known):
            return value
        found = shown(value, KEYWORD_MAX) if isinstance(value, str) else json_kind(value)
        raise invalid(self.name(key), f"found {found}, expected one of {', '.join(known)}")

    def only(self, key: str, *allowed: Any) -> None:
        """Accept the field when it is absent or says what happens anyway, else refuse it."""
        value = self.raw(key)
        if value is None or any(value == item and type(value) is type(item) for item in allowed):
            return
        known = ", ".join(repr(item) for item in allowed) or "nothing"
        raise invalid(
            self.name(key),
            f"found {json_value(value)}, this service supports only {known} here",
            "unsupported_value",
        )

    def ignore(self, keys: Iterable[str]) -> None:
        """Accept fields that change nothing about the answer."""
        self._seen.update(keys)

    def done(self) -> None:
        """Refuse the first member nobody read or listed."""
        unknown = sorted(set(self._members) - self._seen)
        if unknown:
            name = self.name(unknown[0])
            message = f"{name}: this service does not know the field"
            raise ApiError(400, "unknown_parameter", message, param=name)

"""Shapes of `evj1` objects: what a member must be, checked by name.

Small on purpose: no coercion, no defaults. A failed check raises `MalformedError` (code
`shape_invalid`) that names the member and what was expected, never the value found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wire.errors import MalformedError
from wire.ids import is_sha256_tag, unb64u

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[Any, str], None]

INT_MAX = 2**53 - 1  # evj1: what a reader with doubles still sees exactly


def text(most: int = 256) -> Check:
    """A string of 0 to `most` characters."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or len(value) > most:
            raise _expected(where, f"a string of at most {most} characters")

    return check


def one_of(*names: str) -> Check:
    """One of these strings."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in names:
            raise _expected(where, " or ".join(names))

    return check


def whole(least: int = 0, most: int = INT_MAX) -> Check:
    """An integer within bounds; `true` is not 1."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _expected(where, f"an integer from {least} to {most}")

    return check


def flag(value: Any, where: str) -> None:
    """true or false."""
    if not isinstance(value, bool):
        raise _expected(where, "true or false")


def raw(length: int) -> Check:
    """Base64url of exactly `length` bytes."""

    def check(value: Any, where: str) -> None:
        try:
            unb64u(value, length)
        except MalformedError as error:
            raise _expected(where, f"{length} bytes in base64url") from error

    return check


def digest(value: Any, where: str) -> None:
    """`sha256:<hex>`."""
    if not is_sha256_tag(value):
        raise _expected(where, "sha256:<64 hex digits>")


def optional(inner: Check) -> Check:
    """null, or what `inner` wants."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def listed(inner: Check, most: int) -> Check:
    """A list of at most `most` items."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) > most:
            raise _expected(where, f"a list of at most {most}")
        for at, item in enumerate(value):
            inner(item, f"{where}[{at}]")

    return check


def scalars(most: int) -> Check:
    """An object of at most `most` members, each a short string, an integer, a boolean or null."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict) or len(value) > most:
            raise _expected(where, f"an object of at most {most} members")
        for name, item in value.items():
            if item is not None and not isinstance(item, int):
                text()(item, f"{where}.{name}")

    return check


def shaped(members: Mapping[str, Check], *, closed: bool = True) -> Check:
    """An object with all of these members, and no other when `closed`."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _expected(where, "an object")
        missing = sorted(set(members) - set(value))
        if missing:
            raise _expected(f"{where}.{missing[0]}", "a value, found none")
        extra = sorted(set(value) - set(members))
        if closed and extra:
            raise _expected(where, f"no member {extra[0][:64]!r}")
        for name, inner in members.items():
            inner(value[name], f"{where}.{name}")

    return check


def _expected(where: str, what: str) -> MalformedError:
    return MalformedError(f"{where}: expected {what}", code="shape_invalid")

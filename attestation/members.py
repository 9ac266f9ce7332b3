"""Members of a JSON object under a closed schema: every key known, every type exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wire.errors import AnchorholdError, MalformedError
from wire.excerpt import cut
from wire.ids import is_sha256_tag, unb64u

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEXT_MAX: Final = 256  # names and ids; documents have their own limits
INT_MAX: Final = 2**53 - 1


class Members:
    """Strict access to the members of one object.

    Args:
        obj: the parsed JSON value.
        where: what the object is, for the error sentence.
        required: keys that must be present.
        optional: further keys that may be present. Anything else is refused: a key this version
            does not understand could be a demand it would silently ignore.
        error: class raised.

    Raises:
        error: `obj` is no object, misses a required key or holds an unknown one.
    """

    __slots__ = ("_error", "_obj", "_where")

    def __init__(
        self,
        obj: object,
        where: str,
        *,
        required: Sequence[str] = (),
        optional: Sequence[str] = (),
        error: type[AnchorholdError] = MalformedError,
    ) -> None:
        self._where = where
        self._error = error
        if not isinstance(obj, dict):
            raise error(f"{where}: found {_kind(obj)}, expected an object")
        self._obj: Mapping[str, Any] = obj
        known = (*required, *optional)
        for key in obj:
            if key not in known:
                shown = key[:40] if key and _printable(key[:40]) else "?"
                raise error(
                    f'{where}: found unknown key "{shown}", expected only {", ".join(known)}'
                )
        for key in required:
            if key not in obj:
                raise error(f'{where}: key "{key}" is missing, expected {", ".join(required)}')

    def __contains__(self, key: str) -> bool:
        return key in self._obj

    def fail(self, key: str, expected: str) -> AnchorholdError:
        """The error for a member whose value is not `expected`."""
        found = _found(self._obj.get(key))
        return self._error(f"{self._where}.{key}: found {found}, expected {expected}")

    def fail_item(self, key: str, item: object, expected: str) -> AnchorholdError:
        """The error for an array with an item that is not `expected`."""
        return self._error(f"{self._where}.{key}: found {_found(item)} in it, expected {expected}")

    def value(self, key: str) -> Any:
        """The member as parsed; None when absent."""
        return self._obj.get(key)

    def text(self, key: str, limit: int = TEXT_MAX) -> str:
        """A string of 1 to `limit` printable ASCII characters."""
        value = self._obj.get(key)
        if not isinstance(value, str) or not 1 <= len(value) <= limit or not _printable(value):
            raise self.fail(key, f"1 to {limit} printable ASCII characters")
        return value

    def integer(self, key: str, low: int = 0, high: int = INT_MAX) -> int:
        """An integer in low..high; booleans are not integers here."""
        value = self._obj.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"an integer from {low} to {high}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A boolean, or `default` when absent."""
        value = self._obj.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def data(self, key: str, n: int) -> bytes:
        """Exactly `n` bytes of canonical base64url."""
        try:
            return unb64u(self._obj.get(key), n)  # type: ignore[arg-type]  # it checks the type
        except MalformedError:
            raise self.fail(key, f"{n} bytes in base64url without padding") from None

    def blob(self, key: str, limit: int) -> bytes:
        """Up to `limit` bytes of canonical base64url."""
        value = self._obj.get(key)
        if isinstance(value, str) and len(value) <= limit * 4 // 3 + 4:
            try:
                data = unb64u(value)
            except MalformedError:
                data = None
            if data is not None and len(data) <= limit:
                return data
        raise self.fail(key, f"at most {limit} bytes in base64url without padding")

    def digest(self, key: str) -> str:
        """A `sha256:` tag."""
        value = self._obj.get(key)
        if not is_sha256_tag(value):
            raise self.fail(key, '"sha256:" and 64 lower-case hex digits')
        return str(value)

    def array(self, key: str, limit: int, low: int = 0) -> list[Any]:
        """An array of `low` to `limit` items; absent counts as empty."""
        value = self._obj.get(key, [])
        if not isinstance(value, list) or not low <= len(value) <= limit:
            raise self.fail(key, f"an array of {low} to {limit} items")
        return value

    def texts(self, key: str, limit: int, low: int = 0) -> tuple[str, ...]:
        """An array of distinct printable strings."""
        items = self.array(key, limit, low)
        for item in items:
            if not isinstance(item, str) or not 1 <= len(item) <= TEXT_MAX or not _printable(item):
                raise self.fail_item(key, item, "only printable ASCII strings")
        if len(set(items)) != len(items):
            repeated = next(item for item in items if items.count(item) > 1)
            raise self.fail_item(key, repeated, "each item once, not twice")
        return tuple(items)

    def digests(self, key: str, limit: int, low: int = 0) -> tuple[str, ...]:
        """An array of distinct `sha256:` tags."""
        items = self.texts(key, limit, low)
        for item in items:
            if not is_sha256_tag(item):
                raise self.fail_item(key, item, 'only "sha256:" tags with 64 lower-case hex digits')
        return items


def _printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _found(value: object) -> str:
    """A value as a message shows it: numbers and short texts themselves, arrays by length."""
    if isinstance(value, str):
        return f'"{cut(value)}"'
    if isinstance(value, list):
        return f"an array of {len(value)} items"
    return str(value).lower() if isinstance(value, int) else _kind(value)


def _kind(value: object) -> str:
    names: dict[type, str] = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        type(None): "nothing",
    }
    return names.get(type(value), "something else")

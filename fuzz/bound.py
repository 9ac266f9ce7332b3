"""One bound of a parser, and inputs that stand at it: one below, at, one above, ten times.

Mutated inputs stay near the size of their seeds, so a count or length that a parser refuses, or
should, is met by chance only. Each bound named `…_MAX` in the packages that read hostile bytes is
declared in `fuzz.bounds`, or there is said why no input reaches it.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuzz.seeds import Seed
from fuzz.target import LIMIT_MS, Target
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

PACKAGES: Final = ("formats", "verify", "collateral", "conformance")
ERRORS: Final = (MalformedError, AttestationError)
TIMES: Final = 10
_FOLDER: Final = Path(__file__).parents[1] / "attestation"


@dataclass(frozen=True, slots=True)
class Bound:
    """A count or a length that a parser accepts at most.

    Attributes:
        module: where it stands; attribute: its name there.
        read: what reads the input.
        make: inputs that have so many of it; the first is as honest as can be.
        exact: whether the first input of `make` is accepted at the bound and refused one above.
            False where something else of the format, or a slack of some bytes, refuses it before.
        errors: what `read` may raise.
        limit_ms: processor time of one input.
    """

    module: ModuleType
    attribute: str
    read: Callable[[Any], object]
    make: Callable[[int], Iterable[Any]]
    exact: bool = True
    errors: tuple[type[Exception], ...] = ERRORS
    limit_ms: int = LIMIT_MS

    @property
    def name(self) -> str:
        """As on the command line."""
        return f"bound {self.module.__name__.removeprefix('attestation.')}.{self.attribute}"

    @property
    def value(self) -> int:
        """The bound."""
        found: int = getattr(self.module, self.attribute)
        return found

    @property
    def counts(self) -> tuple[int, ...]:
        """How many, or how long, its inputs are."""
        return (self.value - 1, self.value, self.value + 1, TIMES * self.value)

    def accepts(self, count: int) -> bool:
        """Whether the most honest input of this count is read."""
        first = next(iter(self.make(count)))
        try:
            self.read(first)
        except self.errors:
            return False
        return True

    def target(self) -> Target:
        """All its inputs, to be run as they are: `fuzz.attack.attack` with a count of 0."""

        def seeds() -> list[Seed]:
            return [_seed(made) for count in self.counts for made in self.make(count)]

        def run(roles: Mapping[str, bytes], context: Any) -> bool:
            self.read(roles[""] if context is None else context)
            return True

        return Target(self.name, seeds, run, self.errors, limit_ms=self.limit_ms)


def _seed(made: Any) -> Seed:
    return Seed({"": made}) if isinstance(made, bytes) else Seed({}, made)


def declared() -> frozenset[str]:
    """Every name in `…_MAX` that a module of `PACKAGES` gives a value to."""
    return frozenset(
        f"{package}.{path.stem}.{name}"
        for package in PACKAGES
        for path in (_FOLDER / package).glob("*.py")
        for name in _assigned(path)
        if name.endswith("_MAX")
    )


def _assigned(path: Path) -> list[str]:
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        found += [target.id for target in targets if isinstance(target, ast.Name)]
    return found


# -- inputs of a length ---------------------------------------------------------------------------


def padded(
    honest: Callable[[], bytes], pad: bytes = b" ", *more: Callable[[int], bytes]
) -> Callable[[int], Iterable[bytes]]:
    """An honest input filled up, or cut, to a length; then shapes that cost a reader most."""

    def make(count: int) -> Iterable[bytes]:
        whole = honest()
        yield whole.ljust(count, pad)[:count]
        yield (whole * (count // len(whole) + 1))[:count]
        yield bytes(count)
        yield whole[:1] * count
        yield from (one(count) for one in more)

    return make


def text(obj: object) -> bytes:
    """JSON, as short as it can be."""
    return json.dumps(obj, separators=(",", ":")).encode()


def json_shapes() -> tuple[Callable[[int], bytes], ...]:
    """JSON of a length that costs the most to read: many values, keys, escapes, levels, digits."""
    return (
        lambda n: b"[" + b"0," * ((n - 3) // 2) + b"0]",
        lambda n: b"[" + b'{"":{}},' * ((n - 3) // 8) + b"0]",
        lambda n: text({f"{k:06x}": 0 for k in range(max(1, n // 11))})[:n],
        lambda n: b'"' + b"\\u00e9" * ((n - 2) // 6) + b'"',
        lambda n: b"[" * (n // 2) + b"]" * (n // 2),
        lambda n: b"9" * n,
        lambda n: b"[" + b"1e9," * ((n - 5) // 4) + b"1e9]",
    )


def shaped(honest: Callable[[], bytes]) -> Callable[[int], Iterable[bytes]]:
    """A JSON document of a length, with these shapes."""
    return padded(honest, b" ", *json_shapes())


def der(tag: int, content: bytes) -> bytes:
    """A DER element of any length."""
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8 or 1, "big")
    head = bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets
    return bytes([tag]) + head + content


def content(element: bytes) -> bytes:
    """What stands in a DER element."""
    start, end = _ends(element, 0)
    return element[start:end]


def elements(element: bytes) -> list[bytes]:
    """The DER elements that stand in one."""
    at, end = _ends(element, 0)
    found = []
    while at < end:
        _, after = _ends(element, at)
        found.append(element[at:after])
        at = after
    return found


def _ends(raw: bytes, at: int) -> tuple[int, int]:
    size, start = raw[at + 1], at + 2
    if size & 0x80:
        octets = size & 0x7F
        size, start = int.from_bytes(raw[start : start + octets], "big"), start + octets
    return start, start + size

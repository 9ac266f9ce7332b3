"""The index: which samples there are and what is expected of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from wire.errors import MalformedError
from wire.excerpt import json_kind, shown
from wire.limits import TIME_MAX

from .document import Repeated, check, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA: Final = "attestation-vectors/1"
INDEX_MAX: Final = 64 * 1024 * 1024  # claims of long event logs make a long index
_VERDICTS: Final = ("accept", "reject", None)


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample.

    Attributes:
        id, kind: its name and evidence kind.
        files: role to path, relative to the index.
        digests: path to SHA-256 in hex, where the index gives them.
        at: Unix seconds the verdict holds for; None when time plays no part.
        inputs: what the relying party brings.
        authentic: expected; None for a format without that notion.
        strict: "accept", "reject" or None.
        reasons: codes, at least one of which must be reported where it is rejected.
        claims: values that must be returned.
        malformed: what in the index keeps it from being run, as a sentence; "" for nothing.
    """

    id: str
    kind: str
    files: Mapping[str, str]
    digests: Mapping[str, str]
    at: int | None
    inputs: Mapping[str, Any]
    authentic: bool | None
    strict: str | None
    reasons: tuple[str, ...]
    claims: Mapping[str, Any]
    malformed: str = ""

    @property
    def fault(self) -> str:
        """Why nothing can be said of it at its time, as a sentence; "" if something can."""
        if self.malformed:
            return self.malformed
        if self.at is None or 0 <= self.at <= TIME_MAX:
            return ""
        return f"verify_at: found {self.at} s after 1970, expected 0 to {TIME_MAX} (year 9999)"


@dataclass(frozen=True, slots=True)
class Index:
    """A parsed index.

    Attributes:
        strict_policy: area ("intel", "amd", …) to the sentences of the strict policy.
        roots: SHA-256 fingerprints (32 bytes) of the anchors the index lists. Only kinds without a
            vendor root of ours (a TPM's maker) take their anchors from here.
        samples: in file order.
        notes: sentences on what is not used of it.
    """

    strict_policy: Mapping[str, tuple[str, ...]]
    roots: frozenset[bytes]
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


def parse_index(raw: bytes) -> Index:
    """The index in `raw`.

    Raises:
        MalformedError: not JSON of this schema; the sentence says what was found and expected.
            What is wrong with one sample is that sample's, and with one root, a note.
    """
    doc = read_document(raw, INDEX_MAX)
    if not isinstance(doc, dict):
        raise MalformedError(f"index: found {json_kind(doc)}, expected an object")
    if isinstance(doc, Repeated):
        raise MalformedError("index: an object repeats a key")
    if doc.get("schema") != SCHEMA:
        raise MalformedError(
            f'index: found schema {_found(doc.get("schema"))}, expected "{SCHEMA}"'
        )
    vectors = doc.get("vectors")
    if not isinstance(vectors, list) or not vectors:
        raise MalformedError('index: expected a non-empty array "vectors"')
    samples = tuple(_sample(item, number) for number, item in enumerate(vectors))
    if len({sample.id for sample in samples}) != len(samples):
        raise MalformedError("index: found an id twice, expected distinct ids")
    roots, notes = _roots(_or_none(doc, "roots", {}))
    return Index(_policy(_or_none(doc, "strict_policy", {})), roots, samples, notes)


def _policy(obj: object) -> Mapping[str, tuple[str, ...]]:
    check(obj, "index.strict_policy")
    areas = _object(obj, "index.strict_policy")
    for name, sentences in areas.items():
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise MalformedError(f"index.strict_policy.{name}: expected an array of sentences")
    return MappingProxyType({name: tuple(sentences) for name, sentences in areas.items()})


def _roots(obj: object) -> tuple[frozenset[bytes], tuple[str, ...]]:
    """The anchors, and a note on each that is none: nothing rests on it."""
    if isinstance(obj, Repeated):
        raise MalformedError("index.roots: an object repeats a key")
    found, notes = set(), []
    for name, entry in _object(obj, "index.roots").items():
        where = f"index.roots.{shown(name)}"
        try:
            if isinstance(entry, Repeated):
                raise MalformedError(f"{where}: an object repeats a key")
            text = _object(entry, where).get("sha256_der")
            found.add(_hex(text, f"{where}.sha256_der", 32))
        except MalformedError as error:
            notes.append(f"{error.message}; no anchor")
    return frozenset(found), tuple(notes)


def _sample(item: object, number: int) -> Sample:
    where = f"index.vectors[{number}]"
    try:
        return _whole(item, where)
    except MalformedError as error:
        given = item if isinstance(item, dict) else {}
        name, kind = (_text(given.get(key)) for key in ("id", "kind"))
        name = name or where
        return Sample(name, kind, {}, {}, None, {}, None, None, (), {}, error.message)


def _text(value: object) -> str:
    """A text that can be shown; "" for anything else."""
    try:
        check(value, "")
    except MalformedError:
        return ""
    return value if isinstance(value, str) else ""


def _whole(item: object, where: str) -> Sample:
    obj = _object(item, where)
    if isinstance(obj, Repeated):
        raise MalformedError(f"{where}: an object repeats a key")
    name, kind = _text(obj.get("id")), _text(obj.get("kind"))
    if not name or not isinstance(obj.get("kind"), str):
        raise MalformedError(f'{where}: expected texts "id" and "kind"')
    where = f"sample {name}"
    for key in ("kind", "files", "sha256", "verify_at", "inputs"):
        check(obj.get(key), f"{where}.{key}")
    expected = _object(obj.get("expected"), f"{where}.expected")
    if isinstance(expected, Repeated):
        raise MalformedError(f"{where}.expected: an object repeats a key")
    for key in ("authentic", "strict"):
        if key not in expected:
            raise MalformedError(f'{where}.expected: key "{key}" is missing')
    for key in ("authentic", "strict", "reasons", "claims"):
        check(expected.get(key), f"{where}.expected.{key}")
    flag = expected["authentic"]  # 1 and 0 are neither true nor false
    if not (flag is None or isinstance(flag, bool)) or expected["strict"] not in _VERDICTS:
        raise MalformedError(
            f"{where}.expected: found authentic {_found(expected['authentic'])} and strict "
            f'{_found(expected["strict"])}, expected true|false|null and "accept"|"reject"|null'
        )
    return Sample(
        id=name,
        kind=kind,
        files=_texts(obj.get("files"), f"{where}.files"),
        digests=_texts(_or_none(obj, "sha256", {}), f"{where}.sha256"),
        at=_time(obj.get("verify_at"), f"{where}.verify_at"),
        inputs=_object(_or_none(obj, "inputs", {}), f"{where}.inputs"),
        authentic=expected["authentic"],
        strict=expected["strict"],
        reasons=_codes(_or_none(expected, "reasons", []), f"{where}.expected.reasons"),
        claims=_object(_or_none(expected, "claims", {}), f"{where}.expected.claims"),
    )


def _or_none(obj: Mapping[str, Any], key: str, empty: object) -> object:
    """A member that may be absent or null."""
    value = obj.get(key)
    return empty if value is None else value


def _time(value: object, where: str) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return int(moment.timestamp())
    except (OverflowError, ValueError):
        pass
    raise MalformedError(f'{where}: found {_found(value)}, expected "YYYY-MM-DDThh:mm:ssZ" or null')


def _codes(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(code, str) for code in value):
        raise MalformedError(f"{where}: expected an array of reason codes")
    return tuple(value)


def _texts(value: object, where: str) -> Mapping[str, str]:
    texts = _object(value, where)
    if not all(isinstance(text, str) for text in texts.values()):
        raise MalformedError(f"{where}: expected texts")
    return texts


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError(f"{where}: found {json_kind(value)}, expected an object")
    return value


def _hex(value: object, where: str, size: int) -> bytes:
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if len(data) != size:
        raise MalformedError(f"{where}: found {_found(value)}, expected {size} bytes in hex")
    return data


def _found(value: object) -> str:
    return shown(value) if isinstance(value, str) else json_kind(value)

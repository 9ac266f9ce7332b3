"""Runs published test vectors through this implementation, every value of every one.

Schema `anchorhold-wire-vectors/1`: `vectors` fixes the key schedule and both streams of an
exchange; each entry of `reject` replaces the frames of one stream and must be refused. A value
that is missing, or one this runner does not know, fails its case: a skipped check is never a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import AnchorholdError, MalformedError
from .excerpt import json_kind, shown
from .framing import FINAL, FrameOpener, FrameSealer
from .records import decode, encode
from .schedule import RequestKeys, ResponseKeys, r_kid, transcript_hash, wrap_info

SCHEMA: Final = "anchorhold-wire-vectors/1"
_STREAMS: Final = ("req", "resp")
_EXPECTED: Final = frozenset(
    {
        "th", "r_kid", "wrap_info", "wrap_plaintext", "prk", "commit", "k_req", "iv_req",
        "req_frames", "prk_r", "k_resp", "iv_resp", "resp_frames", "salt_q", "salt_r",
    }
)  # fmt: skip
_OPTIONAL: Final = frozenset({"rs"})


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case: its id, whether it passed, and otherwise what differed (names, never secrets)."""

    id: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Exchange:
    """What one vector fixes, computed from its inputs."""

    values: dict[str, bytes]
    keys: dict[str, tuple[bytes, bytes]]


def run_vectors(doc: object) -> list[CaseResult]:
    """Results in file order: every vector, then every refusal.

    Args:
        doc: a parsed vector file.

    Raises:
        MalformedError: not a file of this schema.
    """
    if not isinstance(doc, Mapping) or doc.get("schema") != SCHEMA:
        found = json_kind(doc)
        if isinstance(doc, Mapping):
            schema = doc.get("schema")
            text = shown(schema) if isinstance(schema, str) else json_kind(schema)
            found = f"schema {text}" if "schema" in doc else "an object without a schema"
        raise MalformedError(f"vectors: found {found}, expected schema {SCHEMA}")
    vectors, rejects = doc.get("vectors"), doc.get("reject", [])
    if not isinstance(vectors, list) or not isinstance(rejects, list):
        raise MalformedError(
            f"vectors: found {json_kind(vectors)} under `vectors` and {json_kind(rejects)} under "
            "`reject`, expected two arrays"
        )
    exchanges: dict[str, _Exchange] = {}
    return [
        *_cases(vectors, lambda entry: _run_vector(entry, exchanges)),
        *_cases(rejects, lambda entry: _run_reject(entry, exchanges)),
    ]


def _cases(entries: list[Any], run: Callable[[Mapping[str, Any]], str]) -> Iterator[CaseResult]:
    """Every entry of one list; an id names one entry, or a refusal could be run on another."""
    seen: set[str] = set()
    for entry in entries:
        name = entry.get("id") if isinstance(entry, Mapping) else None
        if not isinstance(name, str):
            yield CaseResult("?", False, "the entry has no id")
        elif name in seen:
            yield CaseResult(name, False, "the id is used twice")
        else:
            seen.add(name)
            yield _case(name, entry, run)


def _case(
    name: str, entry: Mapping[str, Any], run: Callable[[Mapping[str, Any]], str]
) -> CaseResult:
    """One case; an entry that cannot even be read is a failed case, not the end of the run."""
    try:
        detail = run(entry)
    except (KeyError, TypeError, ValueError, AnchorholdError) as cause:
        detail = f"cannot be run: {type(cause).__name__}: {cause}"
    return CaseResult(name, not detail, detail)


def _run_vector(entry: Mapping[str, Any], exchanges: dict[str, _Exchange]) -> str:
    expect = entry["expect"]
    if not isinstance(expect, Mapping):
        return f"expect: an object expected, found {type(expect).__name__}"
    exchange = _compute(entry)
    exchanges[entry["id"]] = exchange
    wrong = [f"{name} is missing" for name in sorted(_EXPECTED - expect.keys())]
    wrong += [f"{name} is unknown" for name in sorted(expect.keys() - _EXPECTED - _OPTIONAL)]
    for name, value in exchange.values.items():
        if name in expect and bytes.fromhex(expect[name]) != value:
            wrong.append(f"{name} differs")
    for stream in _STREAMS:
        if f"{stream}_frames" in expect:
            wrong += _check_stream(stream, exchange.keys[stream], expect[f"{stream}_frames"])
    return "; ".join(wrong)


def _compute(entry: Mapping[str, Any]) -> _Exchange:
    hdr, s, big_r, kid, rhdr = (bytes.fromhex(entry[k]) for k in ("hdr", "s", "R", "kid", "rhdr"))
    th = transcript_hash(hdr)
    mine = r_kid(big_r, kid)
    req = RequestKeys.derive(th, s)
    resp = ResponseKeys.derive(th, kid, rhdr, req.rs, mine)
    values = {
        "th": th,
        "r_kid": mine,
        "wrap_info": wrap_info(kid, th),
        "wrap_plaintext": s + mine,
        "prk": req.prk,
        "commit": req.commit,
        "k_req": req.k,
        "iv_req": req.iv,
        "rs": req.rs,
        "salt_q": req.salt_q,
        "prk_r": resp.prk_r,
        "k_resp": resp.k,
        "iv_resp": resp.iv,
        "salt_r": resp.salt_r,
    }
    return _Exchange(values, {"req": (req.k, req.iv), "resp": (resp.k, resp.iv)})


def _check_stream(name: str, keys: tuple[bytes, bytes], frames: list[Any]) -> list[str]:
    """Seal every plaintext, open every frame, read and write every record again."""
    wrong: list[str] = []
    sealer = FrameSealer(*keys)
    plaintexts = [bytes.fromhex(frame["plaintext"]) for frame in frames]
    wire = [bytes.fromhex(frame["bytes"]) for frame in frames]
    for i, (frame, pt) in enumerate(zip(frames, plaintexts, strict=True)):
        if sealer.seal(pt, final=frame["flags"] == FINAL) != wire[i]:
            wrong.append(f"{name} frame {i} seals differently")
        if encode(decode(pt), len(pt)) != pt:
            wrong.append(f"{name} frame {i} records differ")
    stream = b"".join(wire)
    for cut in (len(stream), 1):
        try:
            if _open(keys, stream, cut) != plaintexts:
                wrong.append(f"{name} frames open differently")
        except AnchorholdError as cause:
            wrong.append(f"{name} frames do not open: {cause.code}")
    return wrong


def _run_reject(entry: Mapping[str, Any], exchanges: dict[str, _Exchange]) -> str:
    stream = entry.get("stream", "req")
    if stream not in _STREAMS:
        return f"unknown stream {stream!r}"
    if entry["of"] not in exchanges:
        return f"of names no vector: {entry['of']!r}"
    data = bytes.fromhex(entry["bytes"])
    for cut in (len(data), 1):
        try:
            for pt in _open(exchanges[entry["of"]].keys[stream], data, cut):
                decode(pt)
        except AnchorholdError:
            continue
        return "was accepted, must be refused"
    return ""


def _open(keys: tuple[bytes, bytes], stream: bytes, cut: int) -> list[bytes]:
    """Plaintexts of a stream that arrives `cut` bytes at a time."""
    opener = FrameOpener(*keys)
    found: list[bytes] = []
    for at in range(0, len(stream), max(1, cut)):
        found += opener.feed(stream[at : at + max(1, cut)])
    opener.finish()
    return found

"""Salted commitments to what was said, one per segment, so one turn can be shown without the rest.

    s_i = HKDF-Expand(salt, "seg" ‖ u32 i, 32)
    c_i = HMAC-SHA256(s_i, u8 role ‖ u64 len ‖ bytes)
    c   = RFC 6962 root over c_0 … c_{n-1}

`salt` is `salt_q` (request) or `salt_r` (response) of the exchange: secret from the gateway, so it
cannot test guesses against `c`, and derived by both ends, so it is never sent. Opening segment i
means telling (s_i, role, bytes, path): nothing follows from it about any other segment.
Refusals are `ReceiptError` with code `opening_invalid`.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from wire.canonical import parse_strict
from wire.errors import MalformedError, ReceiptError
from wire.limits import BODY_DEPTH_MAX, BODY_MAX

from .merkle import MerkleTree, leaf_hash, root_of, verify_inclusion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Segment = tuple[int, bytes]

SEGMENTS_MAX = 4096  # messages of one request; also bounds the statement's `n`
SECRET_LEN = 32
STRUCTURED = 0x80  # flag on the role: the bytes are JSON of the whole item, not its text


class Role(IntEnum):
    """First byte of a segment. 0 is a bare prompt; unknown chat roles are committed as `OTHER`."""

    PROMPT = 0
    SYSTEM = 1
    DEVELOPER = 2
    USER = 3
    ASSISTANT = 4
    TOOL = 5
    OUTPUT = 6
    OTHER = 7


_CHAT_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.DEVELOPER,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}


@dataclass(frozen=True, slots=True)
class Opening:
    """What is told to show segment `index` of `total`: its secret, role, bytes and tree path."""

    index: int
    total: int
    secret: bytes
    role: int
    data: bytes
    proof: tuple[bytes, ...]


def segment_secret(salt: bytes, index: int) -> bytes:
    """s_i: 32 bytes that open segment `index` and no other. One HKDF-Expand-SHA256 block."""
    return hmac.digest(salt, b"seg" + index.to_bytes(4, "big") + b"\x01", "sha256")


def segment_commitment(secret: bytes, role: int, data: bytes) -> bytes:
    """c_i under the segment's secret."""
    framed = bytes([role]) + len(data).to_bytes(8, "big") + data
    return hmac.digest(secret, framed, "sha256")


def commit_segments(salt: bytes, segments: Sequence[Segment]) -> bytes:
    """Root `c` over `(role, bytes)` segments in order; the empty list has the empty tree's root."""
    return root_of(_commitments(salt, segments))


def open_segment(salt: bytes, segments: Sequence[Segment], index: int) -> Opening:
    """Make the opening of one segment; only a holder of `salt` (client or worker) can."""
    tree = MerkleTree(leaf_hash(item) for item in _commitments(salt, segments))
    role, data = segments[index]
    proof = tree.inclusion(index, tree.size)
    return Opening(index, tree.size, segment_secret(salt, index), role, data, proof)


def verify_opening(opening: Opening, root: bytes, total: int) -> tuple[int, bytes]:
    """Check an opening against a statement's `c` and `n`; returns (role, bytes)."""
    if opening.total != total or len(opening.secret) != SECRET_LEN or not 0 <= opening.role < 256:
        raise _invalid(f"opening of a commitment to {total} segments expected")
    committed = segment_commitment(opening.secret, opening.role, opening.data)
    try:
        verify_inclusion(leaf_hash(committed), opening.index, total, opening.proof, root)
    except MalformedError as error:
        raise _invalid("segment is not what was committed to") from error
    return opening.role, opening.data


@dataclass(frozen=True, slots=True)
class Said:
    """One choice of an answer: its text, and its tool calls as (name, arguments in JSON)."""

    text: str
    calls: tuple[tuple[str, str], ...] = ()


def request_segments(body: Mapping[str, Any]) -> list[Segment]:
    """Segments of a request body of any shape, the same at client and worker.

    What stands before the conversation comes first, each as one segment: `tools` (JSON),
    `instructions` or `system` (text, or JSON where it is blocks). Then `messages` or `input`, one
    segment an item, or `prompt`, one a prompt.

    A message of exactly `role` and a text `content` commits to the text's UTF-8 bytes. Any other
    (content parts, tool calls, a name) commits to the JSON of the whole message, keys sorted, no
    spaces, with `STRUCTURED` set on its role: never the same bytes. A body with none of these
    members has no segments.
    """
    found: list[Segment] = []
    if body.get("tools"):
        found.append((Role.SYSTEM | STRUCTURED, _json(body["tools"])))
    before = (body.get(name) for name in ("instructions", "system"))
    found += [_text_segment(Role.SYSTEM, value) for value in before if value]
    messages = body.get("messages")
    if isinstance(messages, list):
        return found + [_message_segment(message) for message in messages]
    for name, role in (("prompt", Role.PROMPT), ("input", Role.USER)):
        value = body.get(name)
        if isinstance(value, str):
            return [*found, (role, value.encode())]
        if isinstance(value, list) and name == "prompt":
            return found + [_text_segment(role, item) for item in value]
        if isinstance(value, list) and value and type(value[0]) is int:  # one text's token ids
            return [*found, _text_segment(role, value)]
        if isinstance(value, list):
            return found + [_item_segment(item) for item in value]
    return found


def response_segments(choices: Sequence[str | Said]) -> list[Segment]:
    """Segments of an answer: each choice in order, its logical text and not its stream framing.

    A choice with tool calls commits to JSON of text and calls, without the calls' random ids.
    """
    return [_choice_segment(choice) for choice in choices]


def _choice_segment(choice: str | Said) -> Segment:
    if isinstance(choice, str):
        return Role.OUTPUT, choice.encode()
    if not choice.calls:
        return Role.OUTPUT, choice.text.encode()
    calls = [{"name": name, "arguments": _arguments(text)} for name, text in choice.calls]
    return Role.OUTPUT | STRUCTURED, _json({"content": choice.text, "tool_calls": calls})


def _arguments(text: str) -> object:
    """The value the arguments spell, for its spelling differs between shapes; cut ones as text."""
    try:
        return parse_strict(text.encode(), max_depth=BODY_DEPTH_MAX, max_bytes=BODY_MAX)
    except MalformedError:
        return text


def _text_segment(role: Role, value: object) -> Segment:
    return (role, value.encode()) if isinstance(value, str) else (role | STRUCTURED, _json(value))


def _item_segment(item: object) -> Segment:
    """An item of `input`: a message, a text or token ids to embed, a call or its output."""
    if isinstance(item, str):
        return Role.USER, item.encode()
    return _message_segment(item)


def _message_segment(message: object) -> Segment:
    if not isinstance(message, dict):
        return Role.OTHER | STRUCTURED, _json(message)
    name = message.get("role")
    role = _CHAT_ROLES.get(name, Role.OTHER) if isinstance(name, str) else Role.OTHER
    content = message.get("content")
    # an unknown role's name is not in the role byte, so such a message is committed to whole
    if role is not Role.OTHER and isinstance(content, str) and set(message) == {"role", "content"}:
        return role, content.encode()
    return role | STRUCTURED, _json(message)


def _json(value: object) -> bytes:
    # not evj1: request bodies hold floats, which both ends parsed with the same parser
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _commitments(salt: bytes, segments: Sequence[Segment]) -> list[bytes]:
    if len(segments) > SEGMENTS_MAX:
        raise _invalid(f"at most {SEGMENTS_MAX} segments expected, found {len(segments)}")
    return [
        segment_commitment(segment_secret(salt, index), role, data)
        for index, (role, data) in enumerate(segments)
    ]


def _invalid(message: str) -> ReceiptError:
    return ReceiptError(message, code="opening_invalid")

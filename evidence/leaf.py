"""Log leaves `EVL1`: one event each, bound by a hiding commitment.

    leaf = "EVL1" ‖ alg u8 ‖ kid[16] ‖ C[32] ‖ body
    C    = HMAC-SHA256(blind, "evl1 commit\\0" ‖ event)          blind: 32 random bytes

alg 0 is a public event: body = blind ‖ event ‖ 0x80 ‖ zeros to a multiple of 256 bytes, kid zero.
alg 1 (body sealed to a tenant key) is reserved: such a leaf can be carried, hashed, and checked
against a disclosed (event, blind), but not read here. `C` makes a sealed leaf mean one event only:
AES-GCM alone would let one ciphertext open to two stories under two keys.
Refusals are `ReceiptError` with code `leaf_invalid`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from wire.errors import ReceiptError

MAGIC = b"EVL1"
ALG_PUBLIC = 0
ALG_SEALED = 1
BLIND_LEN = 32
KID_LEN = 16
COMMIT_LEN = 32
HEAD_LEN = len(MAGIC) + 1 + KID_LEN + COMMIT_LEN  # 53
STEP = 256  # sizes in the log come in steps, so a length says little about an event
EVENT_MAX = 16 * 1024
LEAF_MAX = 20 * 1024  # well under the 65,535 bytes a tiled entry bundle can hold
_LABEL = b"evl1 commit\0"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A parsed leaf; nothing is checked but its shape."""

    alg: int
    kid: bytes
    commitment: bytes
    body: bytes


def commit_event(event: bytes, blind: bytes) -> bytes:
    """C = HMAC-SHA256(blind, "evl1 commit\\0" ‖ event)."""
    if len(blind) != BLIND_LEN:
        msg = f"blind of {BLIND_LEN} bytes expected, found {len(blind)}"
        raise ValueError(msg)
    return hmac.digest(blind, _LABEL + event, "sha256")


def public_leaf(event: bytes, blind: bytes) -> bytes:
    """The one public leaf (alg 0) for these event bytes and this blind."""
    if len(event) > EVENT_MAX:
        msg = f"event of at most {EVENT_MAX} bytes expected, found {len(event)}"
        raise ValueError(msg)
    body = blind + event + b"\x80"
    body += bytes(-len(body) % STEP)
    return MAGIC + bytes([ALG_PUBLIC]) + bytes(KID_LEN) + commit_event(event, blind) + body


def parse_leaf(leaf: bytes) -> Leaf:
    """Split a leaf into its fields."""
    if not HEAD_LEN < len(leaf) <= LEAF_MAX:
        raise _invalid(f"leaf of {HEAD_LEN} to {LEAF_MAX} bytes expected, found {len(leaf)}")
    if leaf[: len(MAGIC)] != MAGIC:
        raise _invalid("leaf starting with EVL1 expected")
    alg = leaf[4]
    if alg not in (ALG_PUBLIC, ALG_SEALED):
        raise _invalid(f"leaf algorithm 0 or 1 expected, found {alg}")
    return Leaf(alg, leaf[5:21], leaf[21:HEAD_LEN], leaf[HEAD_LEN:])


def open_leaf(leaf: bytes, event: bytes, blind: bytes) -> None:
    """Check that `leaf` holds exactly this event.

    Steps: 1 shape. 2 the commitment opens to (event, blind). 3 a public leaf is the one encoding of
    them: its clear body and padding cannot carry anything else.
    """
    # 1
    parsed = parse_leaf(leaf)
    if len(blind) != BLIND_LEN or len(event) > EVENT_MAX:
        raise _invalid(f"blind of {BLIND_LEN} bytes and event of at most {EVENT_MAX} expected")
    # 2
    if not hmac.compare_digest(parsed.commitment, commit_event(event, blind)):
        raise _invalid("leaf commitment does not open to this event")
    # 3
    if parsed.alg == ALG_PUBLIC and leaf != public_leaf(event, blind):
        raise _invalid("public leaf body differs from the event it commits to")


def read_public_leaf(leaf: bytes) -> tuple[bytes, bytes]:
    """Return (event, blind) of a public leaf, after checking its commitment."""
    parsed = parse_leaf(leaf)
    if parsed.alg != ALG_PUBLIC:
        raise _invalid("public leaf (algorithm 0) expected")
    blind, rest = parsed.body[:BLIND_LEN], parsed.body[BLIND_LEN:].rstrip(b"\0")
    if not rest.endswith(b"\x80"):
        raise _invalid("0x80 after the event expected")
    event = rest[:-1]
    open_leaf(leaf, event, blind)
    return event, blind


def _invalid(message: str) -> ReceiptError:
    return ReceiptError(message, code="leaf_invalid")

"""One piece of collateral as it is kept: what the vendor sent, when, and until when it counts.

An entry's end is the earlier of what the signed content says and a greatest age: a vendor's month
of validity is no reason not to ask for a month, because revocations come in between. An imported
bundle has its own, longer ages: whoever carries one by hand decided how old it may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from attestation.members import INT_MAX, Members
from wire.canonical import encode, parse_evj1
from wire.errors import MalformedError
from wire.ids import b64u, sha256_tag
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.collateral_key import CollateralKey

HOUR_S: Final = 3600
DAY_S: Final = 86_400
KIB: Final = 1024
MIB: Final = 1024 * 1024

CHAIN_MAX: Final = 64 * KIB  # an issuer chain in a header is two certificates, under 4 KiB


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a kind of collateral may be.

    Attributes:
        size: bytes of the body; several times what vendors send.
        age_s: seconds an entry fetched from the service counts at most.
        offline_s: the same for one that came in a bundle.
    """

    size: int
    age_s: int
    offline_s: int


BOUNDS: Final[Mapping[str, Bounds]] = MappingProxyType(
    {
        "tcb": Bounds(256 * KIB, DAY_S, 30 * DAY_S),
        "qe": Bounds(64 * KIB, DAY_S, 30 * DAY_S),
        "pck-crl": Bounds(MIB, DAY_S, 30 * DAY_S),
        "root-crl": Bounds(256 * KIB, DAY_S, 30 * DAY_S),
        # One chip at one firmware level: the certificate never changes.
        "vcek": Bounds(16 * KIB, 30 * DAY_S, 365 * DAY_S),
        "chain": Bounds(64 * KIB, 30 * DAY_S, 365 * DAY_S),
        "crl": Bounds(MIB, DAY_S, 30 * DAY_S),
        "rim": Bounds(MIB, 7 * DAY_S, 90 * DAY_S),
        # Answers about revocation, and keys that a leak would have replaced, are asked for often.
        "ocsp": Bounds(64 * KIB, HOUR_S, 7 * DAY_S),
        "jwks": Bounds(512 * KIB, HOUR_S, 7 * DAY_S),
    }
)
# Base64 and the other members around the largest body.
RECORD_MAX: Final = max(bounds.size for bounds in BOUNDS.values()) * 3 // 2 + 2 * CHAIN_MAX

_MEMBERS: Final = ("v", "key", "body", "chain", "fetched_at", "expires", "sequence", "digest")


@dataclass(frozen=True, slots=True)
class Piece:
    """What a service sent, without the packing of its protocol; nothing about it is checked.

    Attributes:
        body: the signed statement, certificate, CRL or manifest.
        chain: certificates of its issuers where the service sends them beside it, PEM; or "".
    """

    body: bytes
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check of a piece found in it.

    Attributes:
        until: Unix second at which the vendor's own statement ends, or None where it names none.
        sequence: a number or date that never falls in later statements under the same key, taken
            from content whose signature was verified, or that is no later than now; or None.
        passing: it answers the question and is of no use beyond it; see `Entry`.
    """

    until: int | None = None
    sequence: int | None = None
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A piece that passed the check of its source.

    Attributes:
        key: what it is; a piece that says it is something else never becomes an entry.
        piece: the bytes.
        fetched_at: Unix second of the answer.
        expires: Unix second from which it no longer counts.
        sequence: see `Checked`.
        passing: it is kept in the place of an earlier one alone: whoever makes up names would else
            have an entry kept for each. Not part of the file.
    """

    key: CollateralKey
    piece: Piece
    fetched_at: int
    expires: int
    sequence: int | None = None
    passing: bool = False


def make_entry(
    key: CollateralKey, piece: Piece, found: Checked, fetched_at: int, *, offline: bool = False
) -> Entry:
    """The entry of a checked piece, its end capped by age."""
    bounds = BOUNDS[key.kind]
    end = fetched_at + (bounds.offline_s if offline else bounds.age_s)
    if found.until is not None:
        end = min(end, found.until)
    return Entry(key, piece, fetched_at, end, found.sequence, found.passing)


def check_size(key: CollateralKey, piece: Piece) -> None:
    """Whether a piece has a size that its kind may have.

    Raises:
        MalformedError: empty or too large.
    """
    limit = BOUNDS[key.kind].size
    if not 0 < len(piece.body) <= limit:
        raise MalformedError(
            f"collateral {key.kind}: found {len(piece.body)} bytes, expected 1 to {limit}"
        )
    if len(piece.chain) > CHAIN_MAX:
        raise MalformedError(
            f"collateral {key.kind}: found an issuer chain of {len(piece.chain)} characters, "
            f"expected at most {CHAIN_MAX}"
        )


def encode_entry(entry: Entry) -> bytes:
    """The one file form of an entry, with a digest over all of it."""
    document: dict[str, Any] = {
        "v": 1,
        "key": str(entry.key),
        "body": b64u(entry.piece.body),
        "chain": entry.piece.chain,
        "fetched_at": entry.fetched_at,
        "expires": entry.expires,
        "sequence": entry.sequence,
    }
    return encode(document | {"digest": sha256_tag(encode(document))})


def decode_entry(data: bytes, key: CollateralKey, now: int) -> Entry:
    """The entry in a file, which must be the one of `key`.

    Raises:
        MalformedError: the file is damaged, states another key (a file renamed to poison the
            cache), was made in the future, or claims a longer life than its kind may have.
    """
    document = parse_evj1(data, RECORD_MAX)
    members = Members(document, "collateral entry", required=_MEMBERS)
    members.integer("v", 1, 1)
    stated = members.digest("digest")
    del document["digest"]
    if sha256_tag(encode(document)) != stated:
        raise MalformedError("collateral entry: its digest is not the one it states")
    if document["key"] != str(key):
        raise MalformedError("collateral entry: found another key, expected the one asked for")
    bounds = BOUNDS[key.kind]
    chain = members.value("chain")
    if not isinstance(chain, str):
        raise members.fail("chain", "a string")
    piece = Piece(members.blob("body", bounds.size), chain)
    check_size(key, piece)
    fetched_at = members.integer("fetched_at", 0, now + CLOCK_SKEW_S)
    expires = members.integer("expires", 0, fetched_at + bounds.offline_s)
    sequence = None
    if members.value("sequence") is not None:
        sequence = members.integer("sequence", 0, INT_MAX)
    return Entry(key, piece, fetched_at, expires, sequence)

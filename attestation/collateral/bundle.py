"""Offline bundles: collateral carried by hand to where no vendor can be reached.

One file of canonical JSON. Nothing in it is believed because it is there: every piece passes the
same checks on import as on arrival from its vendor, its end is worked out again from what the
vendor signed, and it may be older only up to the `offline_s` of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.collateral_key import parse_key
from attestation.members import Members
from wire.canonical import encode, parse_evj1
from wire.errors import AttestationError, MalformedError
from wire.ids import b64u, sha256_tag
from wire.limits import CLOCK_SKEW_S

from .entry import BOUNDS, CHAIN_MAX, MIB, Piece
from .view import rests_on, witnesses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from attestation.collateral_key import CollateralKey

    from .entry import Entry
    from .store import Store
    from .vendors import Vendors

SCHEMA: Final = "anchorhold-collateral-bundle/1"
BUNDLE_MAX: Final = 128 * MIB
ENTRIES_MAX: Final = 16_384  # a VCEK for each chip of a large fleet
_TOP: Final = ("schema", "created", "entries", "digest")
_ENTRY: Final = ("key", "body", "chain", "fetched_at")


@dataclass(frozen=True, slots=True)
class Carried:
    """One piece in a bundle, unverified.

    Attributes:
        key: what it is said to be; of a stored form.
        piece: the bytes.
        fetched_at: when whoever made the bundle says it came from its vendor.
    """

    key: CollateralKey
    piece: Piece
    fetched_at: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A piece that was not imported.

    Attributes:
        key: which.
        code: the reason.
        detail: found and expected.
    """

    key: CollateralKey
    code: str
    detail: str


def write_bundle(entries: Iterable[Entry], created: int) -> bytes:
    """The bundle of these entries, in the one spelling that has its digest."""
    rows = [
        {
            "key": str(entry.key),
            "body": b64u(entry.piece.body),
            "chain": entry.piece.chain,
            "fetched_at": entry.fetched_at,
        }
        for entry in sorted(entries, key=lambda entry: str(entry.key))
    ]
    document: dict[str, Any] = {"schema": SCHEMA, "created": created, "entries": rows}
    return encode(document | {"digest": sha256_tag(encode(document))})


def parse_bundle(data: bytes, now: int) -> tuple[Carried, ...]:
    """The pieces in a bundle; well formed, not yet believed.

    Raises:
        MalformedError: not a bundle, altered since it was made, or made in the future.
    """
    document = parse_evj1(data, BUNDLE_MAX)
    top = Members(document, "bundle", required=_TOP)
    if top.text("schema") != SCHEMA:
        raise top.fail("schema", f'"{SCHEMA}"')
    top.integer("created", 0, now + CLOCK_SKEW_S)
    rows = top.array("entries", ENTRIES_MAX)
    stated = top.digest("digest")
    del document["digest"]
    if sha256_tag(encode(document)) != stated:
        raise MalformedError("bundle.digest: its content is not what it states")
    found = tuple(_row(row, now) for row in rows)
    keys = [str(carried.key) for carried in found]
    if keys != sorted(set(keys)):
        raise MalformedError("bundle.entries: expected each key once, in order")
    return found


def admit_bundle(
    carried: Iterable[Carried],
    vendors: Vendors,
    store: Store,
    now: int,
    progress: Callable[[int], None],
) -> tuple[tuple[Entry, ...], tuple[Rejected, ...]]:
    """Check every piece and keep those that pass.

    Args:
        carried: from `parse_bundle`.
        vendors: the checks.
        store: where they go.
        now: Unix seconds.
        progress: called with the number of pieces done, after each.

    Raises:
        ConfigError: the store cannot be read.
        UnavailableError: it cannot be written, or another process holds it and does not let go.
    """
    kept: list[Entry] = []
    rejected: list[Rejected] = []
    for number, item in enumerate(carried, 1):
        try:
            # Chains come before what they vouch for: keys are in order.
            held = (store.get(above, now) for above in witnesses(item.key))
            chain = next((e.piece for e in held if e is not None and e.expires > now), None)
            entry = vendors.admit(
                item.key,
                item.piece,
                fetched_at=item.fetched_at,
                now=now,
                chain=chain,
                offline=True,
            )
            if entry.expires <= now:
                raise AttestationError(
                    f"collateral {item.key.kind}: it ended {now - entry.expires} s ago",
                    reasons=("collateral_expired",),
                )
            if entry.passing:
                raise AttestationError(
                    "OCSP answer: the responder did not know the certificate",
                    reasons=("revocation_unknown",),
                )
            store.put(entry, now)
            kept.append(entry)
        except AttestationError as refusal:
            code = (refusal.reasons or (refusal.code,))[0]
            rejected.append(Rejected(item.key, code, refusal.message))
        except MalformedError as refusal:
            rejected.append(Rejected(item.key, "collateral_malformed", refusal.message))
        progress(number)
    return tuple(kept), tuple(rejected)


def _row(row: object, now: int) -> Carried:
    members = Members(row, "bundle.entries", required=_ENTRY)
    key = parse_key(members.text("key", 512))
    if rests_on(key) != (key,):
        raise MalformedError("bundle.entries: found a key that is composed, expected stored ones")
    chain = members.value("chain")
    if not isinstance(chain, str) or len(chain) > CHAIN_MAX:
        raise members.fail("chain", f"a string of at most {CHAIN_MAX} characters")
    piece = Piece(members.blob("body", BOUNDS[key.kind].size), chain)
    return Carried(key, piece, members.integer("fetched_at", 0, now + CLOCK_SKEW_S))

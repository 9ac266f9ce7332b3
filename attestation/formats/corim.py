"""`corim`: a Concise Reference Integrity Manifest, signed or not, or a lone CoMID. Parse only.

    manifest = 501({0: id, 1: [506(bytes) …], 3?: profile, 4?: {0?: from, 1: until}, …})
    signed   = 18([{1: alg, 3?: content type, 4?: kid, 8?: bytes(meta), 33?: x5chain}, {},
                   manifest, signature])

Tags 500 and 502 of earlier drafts may stand around the signed form, 501 may be absent, and a CoMID
may be given on its own. Which of the three it is, its bytes say; the caller need not.

Reference values only: CoSWID, CoTS and CoTL tags are counted, never read.

Spec: draft-ietf-rats-corim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from wire.errors import MalformedError
from wire.excerpt import cut

from .cbor import TAG_SIGN1, Budget, CborValue, Dialect, Tagged, decode
from .comid import TAG_OID, Comid, parse_comid
from .cose import HEADER_KID, HEADER_X5CHAIN, Sign1, parse_sign1

if TYPE_CHECKING:
    from .cbor import CborKey

TAG_CORIM: Final = 501
TAG_COMID: Final = 506
SIZE_MAX: Final = 256 * 1024  # a platform's manifest with some hundred components
ITEMS_MAX: Final = 16_384  # in the manifest and all its modules together
DEPTH_MAX: Final = 20  # a conditional series nests fifteen deep
TAGS_MAX: Final = 64
CERTS_MAX: Final = 6
TIME_MAX: Final = 2**53 - 1

_URI: Final = 32
_DATE: Final = 0
_EPOCH: Final = 1
_WRAPPERS: Final = (500, 502)
_META: Final = 8
_CWT: Final = 15
_MANIFEST = Dialect(
    "CoRIM",
    SIZE_MAX,
    DEPTH_MAX,
    ITEMS_MAX,
    # Times, URI, UUID and OID; the CoRIM draft's 500s; PSA's older 600s; Intel's set expressions.
    frozenset({_DATE, _EPOCH, TAG_SIGN1, _URI, 37, TAG_OID, 60010, 60020, 60021}).union(
        range(500, 604)
    ),
)
_HEADER = Dialect("CoRIM header", 16 * 1024, 6, 64, frozenset({_EPOCH, _URI}))


@dataclass(frozen=True, slots=True)
class Window:
    """When something counts, first and last Unix second; None for no bound."""

    begin: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Signing:
    """The signed form's envelope, *unverified*.

    Attributes:
        message: the COSE_Sign1.
        kid: key id of the signer; a hint.
        x5chain: DER of the signer's certificates, leaf first; nothing in it is an anchor.
        signer: the signer's name for itself.
        window: when the signature counts: by its meta map and by its CWT claims.
    """

    message: Sign1
    kid: bytes | None
    x5chain: tuple[bytes, ...]
    signer: str | None
    window: Window | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest, or a lone CoMID as a manifest of one.

    Attributes:
        raw: the bytes given.
        content: the decoded manifest with its modules opened, to compare with another copy: maps
            are equal whatever the order of their members.
        signing: envelope of the signed form; None where it is unsigned.
        corim_id: its name; None for a lone CoMID.
        profiles: profiles it declares; the rules of each apply to all of it.
        window: when its statements count.
        comids: its modules.
        unread: what stands in it and is not read.
    """

    raw: bytes
    content: CborValue
    signing: Signing | None
    corim_id: str | None
    profiles: tuple[str, ...]
    window: Window | None
    comids: tuple[Comid, ...]
    unread: tuple[str, ...]

    def claims(self) -> dict[str, Any]:
        """What it says of itself, for JSON."""
        found: dict[str, Any] = {
            "bytes": len(self.raw),
            "outer_tag": self.raw[:3].hex(),
            "signed": self.signing is not None,
            "corim_id": self.corim_id,
            "profiles": list(self.profiles),
            "comids": [comid.tag_id.text() for comid in self.comids],
            "reference_triples": sum(len(comid.reference) for comid in self.comids),
            "attest_key_triples": sum(len(comid.attest_keys) for comid in self.comids),
            "unread": list(self.unread),
        }
        if self.signing is not None:
            found["payload_bytes"] = len(self.signing.message.payload)
            found["cose_alg"] = self.signing.message.algorithm
            found["signer"] = self.signing.signer
        return found


def parse_manifest(data: bytes) -> Manifest:
    """Whichever of the three forms `data` is.

    Raises:
        MalformedError: none of them.
    """
    budget = Budget(ITEMS_MAX)
    value = decode(data, _MANIFEST, budget)
    while isinstance(value, Tagged) and value.tag in _WRAPPERS:
        value = value.value
    if isinstance(value, list) or (isinstance(value, Tagged) and value.tag == TAG_SIGN1):
        signing = _signing(parse_sign1(value, _HEADER))
        value = decode(signing.message.payload, _MANIFEST, budget)
        return _manifest(data, _untagged(value, TAG_CORIM), signing, budget)
    if isinstance(value, Tagged) and value.tag == TAG_COMID:
        return _lone(data, _opened(value.value, budget))
    fields = _untagged(value, TAG_CORIM)
    if not isinstance(value, Tagged) and isinstance(fields.get(1), dict):
        return _lone(data, fields)
    return _manifest(data, fields, None, budget)


def _lone(data: bytes, value: CborValue) -> Manifest:
    comid = parse_comid(value)
    return Manifest(data, value, None, None, (), None, (comid,), comid.unread)


def _manifest(
    data: bytes, fields: dict[CborKey, CborValue], signing: Signing | None, budget: Budget
) -> Manifest:
    tags = fields.get(1)
    if not isinstance(tags, list) or not 1 <= len(tags) <= TAGS_MAX:
        raise MalformedError(f"CoRIM: expected an array of 1 to {TAGS_MAX} tags")
    name = fields.get(0)
    if isinstance(name, bool) or not isinstance(name, str | bytes | int | Tagged):
        raise MalformedError("CoRIM: expected an id")
    comids, unread = [], [f"CoRIM member {cut(str(key))}" for key in fields if key not in range(6)]
    opened: list[CborValue] = []
    for item in tags:
        tagged = decode(item, _MANIFEST, budget) if isinstance(item, bytes) else item
        if not isinstance(tagged, Tagged):
            raise MalformedError("CoRIM: expected tagged modules")
        if tagged.tag == TAG_COMID:
            module = _opened(tagged.value, budget)
            opened.append(Tagged(TAG_COMID, module))
            comids.append(parse_comid(module))
        else:
            opened.append(tagged)
            unread.append(f"CoRIM tag {tagged.tag}")
    unread += [line for comid in comids for line in comid.unread]
    return Manifest(
        data,
        {**fields, 1: opened},
        signing,
        name.hex() if isinstance(name, bytes) else str(name),
        _profiles(fields.get(3)),
        _window(fields[4], "CoRIM validity") if 4 in fields else None,
        tuple(comids),
        tuple(unread),
    )


def _signing(message: Sign1) -> Signing:
    kid = message.protected.get(HEADER_KID)
    if kid is not None and not isinstance(kid, bytes):
        raise MalformedError("CoRIM header: expected bytes as key id")
    chain = message.protected.get(HEADER_X5CHAIN)
    listed = chain if isinstance(chain, list) else [] if chain is None else [chain]
    certificates = tuple(item for item in listed if isinstance(item, bytes))
    if len(certificates) != len(listed) or len(listed) > CERTS_MAX:
        raise MalformedError(f"CoRIM header: expected at most {CERTS_MAX} certificates")
    signer, window = _meta(message)
    return Signing(message, kid, certificates, signer, window)


def _meta(message: Sign1) -> tuple[str | None, Window | None]:
    """Signer and validity: the draft's own map, CWT claims, or both. Then both times count.

    Neither may stand in another form: an end that nobody reads would never come.
    """
    named: list[str] = []
    windows: list[Window] = []
    if _META in message.protected:
        raw = message.protected[_META]
        meta = decode(raw, _HEADER) if isinstance(raw, bytes) else None
        signer = meta.get(0) if isinstance(meta, dict) else None
        if not isinstance(meta, dict) or not isinstance(signer, dict):
            raise MalformedError("CoRIM header: expected a signer in its meta map")
        named += [name for name in (signer.get(0),) if isinstance(name, str)]
        windows += [_window(meta[1], "CoRIM signature validity")] if 1 in meta else []
    if _CWT in message.protected:
        claims = message.protected[_CWT]
        if not isinstance(claims, dict):
            raise MalformedError("CoRIM header: expected CWT claims as a map")
        named += [name for name in (claims.get(1),) if isinstance(name, str)]
        ends = _time(claims.get(4), "CWT exp")
        # RFC 8392 §3.1.4: in the very second that it names, a claim set has ended.
        last = None if ends is None else ends - 1
        windows.append(Window(_time(claims.get(5), "CWT nbf"), last))
    return (named[0] if named else None), _shared(windows)


def _shared(windows: list[Window]) -> Window | None:
    """When all of them hold."""
    begins = [window.begin for window in windows if window.begin is not None]
    ends = [window.end for window in windows if window.end is not None]
    return Window(max(begins, default=None), min(ends, default=None)) if windows else None


def _profiles(value: CborValue) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    found = []
    for item in listed:
        inner = item.value if isinstance(item, Tagged) and item.tag in (_URI, TAG_OID) else item
        if isinstance(inner, str):
            found.append(inner)
        elif isinstance(inner, bytes):
            found.append(f"oid:{inner.hex()}")
        else:
            raise MalformedError("CoRIM profile: expected a URI or an OID")
    return tuple(found)


def _window(value: CborValue, what: str) -> Window:
    if not isinstance(value, dict) or value.keys() - {0, 1}:
        raise MalformedError(f"{what}: expected a map of from and until")
    return Window(_time(value.get(0), what), _time(value.get(1), what))


def _time(value: CborValue, what: str) -> int | None:
    inner = value.value if isinstance(value, Tagged) and value.tag == _EPOCH else value
    if inner is None:
        return None
    if isinstance(inner, bool) or not isinstance(inner, int) or not 0 <= inner <= TIME_MAX:
        raise MalformedError(f"{what}: expected Unix seconds")
    return inner


def _opened(value: CborValue, budget: Budget) -> CborValue:
    """A module's map: as such, or encoded in bytes."""
    return decode(value, _MANIFEST, budget) if isinstance(value, bytes) else value


def _untagged(value: CborValue, tag: int) -> dict[CborKey, CborValue]:
    inner = value.value if isinstance(value, Tagged) and value.tag == tag else value
    if not isinstance(inner, dict):
        raise MalformedError("CoRIM: expected a manifest, a signed manifest or a CoMID")
    return inner

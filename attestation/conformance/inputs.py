"""The rule that says which claim of a sample carries which of the relying party's values.

It is a text. This grammar is understood, and anything else is refused, because a rule that is not
applied is a check that did not run:

    RULE   = CLAUSE {"; " CLAUSE}                     every clause must hold
    CLAUSE = ["TEE "] FIELD ["[" LOW ":" HIGH "]"] " == " TERMS
    TERMS  = TERM {(" || " | " + ") TERM}             concatenation
    TERM   = HASH "(" TERMS ")"                       SHA-256, SHA-384 or SHA-512, in any case
           | "zeros(" COUNT ")" | "'" ASCII "'"       zero bytes; literal text
           | "DER SubjectPublicKeyInfo of the TLS certificate"   of tls_certificate_der_hex
           | NAME                                     an input in hex, given as NAME or NAME_hex,
                                                      or as either behind "expected_"

FIELD is a claim in hex, such as report_data, where fewer bytes than its 64 stand before zeros; LOW
or HIGH may be left out. The rule of Azure samples, in its one spelling, is
what their kind always checks.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError
from wire.excerpt import shown

from .stated import PADDED, TLS_INPUT, data_of, key_of, rule_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .index import Sample

_CLAUSE = re.compile(
    r"(?:TEE )?(?P<field>[a-z_]+)(?P<part>\[(?P<low>\d{0,4}):(?P<high>\d{0,4})\])? == (?P<terms>.+)"
)
_TOKEN = re.compile(
    r"(?P<hash>(?i:SHA)[-_]?(?:256|384|512)\()|(?P<close>\))|(?P<join> (?:\|\||\+) )|"
    r"zeros\((?P<zeros>\d{1,3})\)|"
    r"'(?P<text>[\x20-\x26\x28-\x7e]*)'|"
    r"(?P<tls>DER SubjectPublicKeyInfo of the TLS certificate)|(?P<name>[A-Za-z0-9_]+)"
)
RULE_MAX: Final = 1024
DEPTH_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class BindingRule:
    """One clause: a claim that must have a value.

    Attributes:
        field: claim name.
        part: which bytes of it; None for all.
        value: what they must be.
        terms: the values it names, each alone.
    """

    field: str
    part: slice | None
    value: bytes
    terms: tuple[bytes, ...]

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claims satisfy the clause."""
        found = claims.get(self.field)
        try:
            data = bytes.fromhex(found) if isinstance(found, str) else b""
        except ValueError:
            return False
        if self.part is not None:
            return bool(self.value) and data[self.part] == self.value
        return bool(self.value) and data == self.value.ljust(PADDED.get(self.field, 0), b"\0")


def binding_rules(sample: Sample, named: Mapping[str, bytes]) -> tuple[BindingRule, ...]:
    """The clauses a sample states; () where it states none beyond what its kind checks.

    Args:
        sample: the sample.
        named: further values by name, such as the digest of its GPU evidence.

    Raises:
        MalformedError: a rule that is not understood, or an input it names that is not there.
    """
    text = rule_of(sample)
    if text is None:
        return ()
    if not isinstance(text, str) or len(text) > RULE_MAX:
        raise MalformedError(f"sample {sample.id}: expected a binding rule of ≤ {RULE_MAX} bytes")
    return tuple(_clause(sample, clause, named) for clause in text.split("; "))


def _clause(sample: Sample, text: str, named: Mapping[str, bytes]) -> BindingRule:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        raise _not_understood(sample, text)
    part = None
    if match["part"] is not None:
        part = slice(*(int(end) if end else None for end in match.group("low", "high")))
    terms: list[bytes] = []
    value, rest = _terms(sample, match["terms"], named, terms, 0)
    if rest:
        raise _not_understood(sample, text)
    return BindingRule(match["field"], part, value, tuple(terms))


def _terms(
    sample: Sample, text: str, named: Mapping[str, bytes], terms: list[bytes], depth: int
) -> tuple[bytes, str]:
    """The bytes of the terms at the head of `text`, and what follows; named ones go to `terms`."""
    joined = b""
    while True:
        match = _TOKEN.match(text)
        if match is None or match["close"] or match["join"] or depth > DEPTH_MAX:
            raise _not_understood(sample, text)
        text = text[match.end() :]
        if match["hash"]:
            inner, text = _terms(sample, text, named, terms, depth + 1)
            if not text.startswith(")"):
                raise _not_understood(sample, text)
            bits = re.sub(r"\D", "", match["hash"])
            joined, text = joined + hashlib.new(f"sha{bits}", inner).digest(), text[1:]
        elif match["zeros"]:
            joined += bytes(int(match["zeros"]))
        elif match["text"] is not None:
            joined += match["text"].encode()
        elif match["tls"]:
            joined += _spki(sample)
        else:
            terms.append(_named(sample, match["name"], named))
            joined += terms[-1]
        following = _TOKEN.match(text)
        if following is None or not following["join"]:
            return joined, text
        text = text[following.end() :]


def _not_understood(sample: Sample, text: str) -> MalformedError:
    return MalformedError(f"sample {sample.id}: binding rule {shown(text)} is not understood")


def _named(sample: Sample, name: str, named: Mapping[str, bytes]) -> bytes:
    key = key_of(sample, name)
    if key is not None:
        return data_of(sample, key)
    if name in named:
        return named[name]
    raise MalformedError(f"sample {sample.id}: its binding rule names no input {shown(name)}")


def _spki(sample: Sample) -> bytes:
    try:
        certificate = load_certificate(data_of(sample, TLS_INPUT))
    except AttestationError:
        raise MalformedError(f"sample {sample.id}: its TLS certificate does not parse") from None
    key = certificate.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

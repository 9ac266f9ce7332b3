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
or HIGH may be left out. People write the same in other ways, which are read too: "‖" or a
comma for "||", blanks or none around the signs, " and " for "; ", and a clause with its sides
exchanged. The clauses of Azure samples, in their one spelling, are what their kinds always check.
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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .index import Sample

INPUT_MAX: Final = 65_536  # hex digits; a certificate is the longest input
RULE_MAX: Final = 1024
DEPTH_MAX: Final = 4
EXPECTED: Final = "expected_"
TLS_INPUT: Final = "tls_certificate_der_hex"
PADDED: Final = {"report_data": 64}  # bytes of a field of fixed size, filled from the front
_CLAUSE = re.compile(
    r"(?:TEE )?(?P<field>[a-z_]+)(?P<part>\[(?P<low>\d{0,4}):(?P<high>\d{0,4})\])? *== *"
    r"(?P<terms>[^=]+)"
)
_BETWEEN = re.compile(r" *; *| and (?=[^=]*==)")
_TOKEN = re.compile(
    r"(?P<hash>(?i:SHA)[-_]?(?:256|384|512)\( *)|(?P<close> *\))|(?P<join> *(?:\|\||\+|‖|,) *)|"
    r"zeros\((?P<zeros>\d{1,3})\)|"
    r"'(?P<text>[\x20-\x26\x28-\x7e]*)'|"
    r"(?P<tls>DER SubjectPublicKeyInfo of the TLS certificate)|(?P<name>[A-Za-z0-9_]+)"
)
_BUILT_IN: Final = frozenset(
    {
        "report_data[0:32] == SHA-256(variable data)",
        "variable data names HCLAkPub",
        "HCLAkPub signs the TPM quote",
        "quote extraData carries the nonce",
    }
)
_BUILT_IN_KINDS: Final = ("azure-vtpm-snp", "azure-vtpm-tdx")


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


def rule_of(sample: Sample) -> object:
    """The binding rule; None where there is none but what its kind checks itself."""
    text = sample.inputs.get("binding")
    built_in = (
        isinstance(text, str)
        and sample.kind in _BUILT_IN_KINDS
        and {clause.removeprefix("TEE ") for clause in text.split("; ")} <= _BUILT_IN
    )
    return None if built_in else text


def inputs_of(sample: Sample) -> set[str]:
    """The inputs that the binding rule uses: also those of one that is not understood."""
    text = rule_of(sample)
    parts = _BETWEEN.split(text) if isinstance(text, str) else []
    sides = [_terms_of(part) for part in parts]
    tokens = [match for side in sides for match in _TOKEN.finditer(side)]
    named = {key_of(sample, match["name"]) for match in tokens if match["name"]}
    tls = {TLS_INPUT for match in tokens if match["tls"]}
    return tls | {key for key in named if key is not None}


def _match(clause: str) -> re.Match[str] | None:
    """A clause as it stands, or with its sides exchanged."""
    left, _, right = clause.partition("==")
    turned = f"{right.strip()} == {left.strip()}"
    return _CLAUSE.fullmatch(clause) or _CLAUSE.fullmatch(turned)


def _terms_of(clause: str) -> str:
    match = _match(clause)
    return clause.partition("==")[2] if match is None else match["terms"]


def data_of(sample: Sample, key: str) -> bytes:
    """An input in hex.

    Raises:
        MalformedError: it is none.
    """
    value = sample.inputs.get(key)
    try:
        if isinstance(value, str) and len(value) <= INPUT_MAX:
            return bytes.fromhex(value.removeprefix("0x"))
    except ValueError:
        pass
    raise MalformedError(f"sample {sample.id}: expected hex as {key}")


def key_of(sample: Sample, name: str) -> str | None:
    """The input that a rule means by a name; None if there is none."""
    keys = (f"{name}_hex", name, f"{EXPECTED}{name}_hex", EXPECTED + name)
    return next((key for key in keys if key in sample.inputs), None)


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
    return tuple(_clause(sample, clause, named) for clause in _BETWEEN.split(text.strip()))


def _clause(sample: Sample, text: str, named: Mapping[str, bytes]) -> BindingRule:
    match = _match(text)
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
            closed = _TOKEN.match(text)
            if closed is None or not closed["close"]:
                raise _not_understood(sample, text)
            bits = re.sub(r"\D", "", match["hash"])
            joined, text = joined + hashlib.new(f"sha{bits}", inner).digest(), text[closed.end() :]
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

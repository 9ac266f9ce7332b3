"""What a sample's relying party brings: nonces, architectures, and the rule that binds a key.

An input that is named after a claim, such as expected_report_data_hex, is what the claim must be.
The binding rule is a text. This grammar is understood, and anything else is refused, because a rule
that is not applied is a check that did not run:

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

from attestation.examined import Expected
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError
from wire.excerpt import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .index import Sample

INPUT_MAX: Final = 65_536  # hex digits; a certificate is the longest input
_NONCES: Final = ("expected_nonce_hex", "expected_nonce")
_LOOSE_NONCES: Final = ("nonce_hex", "nonce")  # a binding rule's own, where there is one
_EXPECTED: Final = "expected_"
_CLAIMS: Final = ("report_data", "user_data", "host_data", "public_key", "extra_data")
_PADDED: Final = {"report_data": 64}  # a field of fixed size, which guests fill from the front
_BUILT_IN: Final = frozenset(
    {
        "TEE report_data[0:32] == SHA-256(variable data); variable data names HCLAkPub; "
        "HCLAkPub signs the TPM quote; quote extraData carries the nonce"
    }
)
_BUILT_IN_KINDS: Final = ("azure-vtpm-snp", "azure-vtpm-tdx")
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
        gpu: whether GPU evidence is among what is hashed.
    """

    field: str
    part: slice | None
    value: bytes
    gpu: bool

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claims satisfy the clause."""
        found = claims.get(self.field)
        try:
            data = bytes.fromhex(found) if isinstance(found, str) else b""
        except ValueError:
            return False
        if self.part is not None:
            return bool(self.value) and data[self.part] == self.value
        return bool(self.value) and data == self.value.ljust(_PADDED.get(self.field, 0), b"\0")


def expected_of(sample: Sample) -> Expected:
    """What the evidence must have been made for.

    Raises:
        MalformedError: an input of another type than its name says.
    """
    names = _NONCES if "binding" in sample.inputs else _NONCES + _LOOSE_NONCES
    nonce = next((_data(sample, key) for key in names if sample.inputs.get(key)), None)
    arch = sample.inputs.get("arch")
    if arch is not None and not isinstance(arch, str):
        raise MalformedError(f"sample {sample.id}: expected a text as arch")
    return Expected(nonce=nonce, arch=None if arch is None else arch.upper())


def claim_rules(sample: Sample) -> tuple[BindingRule, ...]:
    """The claims that a sample's inputs give by their names; a binding rule may use them instead.

    Raises:
        MalformedError: an input that is no hex.
    """
    ruled = "binding" in sample.inputs
    return tuple(
        BindingRule(claim, None, _data(sample, key), gpu=False)
        for claim in _CLAIMS
        for name in ((_EXPECTED + claim,) if ruled else (_EXPECTED + claim, claim))
        for key in (f"{name}_hex", name)
        if sample.inputs.get(key) and not (ruled and claim in str(sample.inputs["binding"]))
    )


def binding_rules(sample: Sample, named: Mapping[str, bytes]) -> tuple[BindingRule, ...]:
    """The clauses a sample states; () where it states none beyond what its kind checks.

    Args:
        sample: the sample.
        named: further values by name, such as the digest of its GPU evidence.

    Raises:
        MalformedError: a rule that is not understood, or an input it names that is not there.
    """
    text = sample.inputs.get("binding")
    if text is None:
        return ()
    if not isinstance(text, str) or len(text) > RULE_MAX:
        raise MalformedError(f"sample {sample.id}: expected a binding rule of ≤ {RULE_MAX} bytes")
    if text in _BUILT_IN and sample.kind in _BUILT_IN_KINDS:
        return ()
    return tuple(_clause(sample, clause, named) for clause in text.split("; "))


def _clause(sample: Sample, text: str, named: Mapping[str, bytes]) -> BindingRule:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        raise _not_understood(sample, text)
    part = None
    if match["part"] is not None:
        part = slice(*(int(end) if end else None for end in match.group("low", "high")))
    value, rest = _terms(sample, match["terms"], named, 0)
    if rest:
        raise _not_understood(sample, text)
    return BindingRule(match["field"], part, value, gpu="gpu" in match["terms"])


def _terms(sample: Sample, text: str, named: Mapping[str, bytes], depth: int) -> tuple[bytes, str]:
    """The bytes of the terms at the head of `text`, and what follows them."""
    joined = b""
    while True:
        match = _TOKEN.match(text)
        if match is None or match["close"] or match["join"] or depth > DEPTH_MAX:
            raise _not_understood(sample, text)
        text = text[match.end() :]
        if match["hash"]:
            inner, text = _terms(sample, text, named, depth + 1)
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
            joined += _named(sample, match["name"], named)
        following = _TOKEN.match(text)
        if following is None or not following["join"]:
            return joined, text
        text = text[following.end() :]


def _not_understood(sample: Sample, text: str) -> MalformedError:
    return MalformedError(f"sample {sample.id}: binding rule {shown(text)} is not understood")


def _named(sample: Sample, name: str, named: Mapping[str, bytes]) -> bytes:
    for key in (f"{name}_hex", name, f"{_EXPECTED}{name}_hex", _EXPECTED + name):
        if key in sample.inputs:
            return _data(sample, key)
    if name in named:
        return named[name]
    raise MalformedError(f"sample {sample.id}: its binding rule names no input {shown(name)}")


def _spki(sample: Sample) -> bytes:
    try:
        certificate = load_certificate(_data(sample, "tls_certificate_der_hex"))
    except AttestationError:
        raise MalformedError(f"sample {sample.id}: its TLS certificate does not parse") from None
    key = certificate.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _data(sample: Sample, key: str) -> bytes:
    value = sample.inputs.get(key)
    try:
        if isinstance(value, str) and len(value) <= INPUT_MAX:
            return bytes.fromhex(value)
    except ValueError:
        pass
    raise MalformedError(f"sample {sample.id}: expected hex as {key}")

"""What a sample's relying party brings: nonces, architectures, and the rule that binds a key.

The binding rule is a text. Two forms are understood, and anything else is refused, because a rule
that is not applied is a check that did not run:

    FIELD == HASH(NAME || NAME …)      FIELD a claim such as report_data, or report_data[0:32];
    FIELD == NAME                      HASH SHA-256, SHA-384 or SHA-512; NAME an input, given as
                                       NAME_hex or NAME, in hex
    FIELD == DER SubjectPublicKeyInfo of the TLS certificate
                                       the input tls_certificate_der_hex

The rule of Azure samples, in its one spelling, is what their kind always checks.
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
_BUILT_IN: Final = frozenset(
    {
        "TEE report_data[0:32] == SHA-256(variable data); variable data names HCLAkPub; "
        "HCLAkPub signs the TPM quote; quote extraData carries the nonce"
    }
)
_BUILT_IN_KINDS: Final = ("azure-vtpm-snp", "azure-vtpm-tdx")
_RULE = re.compile(
    r"(?P<field>[a-z_]+)(?:\[(?P<low>\d{1,4}):(?P<high>\d{1,4})\])? == (?P<value>.+)"
)
_HASHED = re.compile(r"SHA-?(?P<bits>256|384|512)\((?P<names>[a-z0-9_]+(?: \|\| [a-z0-9_]+)*)\)")
_NAME = re.compile(r"[a-z0-9_]+")
_TLS: Final = "DER SubjectPublicKeyInfo of the TLS certificate"


@dataclass(frozen=True, slots=True)
class BindingRule:
    """A claim that must have a value.

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
        """Whether the claims satisfy the rule."""
        found = claims.get(self.field)
        try:
            data = bytes.fromhex(found) if isinstance(found, str) else b""
        except ValueError:
            return False
        return bool(self.value) and (data if self.part is None else data[self.part]) == self.value


def expected_of(sample: Sample) -> Expected:
    """What the evidence must have been made for.

    Raises:
        MalformedError: an input of another type than its name says.
    """
    nonce = next((_data(sample, key) for key in _NONCES if sample.inputs.get(key)), None)
    arch = sample.inputs.get("arch")
    if arch is not None and not isinstance(arch, str):
        raise MalformedError(f"sample {sample.id}: expected a text as arch")
    return Expected(nonce=nonce, arch=arch)


def binding_rule(sample: Sample, named: Mapping[str, bytes]) -> BindingRule | None:
    """The rule a sample states, or None where it states none beyond what its kind checks.

    Args:
        sample: the sample.
        named: further values by name, such as the digest of its GPU evidence.

    Raises:
        MalformedError: a rule that is not understood, or an input it names that is not there.
    """
    text = sample.inputs.get("binding")
    if text is None or (text in _BUILT_IN and sample.kind in _BUILT_IN_KINDS):
        return None
    match = _RULE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise MalformedError(f"sample {sample.id}: binding rule {_shown(text)} is not understood")
    part = None
    if match["low"] is not None:
        part = slice(int(match["low"]), int(match["high"]))
    value = match["value"]
    if value == _TLS:
        return BindingRule(match["field"], part, _spki(sample), gpu=False)
    hashed = _HASHED.fullmatch(value)
    if hashed is not None:
        names = hashed["names"].split(" || ")
        joined = b"".join(_named(sample, name, named) for name in names)
        digest = hashlib.new(f"sha{hashed['bits']}", joined).digest()
        return BindingRule(match["field"], part, digest, gpu=any("gpu" in n for n in names))
    if _NAME.fullmatch(value):
        return BindingRule(match["field"], part, _named(sample, value, named), gpu="gpu" in value)
    raise MalformedError(f"sample {sample.id}: binding rule {_shown(text)} is not understood")


def _named(sample: Sample, name: str, named: Mapping[str, bytes]) -> bytes:
    for key in (f"{name}_hex", name):
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


def _shown(value: object) -> str:
    return shown(value) if isinstance(value, str) else "of another type"

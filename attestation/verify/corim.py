"""Who signed a CoRIM: a key the relying party obtained itself, or one certified to a pinned root.

A manifest brings key ids and certificates along; they say where to look, never whom to trust.
Each function is one step of `schemes.corim` and raises `AttestationError` with one code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from attestation.formats.corim import Manifest, Signing, parse_manifest
from attestation.formats.cose import HEADER_CONTENT_TYPE
from wire.errors import refused

from .cose import EDDSA, ES256, ES384, ES512, verify_sign1
from .signing_key import load_key
from .x509 import verify_chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attestation.formats.jwks import Jwk, KeySet

_refused: Final = partial(refused, about="CoRIM")
ALGORITHMS: Final = (ES256, ES384, ES512, EDDSA)
CONTENT_TYPES: Final = ("application/rim+cbor", "application/corim-unsigned+cbor")


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that may have signed.

    Attributes:
        key: the public key.
        not_after: when its certificates end, None for a bare key.
        detail: where it comes from.
    """

    key: object
    not_after: int | None
    detail: str


def check_content_type(signing: Signing) -> str:
    """The signed header says that a CoRIM was signed, or nothing.

    Raises:
        AttestationError: `profile_violation`: what was signed for another use is not taken for one.
    """
    found = signing.message.protected.get(HEADER_CONTENT_TYPE)
    if found is None:
        return "no content type"
    if not isinstance(found, str) or found.split(";")[0] not in CONTENT_TYPES:
        raise _refused("profile_violation", f"expected one of {CONTENT_TYPES}")
    return found.split(";")[0]


def find_key(signing: Signing, keys: KeySet) -> Signer:
    """The relying party's key for this manifest.

    Raises:
        AttestationError: `unknown_signing_key`, `duplicate_kid` or `key_invalid`.
    """
    return Signer(load_key(_chosen(signing, keys)).key, None, "the relying party's key")


def find_certified_key(signing: Signing, roots: Sequence[bytes], now: int) -> Signer:
    """The key of the manifest's certificate, certified up to a pinned root.

    Args:
        signing: with at least one certificate.
        roots: DER of roots that are pinned.
        now: Unix seconds.

    Raises:
        AttestationError: `untrusted_root`, `chain_invalid` or `certificate_not_valid_at_time`.
    """
    leaf, expires = verify_chain(signing.x5chain[0], signing.x5chain[1:], roots, now)
    return Signer(leaf.public_key(), expires, f"certified under one of {len(roots)} pinned roots")


def check_signature(signing: Signing, signer: Signer) -> str:
    """The signer's key signed the manifest.

    Raises:
        AttestationError: `signature_invalid`.
    """
    return verify_sign1(signing.message, signer.key, ALGORITHMS)


def check_copy(manifest: Manifest, copy: bytes) -> str:
    """An unsigned copy given beside the manifest says the same, in whatever order of members.

    Raises:
        AttestationError: `copy_mismatch`.
        MalformedError: the copy is no manifest.
    """
    other = parse_manifest(copy)
    if other.signing is not None or other.content != manifest.content:
        raise _refused("copy_mismatch", "the unsigned copy says something else")
    return f"{len(copy)} bytes say the same"


def _chosen(signing: Signing, keys: KeySet) -> Jwk:
    if keys.single:
        key = keys.keys[0]
        if key.kid is not None and signing.kid is not None and key.kid.encode() != signing.kid:
            raise _refused("unknown_signing_key", "the manifest names another key")
        return key
    found = [key for key in keys.keys if (key.kid or "").encode() == signing.kid]
    if not found:
        raise _refused("unknown_signing_key", f"found none of {len(keys.keys)} keys with its id")
    if len(found) > 1:
        raise _refused("duplicate_kid", f"found {len(found)} keys with one id, expected one")
    return found[0]

"""One worker's attestation in the shape of the open `aci/1` specification.

The document says what our binding says, in that specification's words: a keyset derived from the
binding and nothing else, the statement that names the keyset's digest and the caller's nonce, and
our evidence under a `tee_type` of our own. What maps and what does not: docs/spec/aci.md.

Steps of a verifier of this `tee_type`, each a function or a rule named here:
 1. the evidence is genuine and accepted for the binding        `attestation.appraise`
 2. the binding carries the nonce asked for                     `parse_nonce`
 3. the keyset is exactly the one the binding gives             `keyset_of`
 4. `workload_keyset_digest` and `report_data` follow from it   `keyset_digest`, `report_data_of`

Source: aci/1 draft (§3, §4, appendix A), Dstack-TEE/private-ai-gateway, spec/aci.md.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from wire.canonical import encode
from wire.errors import AttestationError, MalformedError
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .binding import Binding
    from .evidence import Evidence

VERSION: Final = "aci/1"
TEE_TYPE: Final = "anchorhold/1"
PURPOSE: Final = "aci.report_data.v1"
E2EE_VERSION: Final = "anchorhold/1"
# Names no ACI verifier knows, so that none takes these keys for keys of its own protocols: our
# receipts are not ACI receipts, and our sealed requests are no ACI extension it could speak.
RECEIPT_ALGORITHM: Final = "anchorhold-1-ed25519"
E2EE_ALGORITHM: Final = "anchorhold-1-"

_NONCE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the worker's code can be read. The specification wants at least one complete answer.

    Attributes:
        repo_url: https URL of the source, or None.
        repo_commit: commit the image was built from, or None.
        image_digest: "sha256:" tag of a published image, or None.
    """

    repo_url: str | None = None
    repo_commit: str | None = None
    image_digest: str | None = None


def parse_nonce(text: str) -> bytes:
    """The 32 bytes of a `nonce` query parameter.

    Raises:
        MalformedError: not exactly 64 lower-case hex digits (the gateway answers 400).
    """
    if _NONCE.fullmatch(text) is None:
        raise MalformedError("nonce: expected exactly 64 lower-case hex digits")
    return bytes.fromhex(text)


def keyset_of(binding: Binding) -> dict[str, Any]:
    """The workload keyset that a binding gives; no member comes from anywhere else."""
    return {
        "subject": f"anchorhold:{binding.aud}/{binding.wid}",
        "not_after": binding.exp,
        "receipt_signing_keys": [
            {
                "key_id": f"sig-{hashlib.sha256(binding.sig_pk).hexdigest()}",
                "algo": RECEIPT_ALGORITHM,
                "public_key": binding.sig_pk.hex(),
            }
        ],
        "e2ee_public_keys": [
            {
                "key_id": kem.kid.hex(),
                "algo": f"{E2EE_ALGORITHM}{kem.suite}",
                "public_key": kem.pk.hex(),
            }
            for kem in binding.kems
        ],
        # Prompts are sealed to the keys above, and no plaintext is accepted over HTTPS: the
        # gateway's TLS ends outside the worker and binds nothing.
        "tls_public_keys": [],
    }


def keyset_digest(keyset: Mapping[str, Any]) -> str:
    """`workload_keyset_digest`: a "sha256:" tag over the keyset's canonical form."""
    return f"sha256:{hashlib.sha256(encode(dict(keyset))).hexdigest()}"


def statement(digest: str, nonce: bytes | None) -> bytes:
    """The attestation statement's exact bytes."""
    return encode(
        {
            "keyset_digest": digest,
            "nonce": None if nonce is None else nonce.hex(),
            "purpose": PURPOSE,
        }
    )


def report_data_of(digest: str, nonce: bytes | None) -> bytes:
    """SHA-256 of the statement, 32 bytes."""
    return hashlib.sha256(statement(digest, nonce)).digest()


def attestation_report(
    binding: Binding,
    evidence: Sequence[Evidence],
    posture: bytes | None,
    nonce: bytes | None,
    provenance: Provenance,
) -> dict[str, Any]:
    """The body of `GET /v1/aci/attestation` for one worker.

    Args:
        binding: the worker's binding, made for `nonce` where one was asked.
        evidence: the evidence for it, as the worker sent it.
        posture: its posture container, or None.
        nonce: what the caller asked with (`parse_nonce`), or None.
        provenance: where its code can be read.

    Raises:
        AttestationError: the binding was made for another nonce (`nonce_mismatch`): the answer
            would claim a freshness that its evidence does not have.
    """
    if nonce is not None and binding.nonce != nonce:
        raise AttestationError(
            "aci: the binding was not made for the nonce asked for", reasons=("nonce_mismatch",)
        )
    keyset = keyset_of(binding)
    digest = keyset_digest(keyset)
    return {
        "api_version": VERSION,
        "workload_keyset_digest": digest,
        "attestation": {
            "tee_type": TEE_TYPE,
            "workload_keyset": keyset,
            "report_data": report_data_of(digest, nonce).hex(),
            "source_provenance": {
                "repo_url": provenance.repo_url,
                "repo_commit": provenance.repo_commit,
                "image_digest": provenance.image_digest,
                "image_provenance": None,
            },
            "evidence": {
                "binding": b64u(binding.raw),
                "items": [item.to_json() for item in evidence],
                "posture": None if posture is None else b64u(posture),
            },
        },
        "service_capabilities": {"supported_e2ee_versions": [E2EE_VERSION], "serving": "direct"},
    }


def response_headers(report: Mapping[str, Any]) -> dict[str, str]:
    """The unauthenticated hints that go with every response (§5.2)."""
    return {
        "X-ACI-Version": VERSION,
        "X-ACI-Keyset-Digest": str(report["workload_keyset_digest"]),
    }

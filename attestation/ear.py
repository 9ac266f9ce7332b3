"""Our verdict as an attestation result others can read: EAR claims with AR4SI's trust vector.

Default deny: every trust claim starts at a failing number, and only a step that passed lifts it. A
refusal lifts nothing; some of its reasons make single claims worse. Trust that rests on no vendor's
hardware ("vtpm", "simulated", "software") never reaches affirming on a claim about hardware.

    claim              failing  lifted by
    instance-identity       97  evidence of a vendor's hardware that names the bound keys
    configuration           36  a posture record that met the policy's demands (2); not claimed
                                (0) where the policy demands no control
    executables             33  a measurement that hardware, or a TPM whose key the policy trusts,
                                proved and the policy accepts
    file-system             32  the same: it covers every file the worker runs and serves
    hardware                97  a chain to the vendor's pinned root, at an accepted security level
    runtime-opaque          96  memory the hardware encrypts (2), or only isolates (32)
    storage-opaque           0  not claimed: the evidence says nothing on storage
    sourced-data             0  not claimed, likewise

`ear.status` is the worst tier among the claims made. Members named `anchorhold.…` are ours; the
others are those of RFC 9711 and of EAR.

Spec: docs/spec/evidence.md §8. Sources: RFC 9711, draft-ietf-rats-ear, draft-ietf-rats-ar4si §2.3.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from wire.ids import b64u
from wire.suites import strongest

from .formats.ear import TIERS, VERAISON_PROFILE, Tier, tier
from .result import AppraisedEvidence, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .binding import Binding
    from .result import Check, Trust

LIFE_MAX_S: Final = 3_600  # a result is used at once; a longer life outlives a revocation
SUBMOD: Final = "worker"
AFFIRMING: Final = 2
NOT_CLAIMED: Final = 0  # AR4SI: a verifier claims only what it appraised
CRYPTO_FAILED: Final = 99
REASONS_MAX: Final = 64  # codes listed in a result; a refusal has a handful

FAILING: Final[Mapping[str, int]] = MappingProxyType(
    {
        "instance-identity": 97,
        "configuration": 36,
        "executables": 33,
        "file-system": 32,
        "hardware": 97,
        "runtime-opaque": 96,
        "storage-opaque": 0,
        "sourced-data": 0,
    }
)

_ENCRYPTED = frozenset(
    {"intel-tdx-quote", "intel-sgx-quote", "amd-sev-snp-report", "azure-vtpm-snp", "azure-vtpm-tdx"}
)
_ISOLATED = frozenset({"aws-nitro-document"})
_MAKERS: Final[Mapping[str, int]] = MappingProxyType(  # IANA private enterprise numbers
    {
        "intel-tdx-quote": 343,
        "intel-sgx-quote": 343,
        "amd-sev-snp-report": 3704,
        "azure-vtpm-snp": 3704,
        "azure-vtpm-tdx": 343,
    }
)
# What a reason code makes worse than the failing default; none makes anything better.
_SAYS: Final[Mapping[str, tuple[tuple[str, int], ...]]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "signature_invalid",
                "chain_invalid",
                "untrusted_root",
                "alg_none",
                "unknown_signing_key",
                "certificate_not_valid_at_time",
            ),
            (("instance-identity", CRYPTO_FAILED), ("hardware", CRYPTO_FAILED)),
        ),
        "debug_enabled": (("configuration", 96),),
        "posture_below_policy": (("configuration", 96),),
        **dict.fromkeys(
            ("measurement_mismatch", "measurement_not_accepted", "image_mismatch", "denied"),
            (("executables", 96), ("file-system", 96)),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Who appraised, as `ear.verifier-id` names it.

    Attributes:
        developer: who makes the verifier, such as a URL.
        build: name and version of the build.
    """

    developer: str
    build: str


def accepted_vector(trust: Trust, kind: str, *, posture: bool) -> dict[str, int]:
    """The trust vector of evidence that met a policy.

    Args:
        trust: what stands behind it.
        kind: evidence kind.
        posture: whether the policy demanded controls, and a verified posture record met them all.
    """
    vector = dict(FAILING)
    vector["configuration"] = AFFIRMING if posture else NOT_CLAIMED
    if trust not in ("hardware", "vtpm"):
        return vector
    for name in ("executables", "file-system"):
        vector[name] = AFFIRMING
    if trust != "hardware":  # which machine a TPM is in, or whether it is one at all, nobody proved
        return vector
    for name in ("instance-identity", "hardware"):
        vector[name] = AFFIRMING
    if kind in _ENCRYPTED:
        vector["runtime-opaque"] = AFFIRMING
    elif kind in _ISOLATED:
        vector["runtime-opaque"] = 32
    return vector


def refused_vector(codes: Iterable[str]) -> dict[str, int]:
    """The trust vector of refused evidence: nothing lifted, some claims worse."""
    vector = dict(FAILING)
    for code in codes:
        for name, value in _SAYS.get(code, ()):
            vector[name] = max(vector[name], value)
    return vector


def status_of(vector: Mapping[str, int]) -> Tier:
    """The worst tier among the claims made; "none" where none is made."""
    made = [tier(value) for value in vector.values() if tier(value) != "none"]
    return max(made, key=TIERS.index, default="none")


def ear_claims(
    verdict: AppraisedEvidence | Refused,
    *,
    verifier: Verifier,
    policy: str,
    now: int,
    life_s: int,
    nonce: bytes | None = None,
    audience: str | None = None,
) -> dict[str, Any]:
    """The claims of an attestation result for one verdict.

    Args:
        verdict: what `appraise` gave.
        verifier: who appraised.
        policy: digest of the policy, a "sha256:" tag.
        now: Unix seconds.
        life_s: seconds the result may be used, 1 to LIFE_MAX_S; never past the verdict's own end.
        nonce: the relying party's, echoed.
        audience: the one relying party it is for, or None.

    Raises:
        ValueError: `life_s` is out of range.
    """
    if not 1 <= life_s <= LIFE_MAX_S:
        raise ValueError(f"life_s: expected 1 to {LIFE_MAX_S}")
    claims: dict[str, Any] = {
        "eat_profile": VERAISON_PROFILE,
        "iat": now,
        "nbf": now,
        "exp": now + life_s,
        "ear.verifier-id": {"developer": verifier.developer, "build": verifier.build},
    }
    if nonce is not None:
        claims["eat_nonce"] = b64u(nonce)
    if audience is not None:
        claims["aud"] = audience
    appraisal: dict[str, Any] = {"ear.appraisal-policy-id": policy}
    if isinstance(verdict, Refused):
        vector = refused_vector(verdict.codes)
        appraisal["anchorhold.reasons"] = list(dict.fromkeys(verdict.codes))[:REASONS_MAX]
        if "debug_enabled" in verdict.codes:
            claims["dbgstat"] = "enabled"
        status: Tier = "contraindicated"
    else:
        vector = dict(FAILING)
        if _all_passed(verdict.checks):
            vector = accepted_vector(verdict.trust, verdict.kind, posture=bool(verdict.controls))
        status = status_of(vector)
        claims["exp"] = min(claims["exp"], verdict.expires)
        claims.update(_device(verdict))
        appraisal.update(_worker(verdict))
    appraisal["ear.status"] = status
    appraisal["ear.trustworthiness-vector"] = vector
    claims["submods"] = {SUBMOD: appraisal}
    return claims


def _all_passed(checks: Iterable[Check]) -> bool:
    outcomes = [check.ok for check in checks]
    return bool(outcomes) and all(ok is True for ok in outcomes)


def _device(verdict: AppraisedEvidence) -> dict[str, Any]:
    """What EAT calls the device, where a vendor's hardware vouches for it."""
    if verdict.trust != "hardware":
        return {}
    said = verdict.claims.get(verdict.kind, {})
    device: dict[str, Any] = {}
    if verdict.identities:
        # Type 1 with a hash of what identifies the platform: equal for equal platforms, and of no
        # use for finding one.
        digest = hashlib.sha256(b"anchorhold/1 ueid\0" + verdict.identities[0].encode()).digest()
        device["ueid"] = b64u(b"\x01" + digest)
    if verdict.kind in _MAKERS:
        device["oemid"] = _MAKERS[verdict.kind]
    product = said.get("product") or said.get("hwmodel")
    if isinstance(product, str) and product:
        device["hwmodel"] = b64u(product.encode())
    policy = said.get("policy_decoded")
    if said.get("debug", policy.get("debug") if isinstance(policy, dict) else None) is False:
        device["dbgstat"] = "disabled"
    return device


def _worker(verdict: AppraisedEvidence) -> dict[str, Any]:
    return {
        "anchorhold.kind": verdict.kind,
        "anchorhold.trust": verdict.trust,
        "anchorhold.measurement": verdict.measurement,
        "anchorhold.binding": f"sha256:{verdict.bh.hex()}",
        "cnf": _confirmation(verdict.binding),
    }


def _confirmation(binding: Binding) -> dict[str, Any]:
    """The keys the worker was bound to: its best encapsulation key as RFC 7800's `kid`, and all."""
    kids = {suite: b64u(kid) for suite, kid in sorted(binding.kids().items())}
    best = strongest(kids, allow_x25519=True)
    confirmation: dict[str, Any] = {"anchorhold.kids": kids}
    if best is not None:
        confirmation["kid"] = kids[best]
    return confirmation

"""The index's strict policy as rules of ours.

Schema `attestation-vectors/1` states its strict policy in sentences; each known one is met by the
rule of its area below. A sentence that is not known is reported by the caller, not ignored.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from attestation.members import Members
from wire.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.scheme import Scheme

_KNOWN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "all": (
            "evidence signature and certificate chain valid to the pinned vendor root at verify_at",
            "no part of the chain revoked by the supplied CRLs",
            "expected nonce / key binding in inputs holds",
            "debug disabled",
        ),
        "intel": (
            "TCB info and QE identity signed by Intel, within issueDate..nextUpdate, same FMSPC "
            "and PCEID, right TEE type",
            "converged TCB status is exactly UpToDate",
            "TDX: SEPT_VE_DISABLE set; PKS, PERFMON clear; MR_SERVICETD all zero",
        ),
        "amd": (
            "endorsement certificate TCB extensions equal REPORTED_TCB; VCEK hwID equals CHIP_ID",
            "PLATFORM_INFO.ALIAS_CHECK_COMPLETE set",
            "policy DEBUG clear",
        ),
        "nitro": (
            "leaf and every CA certificate valid at verify_at",
            "PCR0 not all zero",
        ),
        "nvidia": (
            "SPDM request nonce equals the expected nonce",
            "FWID in the report, when present, is one of the FWIDs in the leaf certificate",
        ),
        "jwt": (
            "alg in an allow list, never none; key found by kid in a key set obtained "
            "independently of the token; exp/nbf honoured; detached-EAT submodule digests match",
        ),
        "tpm": (
            "quote extraData equals a non-empty expected nonce; PCR digest equals hash of the "
            "listed PCR values",
        ),
        "composite": ("the GPU evidence is named by something the CPU evidence signs",),
    }
)
_INTEL: Final = {
    "tcb": {"statuses": ["UpToDate"]},
    "platform": {},
}
_NVIDIA: Final = {
    "models": "any",
    "vbios_in": "any",
    "rim": "not_checked",
    "ocsp": "not_checked",
    "unknown_fields": "accept",
}
_GPU: Final = {
    **_NVIDIA,
    "architectures": ["HOPPER", "BLACKWELL"],
    "driver_in": "any",
    "modes": "any",
}
_SNP: Final = {
    "products": ["Milan", "Genoa", "Turin"],
    "min_tcb": {"Milan": {}, "Genoa": {}, "Turin": {}},
    "image": "any",
    "signer": ["vcek", "vlek"],
    "csp_in": "any",
    "vmpl": {"max": 3},
    "migrate_ma": True,
    "smt": True,
    "cxl_allowed": True,
    "require": ["alias_check_complete"],
    "revocation": "as_supplied",
}
_TDX: Final = {
    **_INTEL,
    "td": {"migratable": True, "kl": True, "xfam_allow_mask": "ff" * 8},
    "image": "any",
}
_AZURE: Final[Mapping[str, Any]] = {"pcrs": {}, "vm_configuration": {}}
# Whatever the strict policy does not speak of is allowed here by its name.
_RULES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "amd-sev-snp-report": _SNP,
        "azure-vtpm-snp": {**_SNP, **_AZURE},
        "azure-vtpm-tdx": {**_TDX, **_AZURE},
        "intel-tdx-quote": _TDX,
        "intel-sgx-quote": {**_INTEL, "enclave": "any"},
        "aws-nitro-document": {"image": "any", "max_age_s": "any"},
        "nvidia-gpu-spdm": _GPU,
        "nvidia-gpu-spdm-list": {
            **_GPU,
            "architectures": ["HOPPER", "BLACKWELL", "LS10"],
            "count": "any",
        },
        "nvidia-nvswitch-spdm": {**_NVIDIA, "architectures": ["LS10"]},
        "tpm2-quote": {"pcrs": {}, "aks": "as_supplied", "revocation": "as_supplied"},
        "nvidia-nras-eat": dict.fromkeys(("results", "audience"), "as_supplied"),
        "ear-jwt": dict.fromkeys(
            ("keys", "expiry", "status", "profiles", "audience"), "as_supplied"
        ),
        "corim": {"signed": "any", "profiles": "any"},
        "cc-event-log": {"events": {}, "unchecked": [0, 1, 2, 3]},
        "tcg-event-log": {"events": {}, "unchecked": list(range(24))},
    }
)
# What a sample demands besides that has no time of its verdict.
_UNTIMED: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {"corim": {"validity": "ignored"}}
)


def strict_rule(scheme: Scheme, *, timed: bool = True) -> Any:
    """What the kind's `judge` demands under the strict policy.

    Args:
        scheme: of the kind.
        timed: whether time plays a part.

    Raises:
        PolicyError: this version's own table does not fit its rule: a defect.
    """
    required, optional = scheme.rule_keys
    untimed = {} if timed else _UNTIMED.get(scheme.kind, {})
    members = Members(
        {**_RULES.get(scheme.kind, {}), **untimed},
        f"strict rule of {scheme.kind}",
        required=required,
        optional=optional,
        error=PolicyError,
    )
    return scheme.rule(members)


def unknown_sentences(policy: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The sentences of an index's strict policy that no rule here stands for."""
    return [
        f"{area}: {sentence}"
        for area, sentences in policy.items()
        for sentence in sentences
        if sentence not in _KNOWN.get(area, ())
    ]

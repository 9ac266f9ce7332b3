"""What a person may do about a refusal, where the refusal itself does not say."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.errors import (
    AnchorholdError,
    AttestationError,
    BelowPolicyError,
    ConfigError,
    DirectoryError,
    GatewayError,
    MalformedError,
    PolicyError,
    PolicyExpiredError,
    ReceiptError,
    StaleDirectoryError,
    UnavailableError,
    WorkerNotice,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_NEXT: Final[Mapping[type, str]] = MappingProxyType(
    {
        AnchorholdError: "ask again; if it goes on, tell whoever runs the deployment",
        MalformedError: "get it again from where it was made: it is another thing, or damaged",
        AttestationError: "send nothing to that worker until its operator has mended it",
        DirectoryError: "send nothing to this deployment until its operator has explained it",
        StaleDirectoryError: "ask again later; if it stays, tell whoever runs the deployment",
        PolicyError: "correct the policy: docs/operate/policies.md lists its members",
        PolicyExpiredError: "get a policy that is in force from whoever issues it",
        BelowPolicyError: "it is genuine: another deployment, or another policy, may do",
        ReceiptError: "rely on nothing in it, and keep it: it shows what somebody gave you",
        GatewayError: "these are the gateway's own words: ask whoever runs it",
        WorkerNotice: "these are the worker's own words: ask again later",
        ConfigError: "the same command with --help lists what it takes",
        UnavailableError: "see that the address is right and something answers, and ask again",
    }
)


def hint_of(error: AnchorholdError) -> str:
    """What to do next: the error's own hint, or what helps against its kind."""
    return error.hint or next(_NEXT[kind] for kind in type(error).__mro__ if kind in _NEXT)

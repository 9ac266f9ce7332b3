"""What a sample's inputs state outright: the nonce, the architecture, and claims by their names.

An input that the binding rule names is the rule's; every other nonce and every `expected_` claim
must stand in the evidence. An input that nothing uses is told (`unread`), since whoever wrote it
meant something by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.examined import Expected
from wire.errors import MalformedError

from .binding_rule import EXPECTED, PADDED, TLS_INPUT, data_of, inputs_of, rule_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from .index import Sample

NONCE_NAMES: Final = ("expected_nonce_hex", "expected_nonce", "nonce_hex", "nonce")
# Claims that may be given without "expected_" where no rule stands beside them.
BARE_CLAIMS: Final = ("report_data", "user_data", "host_data", "public_key", "extra_data")
# What tokens call the claims that an input may name in words; such an input may stand bare too.
TOKEN_CLAIMS: Final = {"audience": "aud", "issuer": "iss"}
TOKEN_KINDS: Final = ("ear-jwt", "nvidia-nras-eat")
_TOKEN_NAMES: Final = (*TOKEN_CLAIMS, *TOKEN_CLAIMS.values())

_NOT_CLAIMS: Final = frozenset({*NONCE_NAMES, "expected_arch", "arch", "binding", TLS_INPUT})


@dataclass(frozen=True, slots=True)
class StatedClaim:
    """A claim that an input gives by its name.

    Attributes:
        claim: its name, as the input gives it.
        value: as the input gives it; texts compare without case, as hex does, but for names of an
            issuer or an audience, which are exact. One of several audiences suffices.
    """

    claim: str
    value: object

    @property
    def code(self) -> str:
        """The reason to give where it does not hold."""
        words = {claim: word for word, claim in TOKEN_CLAIMS.items()}
        word = words.get(self.claim, self.claim)
        return f"{word}_mismatch" if word in TOKEN_CLAIMS else "nonce_mismatch"

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Whether the evidence claims it."""
        found, value = claims.get(TOKEN_CLAIMS.get(self.claim, self.claim)), self.value
        if self.code != "nonce_mismatch" and isinstance(value, str):
            return value == found or (isinstance(found, list) and value in found)
        if isinstance(found, str) and isinstance(value, str):
            return found.casefold() == value.casefold().ljust(2 * PADDED.get(self.claim, 0), "0")
        return found is not None and type(found) is type(value) and found == value


def expected_of(sample: Sample) -> Expected:
    """What the evidence must have been made for, besides its binding rule.

    Raises:
        MalformedError: an input of another type than its name says.
    """
    used = inputs_of(sample)
    nonces = {key: data_of(sample, key) for key in NONCE_NAMES if sample.inputs.get(key)}
    # One that the rule uses is asked for there, under whatever name it is given again.
    asked = set(nonces.values()) - {nonces[key] for key in nonces if key in used}
    if len(asked) > 1:
        raise MalformedError(f"sample {sample.id}: found two nonces, expected one")
    arch = sample.inputs.get("arch")
    if arch is not None and not isinstance(arch, str):
        raise MalformedError(f"sample {sample.id}: expected a text as arch")
    return Expected(nonce=min(asked, default=None), arch=None if arch is None else arch.upper())


def claims_of(sample: Sample, elsewhere: AbstractSet[str]) -> tuple[StatedClaim, ...]:
    """The claims that the inputs state.

    Args:
        sample: the sample.
        elsewhere: names that speak of something else than the evidence's claims.
    """
    used, ruled = inputs_of(sample), rule_of(sample) is not None
    named = _TOKEN_NAMES if sample.kind in TOKEN_KINDS else ()
    return tuple(
        StatedClaim(name, value)
        for key, value in sample.inputs.items()
        for name in (name_of(key),)
        if key.startswith(EXPECTED) or (name in BARE_CLAIMS and not ruled) or name in named
        if value is not None and key not in _NOT_CLAIMS and key not in used
        if name not in elsewhere
    )


def name_of(key: str) -> str:
    """What an input is about, by its name."""
    return key.removesuffix("_hex").removeprefix(EXPECTED)


def unread(sample: Sample, elsewhere: AbstractSet[str]) -> tuple[str, ...]:
    """The inputs that no step uses."""
    stated = {item.claim for item in claims_of(sample, elsewhere)}
    read = inputs_of(sample) | {*NONCE_NAMES, "arch", "binding"}
    return tuple(
        key
        for key, value in sorted(sample.inputs.items())
        if value is not None and key not in read and name_of(key) not in stated | elsewhere
    )

"""What a sample's inputs state outright: the nonce, the architecture, and claims by their names.

An input that the binding rule names is the rule's; every other nonce, every `expected_` claim and
every input with the name of a claim that the evidence makes must stand in the evidence. What it was
made for, stated but empty, is an expectation that nothing meets; null is none. An input that
nothing uses is told (`unread`), since whoever wrote it meant something by it, and is a fault where
its name says that something is expected (`unasked`) or that it is a key (`unbound`): a binding that
is not checked is a check that did not run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.examined import Expected
from wire.errors import MalformedError

from .binding_rule import (
    EXPECTED,
    INPUT_MAX,
    PADDED,
    TLS_INPUT,
    bare,
    data_of,
    inputs_of,
    rule_of,
)
from .differences import differences
from .pairing import GPU_KINDS, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from .index import Sample

NONCE_NAMES: Final = ("expected_nonce_hex", "expected_nonce", "nonce_hex", "nonce")
ARCH_NAMES: Final = ("expected_arch", "arch")
ARCH_KINDS: Final = (*GPU_KINDS, "ear-jwt")  # the last says itself that it has none
# Claims that may be given without "expected_" where no rule stands beside them.
BARE_CLAIMS: Final = ("report_data", "user_data", "host_data", "public_key", "extra_data")
# What tokens call the claims that an input may name in words; such an input may stand bare too.
TOKEN_CLAIMS: Final = {"audience": "aud", "issuer": "iss"}
TOKEN_KINDS: Final = ("ear-jwt", "nvidia-nras-eat")
_TOKEN_NAMES: Final = (*TOKEN_CLAIMS, *TOKEN_CLAIMS.values())

_NOT_CLAIMS: Final = frozenset({*NONCE_NAMES, *ARCH_NAMES, "binding", TLS_INPUT})
_EXPECTS: Final = re.compile(r"^expected|nonce|challenge|qualifying", re.IGNORECASE)
_KEY_WORDS: Final = frozenset({"key", "keys", "public", "pubkey", "pubkeys", "spki"})
_CERTIFICATE_WORDS: Final = frozenset({"certificate", "cert"})  # of "tls", which has a key
# What is about such a value, and is none.
_ABOUT: Final = frozenset(
    {"note", "notes", "source", "encoding", "format", "length", "len", "size", "description"}
    | {"comment", "algorithm", "alg", "curve", "type", "usage", "url", "uri"}
)
# What a name ends in that says which key is meant; at its beginning, it says whose it is.
_LABEL: Final = re.compile(r"(?:[_\W](?i:id|kid|name)|Id|ID|Kid|Name)(?:_hex)?$")
# Its digest says that too, but for a key of "tls": a connection's key is what evidence is made for.
_DIGEST_WORDS: Final = frozenset({"sha", "hash", "digest", "fingerprint", "thumbprint"})
# Claims that say for whom or what evidence was made; every other one says what it was made of.
_MADE_FOR: Final = re.compile(
    r"nonce|challenge|qualifying|(?:report|user|host|extra)_data|public|pubkey|spki", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class StatedClaim:
    """A claim that an input gives by its name.

    Attributes:
        claim: its name, as the input gives it.
        value: as the input gives it; texts compare without case, as hex does, but for names of an
            issuer or an audience, which are exact. One of several audiences suffices. Of an object
            only the members that it has are compared, but an empty one is an empty one. What
            evidence was made for holds nowhere if it is empty.
    """

    claim: str
    value: object

    @property
    def code(self) -> str:
        """The reason to give where it does not hold."""
        words = {claim: word for word, claim in TOKEN_CLAIMS.items()}
        word = words.get(self.claim, self.claim)
        if word in TOKEN_CLAIMS:
            return f"{word}_mismatch"
        return "nonce_mismatch" if _MADE_FOR.search(self.claim) else "claim_mismatch"

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Whether the evidence claims it."""
        found, value = claims.get(TOKEN_CLAIMS.get(self.claim, self.claim)), self.value
        if found is None or _answers_nobody(self.claim, value):
            return False
        if self.claim in _TOKEN_NAMES:
            return value == found or (isinstance(found, list) and value in found)
        if isinstance(value, str) and self.claim in PADDED:
            value = bare(value).ljust(2 * PADDED[self.claim], "0")
        return _empties_alike(value, found) and not differences(value, found, self.claim, _alike)


def _answers_nobody(name: str, value: object) -> bool:
    """Whether something is empty that says for whom or what evidence is made: nothing meets it."""
    rest = [(value, name in _TOKEN_NAMES or bool(_MADE_FOR.search(name)))]
    while rest:
        item, made_for = rest.pop()
        empty = isinstance(item, str | list | dict) and item in ("", "0x", "0X", [], {})
        if made_for and empty:
            return True
        if isinstance(item, dict):
            rest += [(one, made_for or bool(_MADE_FOR.search(key))) for key, one in item.items()]
        elif isinstance(item, list):
            rest += [(one, made_for) for one in item]
    return False


def _empties_alike(value: object, found: object) -> bool:
    """Whether objects without members are such in the evidence too: none of theirs is compared."""
    rest = [(value, found)]
    while rest:
        item, other = rest.pop()
        if item == {} and other != {}:
            return False
        if isinstance(item, dict) and hasattr(other, "get"):
            rest += [(one, other.get(key)) for key, one in item.items()]
        elif isinstance(item, list) and isinstance(other, list | tuple):
            rest += zip(item, other, strict=False)
    return True


def _alike(value: object, found: object) -> bool:
    """Whether two values are one: texts without case, hex with or without its mark."""
    if isinstance(value, str) and isinstance(found, str):
        return found.casefold() in (value.casefold(), bare(value).casefold())
    return type(found) is type(value) and found == value


def expected_of(sample: Sample) -> Expected:
    """What the evidence must have been made for, besides its binding rule; an empty nonce is b"".

    Raises:
        MalformedError: an input of another type than its name says, or two that differ.
    """
    used, inputs = inputs_of(sample), sample.inputs
    nonces = {key: _nonce_of(sample, key) for key in NONCE_NAMES if inputs.get(key) is not None}
    # One that the rule uses is asked for there, under whatever name it is given again.
    asked = set(nonces.values()) - {nonces[key] for key in nonces if key in used}
    if len(asked) > 1:
        raise MalformedError(f"sample {sample.id}: found two nonces, expected one")
    archs = set()
    for key in ARCH_NAMES:
        arch = inputs.get(key)
        if isinstance(arch, str):
            archs.add(arch.upper())
        elif arch is not None:
            raise MalformedError(f"sample {sample.id}: expected a text as {key}")
    if len(archs) > 1:
        raise MalformedError(f"sample {sample.id}: found two architectures, expected one")
    return Expected(nonce=next(iter(asked), None), arch=next(iter(archs), None))


def spelled_nonces(sample: Sample) -> list[bytes]:
    """What tokens may carry as well: the nonces that are asked for, as the inputs write them."""
    if sample.kind not in TOKEN_KINDS:
        return []
    used = inputs_of(sample)
    texts = (sample.inputs.get(key) for key in NONCE_NAMES if key not in used)
    return [text.encode() for text in texts if isinstance(text, str) and bare(text).strip()]


def _nonce_of(sample: Sample, key: str) -> bytes:
    """A nonce in hex; what is none is the text itself where tokens carry texts.

    Raises:
        MalformedError: it is none.
    """
    value = sample.inputs.get(key)
    if sample.kind in TOKEN_KINDS and isinstance(value, str) and not key.endswith("_hex"):
        try:
            return data_of(sample, key)
        except MalformedError:
            if len(value) <= INPUT_MAX:
                return value.encode()
    return data_of(sample, key)


def claims_of(
    sample: Sample, elsewhere: AbstractSet[str], claims: AbstractSet[str] = frozenset()
) -> tuple[StatedClaim, ...]:
    """The claims that the inputs state.

    Args:
        sample: the sample.
        elsewhere: names that speak of something else than the evidence's claims.
        claims: those that the evidence makes; an input with the name of one states it.
    """
    used, ruled = inputs_of(sample), rule_of(sample) is not None
    named = {*claims, *(_TOKEN_NAMES if sample.kind in TOKEN_KINDS else ())}
    return tuple(
        StatedClaim(name, value)
        for key, value in sample.inputs.items()
        for name in (name_of(key),)
        if key.startswith(EXPECTED) or (name in BARE_CLAIMS and not ruled) or name in named
        if value is not None and key not in _NOT_CLAIMS and key not in used
        if name not in elsewhere
    )


def gpu_nonces(sample: Sample, roles: Iterable[str]) -> dict[str, bytes]:
    """The nonces that inputs state for evidence of GPUs beside a CPU's, by role.

    Raises:
        MalformedError: one that is no hex, or two that differ for one role.
    """
    used, found = inputs_of(sample), dict[str, bytes]()
    for role in roles:
        for key in sorted(sample.inputs):
            if sample.inputs[key] is None or key in used or name_of(key) not in nonce_names(role):
                continue
            value = data_of(sample, key)
            if found.setdefault(role, value) != value:
                raise MalformedError(f"sample {sample.id}: found two nonces, expected one")
    return found


def nonce_names(role: str) -> set[str]:
    """What an input may be called that states the nonce of the GPUs' evidence under a role."""
    return {f"{word}_nonce" for word in ("gpu", "nvidia", role, role.removesuffix("_evidence"))}


def name_of(key: str) -> str:
    """What an input is about, by its name."""
    return key.removesuffix("_hex").removeprefix(EXPECTED)


def unread(
    sample: Sample, elsewhere: AbstractSet[str], claims: AbstractSet[str] = frozenset()
) -> tuple[str, ...]:
    """The inputs that no step uses."""
    stated = {item.claim for item in claims_of(sample, elsewhere, claims)}
    read = inputs_of(sample) | {*NONCE_NAMES, "binding"}
    if sample.kind in ARCH_KINDS or elsewhere >= {*ARCH_NAMES}:
        read |= {*ARCH_NAMES}
    return tuple(
        key
        for key, value in sorted(sample.inputs.items())
        if value is not None and key not in read
        if key in ARCH_NAMES or name_of(key) not in stated | elsewhere
    )


def unasked(
    sample: Sample, elsewhere: AbstractSet[str], claims: AbstractSet[str] = frozenset()
) -> tuple[str, ...]:
    """Those of them whose names say that the evidence should answer to them."""
    return tuple(
        key
        for key in unread(sample, elsewhere, claims)
        if key in ARCH_NAMES or (_EXPECTS.search(key) and not _ABOUT & words_of(key))
    )


def unbound(
    sample: Sample, elsewhere: AbstractSet[str], claims: AbstractSet[str] = frozenset()
) -> tuple[str, ...]:
    """Others whose names say that they are keys: the evidence should vouch for them, somewhere."""
    asked = unasked(sample, elsewhere, claims)
    return tuple(
        key
        for key in unread(sample, elsewhere, claims)
        if key not in asked and isinstance(sample.inputs[key], str | list | dict)
        if _is_key(words_of(key)) and not _ABOUT & words_of(key) and not _tells_which(key)
    )


def _is_key(words: AbstractSet[str]) -> bool:
    return bool(_KEY_WORDS & words) or ("tls" in words and bool(_CERTIFICATE_WORDS & words))


def _tells_which(key: str) -> bool:
    words = words_of(key)
    return bool(_LABEL.search(key)) or ("tls" not in words and bool(_DIGEST_WORDS & words))

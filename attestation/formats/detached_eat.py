"""NVIDIA's detached EAT bundle (RFC 9711 §4.3): one overall token, and one token a device.

    bundle = [["JWT", overall], {device: token, ...}]

NVIDIA's command line wraps it as the member `detached_eat` of an object whose other members are
unsigned copies; those are not read. The overall token names each device token by the SHA-256 of its
compact form: `submods[device] = ["DIGEST", ["SHA-256", hex]]`.

NVIDIA's Python SDK hands out one bundle for each verifier it asked, in a wrapper of its own:

    wrapped = [["JWT", wrapper], {verifier: bundle, ...}]        verifier = "REMOTE_GPU_CLAIMS", …

The wrapper's key stands in the SDK's source. It is nobody's word: nothing verifies it, and nothing
that it states, nonce and result among it, is believed. A verifier's name is as little signed, and
says nothing either. What is in no bundle is short, so that no device is passed over in it.

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from wire.canonical import parse_strict
from wire.errors import MalformedError

from .jose import DEPTH_MAX, Token, parse_token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BUNDLE_MAX: Final = 196_608  # 32 device tokens of 4 KiB; reading JSON takes up to 0.1 ms a KiB
DEVICES_MAX: Final = 32  # a board has 8 GPUs and 4 switches; each costs one signature check
BUNDLES_MAX: Final = 4  # GPUs and switches, remotely and locally; each costs one more
WRAPPER_MAX: Final = 1_024  # the SDK's takes 300 bytes, the shortest report of a device 2168

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_VERIFIER = re.compile(r"[A-Z][A-Z0-9_]{0,56}_CLAIMS")
_HEX = re.compile(r"[0-9a-f]{64}")
_SHA256 = ("SHA-256", "SHA256")  # the remote service's spelling, and the local verifier's


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verifier answered to one request: a parsed, unverified bundle.

    Attributes:
        overall: the token about the request as a whole.
        devices: device name to its own token.
        digests: device name to the digest the overall token names, 64 hex digits.
    """

    overall: Token
    devices: Mapping[str, Token]
    digests: Mapping[str, str]

    def digests_match(self) -> bool:
        """Whether the overall token names exactly these device tokens, byte for byte."""
        found = {
            name: hashlib.sha256(token.compact.encode("ascii")).hexdigest()
            for name, token in self.devices.items()
        }
        return bool(found) and found == dict(self.digests)


@dataclass(frozen=True, slots=True)
class DetachedEat:
    """All answers in one piece of evidence, none of them verified.

    Attributes:
        answers: verifier to its answer, at least one; a bundle without wrapper has the name "".
        wrapper: the token around several, which proves nothing; None without.
    """

    answers: Mapping[str, Answer]
    wrapper: Token | None = None

    @property
    def overalls(self) -> tuple[Token, ...]:
        """The token about each request as a whole."""
        return tuple(answer.overall for answer in self.answers.values())

    @property
    def devices(self) -> Mapping[str, Token]:
        """Every device of every answer; VERIFIER/NAME where two have one name."""
        times = Counter(name for answer in self.answers.values() for name in answer.devices)
        # No name has a "/": none takes another one's place.
        return {
            name if times[name] == 1 else f"{verifier}/{name}": token
            for verifier, answer in self.answers.items()
            for name, token in answer.devices.items()
        }

    @property
    def tokens(self) -> tuple[tuple[str, Token], ...]:
        """Every token with its name, but the wrapper; overall ones first, called "overall"."""
        return (*(("overall", token) for token in self.overalls), *self.devices.items())

    def digests_match(self) -> bool:
        """Whether each overall token names exactly its own device tokens, byte for byte."""
        return all(answer.digests_match() for answer in self.answers.values())

    def claims(self) -> dict[str, Any]:
        """All that is claimed: what all overall tokens say alike, `devices`, and theirs alike.

        `wrapper` says who claims to have made the wrapper, where there is one.
        """
        overalls, devices = self.overalls, self.devices
        claims: dict[str, Any] = _alike(overalls)
        claims["submods_digest_match"] = self.digests_match()
        claims["devices"] = {name: dict(token.claims) for name, token in devices.items()}
        if self.wrapper is not None:
            claims["wrapper"] = {"alg": self.wrapper.alg, "iss": self.wrapper.claims.get("iss")}
        for name, value in _alike(list(devices.values())).items():
            # What overall tokens say in two ways, no device says for them.
            if not any(name in token.claims for token in overalls):
                claims.setdefault(name, value)
        for name, values in (
            ("alg", {token.alg for token in overalls}),
            ("kid", {token.kid for token in overalls}),
        ):
            if len(values) == 1:
                claims.setdefault(name, *values)
        return claims


def parse_bundle(raw: bytes) -> DetachedEat:
    """The bundle in `raw`, or all bundles in a wrapper.

    Raises:
        MalformedError: not a form above, too many bundles or devices, a wrapper that says more than
            whose it is, or a token that does not parse.
    """
    obj = parse_strict(raw, max_depth=DEPTH_MAX, max_bytes=BUNDLE_MAX)
    if isinstance(obj, dict):
        obj = obj.get("detached_eat")
    head, detached = _pair(obj)
    if not any(isinstance(value, list) for value in detached.values()):
        return DetachedEat(MappingProxyType({"": _answer(head, detached)}))
    if len(detached) > BUNDLES_MAX:
        raise MalformedError(f"detached EAT: expected at most {BUNDLES_MAX} bundles")
    if not all(_VERIFIER.fullmatch(name) for name in detached):
        raise MalformedError("detached EAT: a bundle's name is not that of a verifier's claims")
    # A token beside bundles is none, and stands for a device that no overall token names.
    pairs = {name: _pair(value) for name, value in detached.items()}
    if sum(len(devices) for _, devices in pairs.values()) > DEVICES_MAX:
        raise MalformedError(f"detached EAT: expected at most {DEVICES_MAX} devices")
    wrapper = _wrapper(head)
    answers = {name: _answer(*pair) for name, pair in pairs.items()}
    return DetachedEat(MappingProxyType(answers), wrapper)


def _pair(value: object) -> tuple[object, dict[str, Any]]:
    """The first token of a bundle, or of a wrapper, and what is detached from it."""
    if not isinstance(value, list) or len(value) != 2:
        raise MalformedError("detached EAT: expected an array of two items")
    head, detached = value
    if not isinstance(head, list) or len(head) != 2 or head[0] != "JWT":
        raise MalformedError('detached EAT: expected ["JWT", token] first')
    if not isinstance(detached, dict) or len(detached) > DEVICES_MAX:
        raise MalformedError(f"detached EAT: expected an object of at most {DEVICES_MAX} devices")
    return head[1], detached


def _wrapper(value: object) -> Token:
    if isinstance(value, str) and len(value) > WRAPPER_MAX:
        raise MalformedError(f"detached EAT: expected a wrapper of at most {WRAPPER_MAX} bytes")
    wrapper = _token(value)
    if "submods" in wrapper.claims:
        # An overall token, whose own devices are not here.
        raise MalformedError("detached EAT: the wrapper names submodules, expected none")
    return wrapper


def _answer(head: object, detached: dict[str, Any]) -> Answer:
    overall = _token(head)
    for name in detached:
        if _NAME.fullmatch(name) is None:
            raise MalformedError("detached EAT: a device's name is not [A-Za-z0-9_.-]{1,64}")
    devices = {name: _token(token) for name, token in detached.items()}
    digests = _digests(overall.claims.get("submods"))
    return Answer(overall, MappingProxyType(devices), MappingProxyType(digests))


def _token(value: object) -> Token:
    if not isinstance(value, str) or not value.isascii():
        raise MalformedError("detached EAT: expected a compact token")
    return parse_token(value.encode("ascii"))


def _digests(submods: object) -> dict[str, str]:
    if not isinstance(submods, dict) or len(submods) > DEVICES_MAX:
        raise MalformedError(f"submods: expected an object of at most {DEVICES_MAX} devices")
    return {name: _digest(value) for name, value in submods.items()}


def _digest(value: object) -> str:
    if isinstance(value, list) and len(value) == 2 and value[0] == "DIGEST":
        inner = value[1]
        if isinstance(inner, list) and len(inner) == 2 and inner[0] in _SHA256:
            digest = inner[1]
            if isinstance(digest, str) and _HEX.fullmatch(digest) is not None:
                return digest
    raise MalformedError('submods: expected ["DIGEST", ["SHA-256", 64 hex digits]] for each device')


def _alike(tokens: Sequence[Token]) -> dict[str, Any]:
    if not tokens:
        return {}
    first = tokens[0].claims
    return {
        name: value
        for name, value in first.items()
        if all(name in token.claims and token.claims[name] == value for token in tokens[1:])
    }

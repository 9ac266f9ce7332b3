"""NVIDIA's detached EAT bundle (RFC 9711 §4.3): one overall token, and one token a device.

    bundle = [["JWT", overall], {device: token, ...}]

NVIDIA's command line wraps it as the member `detached_eat` of an object whose other members are
unsigned copies; those are not read. The overall token names each device token by the SHA-256 of its
compact form: `submods[device] = ["DIGEST", ["SHA-256", hex]]`.

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from wire.canonical import parse_strict
from wire.errors import MalformedError

from .jose import DEPTH_MAX, Token, parse_token

if TYPE_CHECKING:
    from collections.abc import Mapping

BUNDLE_MAX: Final = 196_608  # 32 device tokens of 4 KiB; reading JSON takes up to 0.1 ms a KiB
DEVICES_MAX: Final = 32  # a board has 8 GPUs and 4 switches; each costs one signature check

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HEX = re.compile(r"[0-9a-f]{64}")
_SHA256 = ("SHA-256", "SHA256")  # the remote service's spelling, and the local verifier's


@dataclass(frozen=True, slots=True)
class DetachedEat:
    """A parsed, unverified bundle.

    Attributes:
        overall: the token about the request as a whole.
        devices: device name to its own token.
        digests: device name to the digest the overall token names, 64 hex digits.
    """

    overall: Token
    devices: Mapping[str, Token]
    digests: Mapping[str, str]

    @property
    def tokens(self) -> tuple[tuple[str, Token], ...]:
        """Every token with its name; the overall one first, called "overall"."""
        return (("overall", self.overall), *self.devices.items())

    def digests_match(self) -> bool:
        """Whether the overall token names exactly these device tokens, byte for byte."""
        found = {
            name: hashlib.sha256(token.compact.encode("ascii")).hexdigest()
            for name, token in self.devices.items()
        }
        return bool(found) and found == dict(self.digests)

    def claims(self) -> dict[str, Any]:
        """All that is claimed: the overall claims, `devices`, and what all devices say alike."""
        claims: dict[str, Any] = dict(self.overall.claims)
        claims["submods_digest_match"] = self.digests_match()
        claims["devices"] = {name: dict(token.claims) for name, token in self.devices.items()}
        for name, value in _alike(list(self.devices.values())).items():
            claims.setdefault(name, value)
        claims.setdefault("alg", self.overall.alg)
        claims.setdefault("kid", self.overall.kid)
        return claims


def parse_bundle(raw: bytes) -> DetachedEat:
    """The bundle in `raw`.

    Raises:
        MalformedError: not the form above, too many devices, or a token that does not parse.
    """
    obj = parse_strict(raw, max_depth=DEPTH_MAX, max_bytes=BUNDLE_MAX)
    if isinstance(obj, dict):
        obj = obj.get("detached_eat")
    if not isinstance(obj, list) or len(obj) != 2:
        raise MalformedError("detached EAT: expected an array of two items")
    head, detached = obj
    if not isinstance(head, list) or len(head) != 2 or head[0] != "JWT":
        raise MalformedError('detached EAT: expected ["JWT", token] first')
    if not isinstance(detached, dict) or len(detached) > DEVICES_MAX:
        raise MalformedError(f"detached EAT: expected an object of at most {DEVICES_MAX} devices")
    overall = _token(head[1])
    for name in detached:
        if _NAME.fullmatch(name) is None:
            raise MalformedError("detached EAT: a device's name is not [A-Za-z0-9_.-]{1,64}")
    devices = {name: _token(token) for name, token in detached.items()}
    digests = _digests(overall.claims.get("submods"))
    return DetachedEat(overall, MappingProxyType(devices), MappingProxyType(digests))


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


def _alike(tokens: list[Token]) -> dict[str, Any]:
    if not tokens:
        return {}
    first = tokens[0].claims
    return {
        name: value
        for name, value in first.items()
        if all(name in token.claims and token.claims[name] == value for token in tokens[1:])
    }

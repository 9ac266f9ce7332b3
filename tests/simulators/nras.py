"""NVIDIA's remote attestation service, simulated: detached EATs and the key set that verifies them.

    service = NrasService()
    bundle = service.bundle(nonce=bytes(32))       # bytes, as the service's HTTP body
    keys = service.jwks()                          # as its /.well-known/jwks.json

Tokens and key sets have the members, spellings and algorithms of the real service (ES384, no `typ`,
`kid` in every header, `x5c` of leaf and intermediate in every key, claims of version 2.0 or 3.0).
Only the keys differ: a verifier that pins nothing but the key set accepts it, so give it this one
out of band and nowhere else. To change one fact, change `overall`, `devices` or `headers` first;
`digests` may name other tokens than the ones given. `sdk_token` wraps bundles as the SDK does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

from simulators.tokens import Authority, Issuer, segment

from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Mapping

ISSUER = "https://nras.attestation.nvidia.com"
NOW = 1_790_000_000
LIFE_S = 3_600
DAY_S = 24 * 3_600

_GPU_CHECKS = (
    "arch-check",
    "attestation-report-parsed",
    "attestation-report-nonce-match",
    "attestation-report-signature-verified",
    "driver-rim-fetched",
    "driver-rim-schema-validated",
    "driver-rim-signature-verified",
    "driver-rim-measurements-available",
    "vbios-rim-fetched",
    "vbios-rim-schema-validated",
    "vbios-rim-signature-verified",
    "vbios-rim-measurements-available",
    "vbios-index-no-conflict",
)
_SWITCH_CHECKS = (
    "arch-check",
    "attestation-report-parsed",
    "attestation-report-nonce-match",
    "attestation-report-signature-verified",
    "bios-rim-fetched",
    "bios-rim-signature-verified",
    "bios-rim-measurements-available",
)
_CHAIN = {
    "x-nvidia-cert-status": "valid",
    "x-nvidia-cert-ocsp-status": "good",
    "x-nvidia-cert-expiration-date": "9999-12-31T23:59:59Z",
    "x-nvidia-cert-revocation-reason": None,
}


def gpu_claims(index: int = 0, version: str = "3.0") -> dict[str, Any]:
    """What the service says of a good GPU, times and nonce aside."""
    prefix = "x-nvidia-gpu-"
    claims: dict[str, Any] = {
        "ueid": str(478_176_379_286_082_186_618_948_445_787 + index),
        "oemid": "5703",
        "hwmodel": "GH100 A01 GSP BROM",
        "dbgstat": "disabled",
        "secboot": True,
        "measres": "success",
        "x-nvidia-gpu-driver-version": "595.71.05",
        "x-nvidia-gpu-vbios-version": "96.00.D9.00.02",
        "x-nvidia-attestation-warning": None,
        **{prefix + name: True for name in _GPU_CHECKS},
    }
    for part in ("attestation-report", "driver-rim", "vbios-rim"):
        if version == "3.0":
            claims[f"{prefix}{part}-cert-chain"] = dict(_CHAIN)
        else:
            kind = "cert-chain" if part == "attestation-report" else "cert"
            claims[f"{prefix}{part}-{kind}-validated"] = True
    return claims


def switch_claims(index: int = 0) -> dict[str, Any]:
    """What the service says of a good NVSwitch, times and nonce aside."""
    prefix = "x-nvidia-switch-"
    return {
        "ueid": str(900_000_000_000 + index),
        "oemid": "5703",
        "hwmodel": "LS_10 A01 FSP BROM",
        "dbgstat": "disabled",
        "secboot": True,
        "measres": "success",
        "x-nvidia-device-type": "nvswitch",
        "x-nvidia-switch-bios-version": "96.10.55.00.01",
        **{prefix + name: True for name in _SWITCH_CHECKS},
        f"{prefix}attestation-report-cert-chain": dict(_CHAIN),
        f"{prefix}bios-rim-cert-chain": dict(_CHAIN),
    }


def sdk_token(bundles: Mapping[str, bytes], **claims: Any) -> bytes:
    """Bundles as NVIDIA's Python SDK hands them out, under its verifiers' names.

    Args:
        bundles: such as {"REMOTE_GPU_CLAIMS": service.bundle(nonce)}.
        claims: of the wrapper that differ. Its key is in the SDK's source: anybody makes one.
    """
    stated = {"iss": "NV-Attestation-SDK", "iat": NOW, "exp": NOW + LIFE_S, "nbf": NOW - 120}
    stated |= {"jti": "8f6c2a1e-6f0d-4f0c-9a55-0c2b7e0c6a11", **claims}
    head = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{segment(stated)}"
    signature = hmac.new(b"notasecret", head.encode(), hashlib.sha256).digest()
    detached = {name: json.loads(bundle) for name, bundle in bundles.items()}
    return json.dumps([["JWT", f"{head}.{b64u(signature)}"], detached]).encode()


class NrasService:
    """The service, honest until a test changes one fact.

    Attributes:
        now: when its tokens are made.
        issuer: the signing key.
        overall: overall claims that differ; a value None removes the claim.
        devices: device name to the claims it states.
        device_claims: claims of every device token that differ, likewise.
        header: header members that differ.
        digests: digests in `submods` that differ from the tokens given.
    """

    def __init__(self, devices: int = 1, now: int = NOW, version: str = "3.0") -> None:
        self.now = now
        self.version = version
        self.issuer = Issuer("ES384", "nv-eat-kid-sim-20260921000000000")
        self.authority = Authority()
        self.overall: dict[str, Any] = {}
        self.devices = {f"GPU-{i}": gpu_claims(i, version) for i in range(devices)}
        self.device_claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.digests: dict[str, str] = {}

    def jwks(self, *others: dict[str, Any]) -> bytes:
        """The key set: this service's key with its two-day certificate, and any others."""
        chain = [self.authority.issue(self.issuer, self.now - DAY_S, self.now + DAY_S)]
        chain.append(self.authority.der())
        return self.issuer.jwks(*others, x5c=[base64.b64encode(der).decode() for der in chain])

    def device_tokens(self, nonce: bytes) -> dict[str, str]:
        """The signed token of each device."""
        return {
            name: self.sign({**self._common(nonce), **claims, **self.device_claims})
            for name, claims in self.devices.items()
        }

    def overall_token(self, nonce: bytes, tokens: dict[str, str]) -> str:
        """The signed token about the request, naming the given device tokens."""
        digests = {
            name: hashlib.sha256(token.encode()).hexdigest() for name, token in tokens.items()
        }
        submods = {
            name: ["DIGEST", ["SHA-256", digest]]
            for name, digest in {**digests, **self.digests}.items()
        }
        claims = {
            "sub": "NVIDIA-PLATFORM-ATTESTATION",
            "x-nvidia-ver": self.version,
            "x-nvidia-overall-att-result": True,
            "submods": submods,
        }
        return self.sign({**self._common(nonce), **claims, **self.overall})

    def bundle(self, nonce: bytes = bytes(32)) -> bytes:
        """The detached EAT for one request."""
        tokens = self.device_tokens(nonce)
        return json.dumps([["JWT", self.overall_token(nonce, tokens)], tokens]).encode()

    def sign(self, claims: dict[str, Any]) -> str:
        """A token of the service over these claims; a claim that is None is left out."""
        kept = {
            name: value
            for name, value in claims.items()
            if value is not None or name == "x-nvidia-attestation-warning"
        }
        return self.issuer.sign(kept, **self.header)

    def _common(self, nonce: bytes) -> dict[str, Any]:
        return {
            "iss": ISSUER,
            "eat_nonce": nonce.hex(),
            "iat": self.now,
            "nbf": self.now,
            "exp": self.now + LIFE_S,
            "jti": "833480c9-6796-4fe4-b6ad-e9a58d7a67b2",
        }

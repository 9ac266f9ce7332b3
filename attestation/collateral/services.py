"""Where the vendors' services are: the operator's configuration, and nothing else's.

The defaults are the vendors' public endpoints. An operator may name a mirror, an Intel PCCS among
them; what it sends is verified like the vendor's own answer, so a mirror can withhold and delay,
but not lie.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

from attestation.members import Members
from attestation.toml_table import parse_settings
from wire.errors import ConfigError, MalformedError
from wire.excerpt import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

PCCS_ROOT_CRL: Final = "/sgx/certification/v4/rootcacrl"  # a PCCS serves it beside the rest
URL_MAX: Final = 512
ISSUERS_MAX: Final = 32
_ISSUER = re.compile(r"[a-z0-9-]{1,64}")
_URL = re.compile(r"[\x21-\x7e]+")
_PORTS: Final = {"https": 443, "http": 80}
_KEYS: Final = ("intel_pcs", "intel_root_crl", "pccs", "amd_kds", "nvidia_rim", "nvidia_ocsp")
_HINT: Final = "name https:// URLs, or http:// on a loopback address for tests"


@dataclass(frozen=True, slots=True)
class Services:
    """Base URLs without a trailing slash, but for those that are whole addresses.

    Attributes:
        intel_pcs: Intel's Provisioning Certification Service, or a PCCS.
        intel_root_crl: whole address of the root CA's CRL.
        amd_kds: AMD's Key Distribution Service.
        nvidia_rim: NVIDIA's service of reference manifests.
        nvidia_ocsp: whole address of NVIDIA's OCSP responder.
        jwks: whole address of a key set for each token issuer, by the operator's name for it.
        ca_file: PEM file of the only roots for `intel_pcs`; a PCCS often has a private one. There
            is no way to turn verification off.

    Raises:
        ConfigError: an address that is not https, nor http on loopback.
    """

    intel_pcs: str = "https://api.trustedservices.intel.com"
    intel_root_crl: str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
    amd_kds: str = "https://kdsintf.amd.com"
    nvidia_rim: str = "https://rim.attestation.nvidia.com"
    nvidia_ocsp: str = "https://ocsp.ndis.nvidia.com/"
    jwks: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType(
            {"nvidia-nras": "https://nras.attestation.nvidia.com/.well-known/jwks.json"}
        )
    )
    ca_file: str | None = None

    def __post_init__(self) -> None:
        for name in ("intel_pcs", "intel_root_crl", "amd_kds", "nvidia_rim", "nvidia_ocsp"):
            _check_url(name, getattr(self, name))
        if len(self.jwks) > ISSUERS_MAX:
            raise ConfigError(f"jwks: found {len(self.jwks)} issuers, expected ≤ {ISSUERS_MAX}")
        for issuer, url in self.jwks.items():
            if _ISSUER.fullmatch(issuer) is None:
                raise ConfigError(
                    f"services.jwks: found an issuer {shown(issuer)}, expected 1 to 64 of a-z 0-9 -"
                )
            _check_url(f"jwks.{issuer}", url)

    def origins(self) -> frozenset[tuple[str, str, int]]:
        """Scheme, host and port of every configured service: no other is ever connected to."""
        whole = (self.intel_root_crl, self.nvidia_ocsp, *self.jwks.values())
        return frozenset(map(origin, (self.intel_pcs, self.amd_kds, self.nvidia_rim, *whole)))


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an absolute URL.

    Raises:
        ConfigError: it has none.
    """
    parts, port = _split("URL", url)
    return parts.scheme, (parts.hostname or "").lower(), port or _PORTS.get(parts.scheme, 0)


def services_of(raw: bytes) -> Services:
    """Services from the text of an operator's file.

    Raises:
        ConfigError: no TOML, nothing in it, an unknown member or an address that is refused.
    """
    try:
        document = parse_settings(raw)
    except MalformedError as error:
        raise ConfigError(error.message, hint="name a TOML file of the vendors' URLs") from error
    if not document:
        # Who names a file means its addresses, not that everybody's are asked when it was lost.
        raise ConfigError(
            f"services: found none, expected some of {', '.join((*_KEYS, 'jwks', 'ca_file'))}",
            hint="name no services file to ask the vendors themselves",
        )
    return parse_services(document)


def parse_services(document: object) -> Services:
    """Services from a configuration document: a mapping with any of the members' names.

    `pccs` stands for `intel_pcs` and the root CRL that a PCCS serves beside it. `jwks` is a table
    of issuers and adds to none: it replaces the default.

    Raises:
        ConfigError: an unknown member or an address that is refused.
    """
    members = Members(document, "services", optional=(*_KEYS, "jwks", "ca_file"), error=ConfigError)
    found: dict[str, Any] = {
        name: members.text(name, URL_MAX) for name in (*_KEYS, "ca_file") if name in members
    }
    pccs = found.pop("pccs", None)
    if pccs is not None:
        if "intel_pcs" in found or "intel_root_crl" in found:
            raise ConfigError("services: found pccs beside intel_pcs or intel_root_crl")
        found |= {"intel_pcs": pccs, "intel_root_crl": pccs.rstrip("/") + PCCS_ROOT_CRL}
    for name in ("intel_pcs", "amd_kds", "nvidia_rim"):
        if name in found:
            found[name] = found[name].rstrip("/")
    if "jwks" in members:
        table = members.value("jwks")
        if not isinstance(table, dict):
            raise members.fail("jwks", "a table of issuers")
        urls = Members(table, "services.jwks", optional=tuple(table), error=ConfigError)
        found["jwks"] = MappingProxyType({name: urls.text(name, URL_MAX) for name in table})
    return Services(**found)


def _split(name: str, url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"services.{name}: found no URL, expected one", hint=_HINT) from None
    return parts, port


def _check_url(name: str, url: str) -> None:
    parts, _ = _split(name, url)
    # urlsplit drops tabs and newlines silently; what is checked must be what is used.
    plain = len(url) <= URL_MAX and _URL.fullmatch(url) is not None
    wrong = (  # named and not shown: a user name's neighbour is a password
        (not plain, "spaces, other signs than ASCII, or too many"),
        (not parts.hostname, "no host"),
        (parts.username, "a user name"),
        (parts.query, "a query"),
        (parts.fragment, "a fragment"),
    )
    found = next((words for is_so, words in wrong if is_so), "")
    if found:
        raise ConfigError(
            f"services.{name}: found {found}, "
            "expected a URL with a host and no user name, query or fragment",
            hint=_HINT,
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(parts.hostname or "")):
        found = f"{parts.scheme or 'no scheme'}, host {shown(parts.hostname)}"
        raise ConfigError(f"services.{name}: found {found}, expected https://", hint=_HINT)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

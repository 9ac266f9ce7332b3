"""A verifier that keeps vendors' collateral: one answer before its checks, or a cache and services.

vendors = vendors_under(intel.anchors.pins)
entry = fetched(vendors, TCB, body, tcb_info_issuer_chain=chain)     # kept, or an error

world = World(folder)
with world.served:
    world.resolve(*world.needs)                  # over HTTP, into the cache, into roles
    world.resolve(*world.needs, offline=True)    # from the cache alone
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from attestation import collateral_key as keys
from attestation.anchors import Anchors
from attestation.collateral.fetcher import Request, Response
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.resolve import Resolved, resolve
from attestation.collateral.services import Services
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.collateral_key import named
from attestation.scheme import Need

from .vendor_collateral import AmdVendor, IntelVendor, OcspVendor, key_set
from .vendor_services import ISSUER, JWKS, Answer, VendorServices
from .verdicts import refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from attestation.collateral.entry import Entry
    from attestation.collateral_key import CollateralKey

NOW = 1_790_000_000
FMSPC = bytes.fromhex("00806f050000")
CHIP = bytes(range(64))
LEVELS = (10, 0, 23, 84)
TCB = keys.tcb_info("tdx", FMSPC)
QE = keys.qe_identity("tdx")
VCEK = keys.vcek("Genoa", CHIP, LEVELS)
CHAIN = keys.amd("chain", "vcek", "Genoa")
DCAP = Need("collateral", *named(keys.dcap("tdx", FMSPC, "platform")))


def vendors_under(pins: frozenset[bytes], services: Services | None = None) -> Vendors:
    """The checks of a verifier that pins these roots."""
    return Vendors(services or Services(), secrets.token_bytes, Anchors(pins))


class Canned:
    """A `Fetcher` with one answer: bytes and headers, or a function of the request."""

    def __init__(self, answer: Response | Callable[[Request], Response]) -> None:
        self._answer = answer
        self.asked: list[Request] = []

    def fetch(self, request: Request) -> Response:
        self.asked.append(request)
        return self._answer if isinstance(self._answer, Response) else self._answer(request)


def fetched(vendors: Vendors, key: CollateralKey, body: bytes, **headers: str) -> Entry:
    """What is kept of an answer with these headers."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return vendors.fetch(key, Canned(Response(body, sent)), NOW)


def refused(code: str, call: Callable[[], Any]) -> None:
    """The call is refused for this reason and no other."""
    assert refusal(call) == code


class World:
    """Vendors, their services, and a verifier's cache."""

    def __init__(self, root: Path) -> None:
        self.intel, self.amd, self.responder = IntelVendor(NOW), AmdVendor(NOW), OcspVendor(NOW)
        self.served = VendorServices()
        self.served.intel(self.intel, FMSPC.hex())
        self.served.amd(self.amd)
        self.served.vcek(self.amd, CHIP, LEVELS)
        self.served.nvidia(self.responder, {"NV_A": b"<rim/>"})
        self.served.answers[JWKS] = Answer(key_set("a", "b"))
        self.store = Store(root / "cache")
        self.needs = (
            DCAP,
            Need("endorsement_cert", *named(VCEK)),
            Need("ca", *named(keys.amd("ca", "vcek", "Genoa"))),
            Need("root", *named(keys.amd("root", "vcek", "Genoa"))),
            Need("crl", *named(keys.amd("crl", "vcek", "Genoa")), required=False),
            Need("rim", *named(keys.rim("NV_A"))),
            Need("ocsp", *named(keys.ocsp(*self.responder.cert_id()))),
            Need("jwks", *named(keys.jwks(ISSUER))),
            Need("intel_root", "intel-pcs", "root/platform"),
            Need("intel_chain", "intel-pcs", "pck-chain/platform"),
        )

    def vendors(self, services: Services | None = None) -> Vendors:
        pins = self.intel.anchors.pins | self.amd.anchors.pins
        return vendors_under(pins, services or self.served.services())

    def resolve(
        self, *needs: Need, now: int = NOW, offline: bool = False, max_age_s: int | None = None
    ) -> Resolved:
        if offline:
            return resolve(needs, self.store, self.vendors(), None, now, max_age_s=max_age_s)
        with HttpFetcher(self.served.services(), pause=lambda _: None, whole_s=0.4) as fetcher:
            return resolve(needs, self.store, self.vendors(), fetcher, now, max_age_s=max_age_s)


def missing(found: Resolved) -> list[str]:
    """The codes of what could not be resolved."""
    return [reason.code for reason in found.missing]

"""A responder's word that it does not know a certificate: it denies, and nothing is kept of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.x509 import ocsp
from simulators.kept_collateral import NOW, World, missing
from simulators.vendor_collateral import OcspVendor, altered
from simulators.vendor_services import OCSP, VendorServices

from attestation import collateral_key as keys
from attestation.collateral.bundle import admit_bundle, parse_bundle, write_bundle
from attestation.collateral.entry import BOUNDS, Entry, Piece
from attestation.collateral.store import Store
from attestation.collateral_key import named
from attestation.scheme import Need
from client import cli
from client.clock import wall_clock

if TYPE_CHECKING:
    from pathlib import Path

UNKNOWN, GOOD, REVOKED = (
    ocsp.OCSPCertStatus.UNKNOWN, ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED,
)  # fmt: skip


def need(world: World) -> Need:
    return Need("ocsp", *named(keys.ocsp(*world.responder.cert_id())))


def entries(world: World) -> list[Entry]:
    return [entry for entry in world.store.entries(NOW) if entry.key.kind == "ocsp"]


def test_it_is_given_to_whoever_asked_and_not_kept(world: World) -> None:
    world.responder.status = UNKNOWN
    found = world.resolve(need(world))
    assert not missing(found)
    der = ocsp.load_der_ocsp_response(found.roles["ocsp"])
    assert der.certificate_status is UNKNOWN
    assert not entries(world)
    assert not (world.store.root / "seen").exists()
    # The next one asks again: a certificate may be known by then.
    world.responder.status = GOOD
    world.resolve(need(world))
    assert len(entries(world)) == 1


@pytest.mark.parametrize("status", [GOOD, REVOKED])
def test_what_the_responder_knows_is_kept(world: World, status: ocsp.OCSPCertStatus) -> None:
    world.responder.status = status
    world.resolve(need(world))
    assert len(entries(world)) == 1


def test_it_takes_the_place_of_an_earlier_answer(world: World) -> None:
    """What a responder no longer stands by must not pass by what it said before."""
    world.resolve(need(world))
    world.responder.status = UNKNOWN
    at = NOW + BOUNDS["ocsp"].age_s - 1
    renewed = world.resolve(need(world), now=at)
    kept = world.resolve(need(world), now=at, offline=True)
    for found in (renewed, kept):
        der = ocsp.load_der_ocsp_response(found.roles["ocsp"])
        assert der.certificate_status is UNKNOWN


@pytest.mark.parametrize("ends", [None, 3600])
def test_no_bundle_brings_it_in(world: World, tmp_path: Path, ends: int | None) -> None:
    key, vendors = keys.ocsp(*world.responder.cert_id()), world.vendors()
    responder = altered(world.responder, status=UNKNOWN, ends=ends)
    piece = Piece(responder.answer(vendors.request(key, bytes(32)).body))
    data = write_bundle([Entry(key, piece, NOW, NOW + 60, NOW)], NOW)
    store = Store(tmp_path / "far")
    kept, refused = admit_bundle(parse_bundle(data, NOW), vendors, store, NOW, lambda _: None)
    assert not kept
    assert [item.code for item in refused] == ["revocation_unknown"]
    assert store.get(key, NOW) is None


def test_the_command_that_fetches_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    responder = OcspVendor(wall_clock(), UNKNOWN)
    services, key = tmp_path / "services.toml", str(keys.ocsp(*responder.cert_id()))
    words = ["--services", str(services), "--cache-dir", str(tmp_path / "cache")]
    with VendorServices() as served:
        served.nvidia(responder, {})
        services.write_text(f'nvidia_ocsp = "{served.url}{OCSP}"\n')
        code = cli.execute(cli.build_parser(), ["collateral", "fetch", "--key", key, *words])
    out = capsys.readouterr().out
    assert code == 2
    assert out.split()[:2] == ["FAIL", key]
    assert "revocation_unknown" in out
    assert "0 entries in the cache, 1 not" in out

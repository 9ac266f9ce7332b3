"""A scheme's needs become bytes, or reasons; never stale ones, and never another key's."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.kept_collateral import CHIP, DCAP, FMSPC, LEVELS, NOW, World, missing
from simulators.vendor_collateral import DAY_S, AmdVendor, IntelVendor
from simulators.vendor_services import OCSP, ROOT_CRL, Answer, Fault

from attestation import collateral_key as keys
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.resolve import Resolved, joined, resolve
from attestation.collateral.services import PCCS_ROOT_CRL
from attestation.collateral.store import Store
from attestation.collateral_key import CollateralKey, named
from attestation.scheme import Need
from wire.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TCB_PATH = "/tdx/certification/v4/tcb?fmspc=00806f050000&update=standard"


def test_every_vendors_collateral_is_fetched_once_and_then_served_from_the_cache(
    world: World,
) -> None:
    first = world.resolve(*world.needs)
    assert not first.missing
    assert first.complete
    assert set(first.roles) == {need.role for need in world.needs}
    asked = len(world.served.asked)
    assert asked == 10
    again = world.resolve(*world.needs, offline=True)
    assert again == first
    assert len(world.served.asked) == asked


def test_intels_nine_members_are_the_signed_bytes(world: World) -> None:
    members = json.loads(world.resolve(DCAP).roles["collateral"])
    assert len(members) == 9
    assert members["tcb_info"].encode() in world.served.answers[TCB_PATH].body  # type: ignore[operator]  # bytes here
    assert members["pck_crl"] == bytes.fromhex(members["pck_crl"]).hex()
    assert members["tcb_info_issuer_chain"].count("BEGIN CERTIFICATE") == 2


def test_a_pccs_gives_the_same(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.served.answers.clear()
    world.served.intel(world.intel, FMSPC.hex(), pccs=True)
    with world.served:
        services = world.served.services(intel_root_crl=world.served.url + PCCS_ROOT_CRL)
        with HttpFetcher(services) as fetcher:
            found = resolve([DCAP], world.store, world.vendors(services), fetcher, NOW)
    assert not found.missing


def test_what_nobody_fetched_is_missing_offline(world: World) -> None:
    found = world.resolve(*world.needs, offline=True)
    assert set(missing(found)) == {"collateral_missing"}
    assert len(found.missing) == len(world.needs)
    assert found.missing[0].step == "collateral collateral"


def test_an_optional_role_that_is_absent_too_makes_nothing_complete(world: World) -> None:
    needs = [replace(DCAP, role=role, required=role == "second") for role in ("first", "second")]
    for order in (needs, needs[::-1]):
        assert not world.resolve(*order, offline=True).complete


@pytest.mark.parametrize("complete", [(True, True), (True, False), (False, True)])
def test_two_rounds_are_complete_only_together(complete: tuple[bool, bool]) -> None:
    first, second = (Resolved({}, (), each, None) for each in complete)
    assert joined(first, second).complete is all(complete)


def test_an_optional_role_may_be_absent_and_is_still_named(world: World) -> None:
    del world.served.answers["/vcek/v1/Genoa/crl"]
    found = world.resolve(*world.needs)
    assert found.complete
    assert [reason.step for reason in found.missing] == ["collateral crl"]
    assert "crl" not in found.roles


@pytest.mark.parametrize("kind", ["slow", "status", "truncated", "reset", "huge", "drip"])
def test_every_fault_of_a_service_is_a_reason(world: World, kind: Any) -> None:
    world.served.faults[TCB_PATH] = Fault(kind)
    found = world.resolve(DCAP)
    assert missing(found) == ["collateral_unavailable"]
    assert not found.roles
    world.served.faults.clear()
    assert not world.resolve(DCAP).missing


def test_wrong_content_is_a_reason_and_is_not_kept(world: World) -> None:
    world.served.faults[TCB_PATH] = Fault("wrong")
    assert missing(world.resolve(DCAP)) == ["collateral_malformed"]
    world.served.faults.clear()
    assert missing(world.resolve(DCAP, offline=True)) == ["collateral_missing"]


def test_an_answer_for_another_platform_is_not_kept_under_this_ones_key(world: World) -> None:
    # Poisoning at the source: a mirror, or a proxy, that mixes up two genuine answers.
    header = {"TCB-Info-Issuer-Chain": world.intel.header(world.intel.signer)}
    for body in (world.intel.tcb("tdx", "ffffffffffff"), world.intel.tcb("sgx", FMSPC.hex())):
        world.served.answers[TCB_PATH] = Answer(body, header)
        found = world.resolve(DCAP)
        assert missing(found)[0] in {"collateral_fmspc_mismatch", "collateral_mismatch"}


def test_a_vendor_under_another_root_is_not_believed(world: World) -> None:
    other = IntelVendor(NOW)
    world.served.intel(other, FMSPC.hex())
    assert missing(world.resolve(DCAP)) == ["untrusted_root"]


def test_an_ended_answer_is_refused_when_it_comes(world: World) -> None:
    world.intel.ends = -5
    world.served.intel(world.intel, FMSPC.hex())
    assert missing(world.resolve(DCAP)) == ["collateral_expired"]


def test_an_older_number_than_seen_before_is_a_rollback(world: World) -> None:
    world.resolve(DCAP)
    world.intel.number = 16
    world.served.intel(world.intel, FMSPC.hex())
    assert missing(world.resolve(DCAP, now=NOW + DAY_S)) == ["collateral_rollback"]
    world.intel.number = 18
    world.served.intel(world.intel, FMSPC.hex())
    assert not world.resolve(DCAP, now=NOW + DAY_S).missing


def test_a_replayed_ocsp_answer_is_refused(world: World) -> None:
    need = Need("ocsp", *named(keys.ocsp(*world.responder.cert_id())))
    world.resolve(need)
    recorded = world.responder.answer(world.served.asked[-1][2])
    world.served.answers[OCSP] = Answer(recorded)
    assert missing(world.resolve(need, now=NOW + 3600)) == ["nonce_mismatch"]


@pytest.mark.parametrize(
    "need",
    [
        Need("x", "intel-pcs", "https://evil.example/tcb"),
        Need("x", "https://evil.example", "tcb/tdx/00806f050000"),
        Need("x", "amd-kds", "vcek/Genoa/../../evil"),
        Need("x", "jwks", "jwks/evil.example"),
        Need("x", "jwks", "jwks/unknown"),
    ],
    ids=lambda need: need.key[:30],
)
def test_no_need_can_name_an_address(world: World, need: Need) -> None:
    found = world.resolve(need)
    assert missing(found)[0] in {"collateral_malformed", "collateral_missing"}
    assert not world.served.asked


def test_callers_at_the_same_time_ask_a_service_once(world: World) -> None:
    found: list[Resolved] = []
    threads = [threading.Thread(target=lambda: found.append(world.resolve(DCAP))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert not any(resolved.missing for resolved in found)
    assert len(world.served.asked) == 4


def test_a_cache_that_cannot_be_used_is_an_error_not_a_reason(tmp_path: Path, world: World) -> None:
    (tmp_path / "file").write_bytes(b"")
    world.store = Store(tmp_path / "file")
    with pytest.raises(ConfigError):
        world.resolve(DCAP)


def test_a_mirror_that_forges_the_roots_list_fills_no_cache(world: World) -> None:
    world.served.answers[ROOT_CRL] = Answer(IntelVendor(NOW).root_crl())
    assert missing(world.resolve(DCAP)) == ["crl_invalid"]
    assert world.store.get(keys.root_crl(), NOW) is None
    world.served.answers[ROOT_CRL] = Answer(world.intel.root_crl())
    assert not world.resolve(DCAP).missing
    # The renewal of the list in force meets a forged one: it stays until its end.
    world.served.answers[ROOT_CRL] = Answer(IntelVendor(NOW).root_crl())
    assert not world.resolve(DCAP, now=NOW + DAY_S - 1).missing
    assert missing(world.resolve(DCAP, now=NOW + DAY_S)) == ["crl_invalid"]


@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_either_chain_at_hand_vouches_for_the_roots_list(world: World, ca: Any) -> None:
    world.resolve(Need("list", *named(keys.pck_crl(ca))))
    assert not world.resolve(Need("list", *named(keys.root_crl()))).missing
    asked = [path for _, path, _ in world.served.asked]
    assert len(asked) == 2
    assert asked[1] == ROOT_CRL


def test_the_roots_list_alone_is_asked_for_with_a_chain(world: World) -> None:
    assert not world.resolve(Need("list", *named(keys.root_crl()))).missing
    assert world.store.get(keys.pck_crl("platform"), NOW) is not None


def test_a_mirror_that_signs_chips_itself_fills_no_cache(world: World) -> None:
    need = world.needs[1]
    world.served.vcek(AmdVendor(NOW), CHIP, LEVELS)
    assert missing(world.resolve(need)) == ["chain_invalid"]
    assert missing(world.resolve(need, offline=True)) == ["collateral_missing"]
    world.served.vcek(world.amd, CHIP, LEVELS)
    assert not world.resolve(need).missing


def test_a_key_that_is_stored_twice_has_one_file(world: World) -> None:
    world.resolve(DCAP)
    world.resolve(DCAP, now=NOW + DAY_S)
    found = [entry.key for entry in world.store.entries(NOW + DAY_S)]
    assert len(found) == len(set(found)) == 4
    assert CollateralKey("intel-pcs", "root-crl") in found

"""A scheme's needs become bytes, or reasons; never stale ones, and never another key's."""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.vendor_collateral import DAY_S, AmdVendor, IntelVendor, OcspVendor, key_set
from simulators.vendor_services import ISSUER, JWKS, OCSP, ROOT_CRL, Answer, Fault, VendorServices

from attestation import collateral_key as keys
from attestation.anchors import Anchors
from attestation.collateral.bundle import (
    SCHEMA,
    Carried,
    admit_bundle,
    parse_bundle,
    write_bundle,
)
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.resolve import Resolved, joined, resolve
from attestation.collateral.services import PCCS_ROOT_CRL, Services
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.collateral_key import CollateralKey, named
from attestation.scheme import Need
from wire.canonical import encode
from wire.errors import ConfigError, MalformedError
from wire.ids import sha256_tag
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from attestation.collateral.entry import Entry

NOW = 1_790_000_000
FMSPC = bytes.fromhex("00806f050000")
CHIP = bytes(range(64))
LEVELS = (10, 0, 23, 84)
DCAP = Need("collateral", *named(keys.dcap("tdx", FMSPC, "platform")))
TCB_PATH = "/tdx/certification/v4/tcb?fmspc=00806f050000&update=standard"


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
            Need("endorsement_cert", *named(keys.vcek("Genoa", CHIP, LEVELS))),
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
        return Vendors(services or self.served.services(), secrets.token_bytes, Anchors(pins))

    def resolve(
        self, *needs: Need, now: int = NOW, offline: bool = False, max_age_s: int | None = None
    ) -> Resolved:
        if offline:
            return resolve(needs, self.store, self.vendors(), None, now, max_age_s=max_age_s)
        with HttpFetcher(self.served.services(), pause=lambda _: None, whole_s=0.4) as fetcher:
            return resolve(needs, self.store, self.vendors(), fetcher, now, max_age_s=max_age_s)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    with found.served:
        yield found


def codes(found: Resolved) -> list[str]:
    return [reason.code for reason in found.missing]


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


def test_the_first_end_is_that_of_the_shortest_lived_entry(world: World) -> None:
    assert world.resolve(*world.needs).expires == NOW + 3600
    assert world.resolve(DCAP).expires == NOW + DAY_S
    assert world.resolve().expires is None


def test_an_ended_entry_is_fetched_again_and_offline_never_used(world: World) -> None:
    world.resolve(DCAP)
    later = NOW + DAY_S
    offline = world.resolve(DCAP, now=later, offline=True)
    assert codes(offline) == ["collateral_expired"]
    assert not offline.roles
    asked = len(world.served.asked)
    assert not world.resolve(DCAP, now=later).missing
    assert len(world.served.asked) == asked + 4


def test_one_second_before_its_end_it_counts(world: World) -> None:
    world.resolve(DCAP)
    assert not world.resolve(DCAP, now=NOW + DAY_S - 1, offline=True).missing


def test_a_service_that_is_down_is_no_reason_to_use_an_ended_entry(world: World) -> None:
    world.resolve(DCAP)
    world.served.faults[""] = Fault("status")
    found = world.resolve(DCAP, now=NOW + DAY_S)
    assert codes(found) == ["collateral_unavailable"]
    assert not found.roles
    assert not found.complete


def test_what_nobody_fetched_is_missing_offline(world: World) -> None:
    found = world.resolve(*world.needs, offline=True)
    assert set(codes(found)) == {"collateral_missing"}
    assert len(found.missing) == len(world.needs)
    assert found.missing[0].step == "collateral collateral"


def test_a_shorter_life_is_renewed_in_its_own_last_quarter(world: World) -> None:
    found = world.resolve(DCAP, max_age_s=400)
    assert (found.due, found.expires) == (NOW + 300, NOW + 400)


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
    assert codes(found) == ["collateral_unavailable"]
    assert not found.roles
    world.served.faults.clear()
    assert not world.resolve(DCAP).missing


def test_wrong_content_is_a_reason_and_is_not_kept(world: World) -> None:
    world.served.faults[TCB_PATH] = Fault("wrong")
    assert codes(world.resolve(DCAP)) == ["collateral_malformed"]
    world.served.faults.clear()
    assert codes(world.resolve(DCAP, offline=True)) == ["collateral_missing"]


def test_an_answer_for_another_platform_is_not_kept_under_this_ones_key(world: World) -> None:
    # Poisoning at the source: a mirror, or a proxy, that mixes up two genuine answers.
    header = {"TCB-Info-Issuer-Chain": world.intel.header(world.intel.signer)}
    for body in (world.intel.tcb("tdx", "ffffffffffff"), world.intel.tcb("sgx", FMSPC.hex())):
        world.served.answers[TCB_PATH] = Answer(body, header)
        found = world.resolve(DCAP)
        assert codes(found)[0] in {"collateral_fmspc_mismatch", "collateral_mismatch"}


def test_a_vendor_under_another_root_is_not_believed(world: World) -> None:
    other = IntelVendor(NOW)
    world.served.intel(other, FMSPC.hex())
    assert codes(world.resolve(DCAP)) == ["untrusted_root"]


def test_an_ended_answer_is_refused_when_it_comes(world: World) -> None:
    world.intel.ends = -5
    world.served.intel(world.intel, FMSPC.hex())
    assert codes(world.resolve(DCAP)) == ["collateral_expired"]


def test_an_older_number_than_seen_before_is_a_rollback(world: World) -> None:
    world.resolve(DCAP)
    world.intel.number = 16
    world.served.intel(world.intel, FMSPC.hex())
    assert codes(world.resolve(DCAP, now=NOW + DAY_S)) == ["collateral_rollback"]
    world.intel.number = 18
    world.served.intel(world.intel, FMSPC.hex())
    assert not world.resolve(DCAP, now=NOW + DAY_S).missing


def test_a_replayed_ocsp_answer_is_refused(world: World) -> None:
    need = Need("ocsp", *named(keys.ocsp(*world.responder.cert_id())))
    world.resolve(need)
    recorded = world.responder.answer(world.served.asked[-1][2])
    world.served.answers[OCSP] = Answer(recorded)
    assert codes(world.resolve(need, now=NOW + 3600)) == ["nonce_mismatch"]


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
    assert codes(found)[0] in {"collateral_malformed", "collateral_missing"}
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


# ------------------------------------------------------------------ a policy's greatest age


def test_in_the_last_quarter_of_the_policys_age_an_entry_is_fetched_again(world: World) -> None:
    world.resolve(*world.needs)
    asked = len(world.served.asked)
    assert not world.resolve(*world.needs, now=NOW + 44, max_age_s=60).missing
    assert len(world.served.asked) == asked
    renewed = world.resolve(*world.needs, now=NOW + 45, max_age_s=60)
    assert not renewed.missing
    assert len(world.served.asked) == 2 * asked
    assert renewed.expires == NOW + 105


def test_offline_an_entry_as_old_as_the_policy_allows_has_ended(world: World) -> None:
    world.resolve(DCAP)
    assert not world.resolve(DCAP, now=NOW + 59, offline=True, max_age_s=60).missing
    found = world.resolve(DCAP, now=NOW + 60, offline=True, max_age_s=60)
    assert codes(found) == ["collateral_expired"]
    assert not found.roles
    assert not found.complete
    assert "fetched 60 s ago, expected less than 60 s" in found.missing[0].detail


def test_a_service_that_is_down_is_no_reason_to_use_an_entry_past_the_policys_age(
    world: World,
) -> None:
    world.resolve(DCAP)
    world.served.faults[""] = Fault("status")
    assert not world.resolve(DCAP, now=NOW + 59, max_age_s=60).missing
    found = world.resolve(DCAP, now=NOW + 60, max_age_s=60)
    assert codes(found) == ["collateral_unavailable"]
    assert not found.roles


def test_a_greatest_age_never_lengthens_an_entrys_own_life(world: World) -> None:
    world.resolve(DCAP)
    long = 30 * DAY_S
    assert world.resolve(DCAP, offline=True, max_age_s=long).expires == NOW + DAY_S
    ended = world.resolve(DCAP, now=NOW + DAY_S, offline=True, max_age_s=long)
    assert codes(ended) == ["collateral_expired"]
    assert "ended 0 s ago" in ended.missing[0].detail


def test_a_chain_above_a_certificate_is_as_old_as_the_policy_allows_too(world: World) -> None:
    need = world.needs[1]  # a chip's certificate, which is checked under the product's chain
    world.resolve(need)
    asked = len(world.served.asked)
    world.resolve(need, now=NOW + 60, max_age_s=60)
    assert len(world.served.asked) == asked + 2


# ------------------------------------------------------------------ bundles


def test_a_carried_entry_has_the_age_it_had_where_it_was_fetched(
    world: World, tmp_path: Path
) -> None:
    world.resolve(DCAP)
    store, _ = carry(world, entries(world), tmp_path, now=NOW + DAY_S)
    at = NOW + 2 * DAY_S
    young = resolve([DCAP], store, world.vendors(), None, at - 1, max_age_s=2 * DAY_S)
    assert not young.missing
    old = resolve([DCAP], store, world.vendors(), None, at, max_age_s=2 * DAY_S)
    assert codes(old) == ["collateral_expired"]


def entries(world: World, now: int = NOW) -> bytes:
    return write_bundle(world.store.entries(now), now)


def carry(world: World, data: bytes, tmp_path: Path, now: int = NOW) -> tuple[Store, list[str]]:
    store = Store(tmp_path / "carried")
    done: list[int] = []
    kept, refused = admit_bundle(parse_bundle(data, now), world.vendors(), store, now, done.append)
    assert done == list(range(1, len(kept) + len(refused) + 1))
    return store, [item.code for item in refused]


def test_a_bundle_carries_everything_to_where_no_service_is(world: World, tmp_path: Path) -> None:
    online = world.resolve(*world.needs)
    store, refused = carry(world, entries(world), tmp_path)
    assert not refused
    offline = resolve(world.needs, store, world.vendors(), None, NOW)
    assert not offline.missing
    assert offline.roles == online.roles


def test_a_bundle_has_one_spelling(world: World) -> None:
    world.resolve(*world.needs)
    data = entries(world)
    assert write_bundle(reversed(list(world.store.entries(NOW))), NOW) == data


def test_a_carried_entry_may_be_older_but_not_older_than_the_vendor_says(
    world: World, tmp_path: Path
) -> None:
    world.resolve(DCAP)
    data = entries(world)
    store, refused = carry(world, data, tmp_path, now=NOW + 10 * DAY_S)
    assert not refused
    at = NOW + 30 * DAY_S
    assert not resolve([DCAP], store, world.vendors(), None, at - 1).missing
    assert codes(resolve([DCAP], store, world.vendors(), None, at)) == ["collateral_expired"]
    _, late = carry(world, data, tmp_path, now=at)
    assert set(late) <= {"collateral_expired", "crl_expired"}
    assert len(late) == 4


def test_a_bundle_with_an_older_number_than_seen_is_a_rollback(
    world: World, tmp_path: Path
) -> None:
    world.resolve(DCAP)
    older = entries(world)
    world.intel.number = 18
    world.served.intel(world.intel, FMSPC.hex())
    world.resolve(DCAP, now=NOW + DAY_S)
    store, _ = carry(world, entries(world, NOW + DAY_S), tmp_path, now=NOW + DAY_S)
    assert store.root.name == "carried"
    _, refused = carry(world, older, tmp_path, now=NOW + DAY_S)
    assert refused == ["collateral_rollback", "collateral_rollback"]


def older_and_newer(world: World, need: Need, older: int = NOW - DAY_S) -> tuple[bytes, Entry]:
    """A bundle of what the vendors said before, and what they say now, in the cache."""
    later = world.intel.now, world.responder.now
    world.intel.now = world.responder.now = older
    world.served.intel(world.intel, FMSPC.hex())
    world.resolve(need, now=older)
    data = entries(world, older)
    world.intel.now, world.responder.now = later
    world.served.intel(world.intel, FMSPC.hex())
    world.resolve(need)
    (newer,) = (e for e in world.store.entries(NOW) if e.key.kind in {"root-crl", "ocsp"})
    return data, newer


def test_an_older_answer_about_a_certificate_is_a_rollback_on_import(world: World) -> None:
    need = Need("ocsp", *named(keys.ocsp(*world.responder.cert_id())))
    world.responder.ends = 5 * DAY_S
    data, newer = older_and_newer(world, need)
    assert imported(world, data) == ["collateral_rollback"]
    assert world.store.get(newer.key, NOW) == newer
    for path in (world.store.root / "entries").iterdir():
        path.unlink()
    assert imported(world, data) == ["collateral_rollback"]
    assert imported(world, write_bundle([newer], NOW)) == []


def test_older_lists_of_the_same_number_are_a_rollback_on_import(world: World) -> None:
    """All of Intel's lists have the number 1."""
    data, newer = older_and_newer(world, DCAP)
    assert imported(world, data) == ["collateral_rollback"] * 2  # the PCK list and the root's
    assert world.store.get(newer.key, NOW) == newer
    assert imported(world, entries(world)) == []


def imported(world: World, data: bytes) -> list[str]:
    carried = parse_bundle(data, NOW)
    _, refused = admit_bundle(carried, world.vendors(), world.store, NOW, lambda _: None)
    return [item.code for item in refused]


def test_an_answer_to_our_own_question_is_newer_than_all_that_was_seen(world: World) -> None:
    """Two of the vendor's servers may date it differently, and a forged one be dated ahead."""
    need = Need("ocsp", *named(keys.ocsp(*world.responder.cert_id())))
    world.responder.now = NOW + CLOCK_SKEW_S
    world.resolve(need)
    ahead = entries(world)
    world.responder.now = NOW - 3600
    assert not world.resolve(need, now=NOW + 3600).missing
    assert not world.resolve(need, now=NOW + 3600, offline=True).missing
    old = write_bundle([replace(e, fetched_at=NOW) for e in world.store.entries(NOW + 3600)], NOW)
    assert imported(world, old) == ["collateral_rollback"]  # what was seen is not forgotten by it
    assert imported(world, ahead) == []


def test_a_mirror_that_forges_the_roots_list_fills_no_cache(world: World) -> None:
    world.served.answers[ROOT_CRL] = Answer(IntelVendor(NOW).root_crl())
    assert codes(world.resolve(DCAP)) == ["crl_invalid"]
    assert world.store.get(keys.root_crl(), NOW) is None
    world.served.answers[ROOT_CRL] = Answer(world.intel.root_crl())
    assert not world.resolve(DCAP).missing
    # The renewal of the list in force meets a forged one: it stays until its end.
    world.served.answers[ROOT_CRL] = Answer(IntelVendor(NOW).root_crl())
    assert not world.resolve(DCAP, now=NOW + DAY_S - 1).missing
    assert codes(world.resolve(DCAP, now=NOW + DAY_S)) == ["crl_invalid"]


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


def rewritten(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A bundle changed by someone who also makes its digest right again."""
    document = json.loads(data)
    del document["digest"]
    change(document)
    return encode(document | {"digest": sha256_tag(encode(document))})


def test_a_piece_under_another_key_is_refused_on_import(world: World, tmp_path: Path) -> None:
    world.resolve(DCAP)

    def confuse(document: dict[str, Any]) -> None:
        for row in document["entries"]:
            row["key"] = row["key"].replace("00806f050000", "00806f050001")

    _, refused = carry(world, rewritten(entries(world), confuse), tmp_path)
    assert refused == ["collateral_fmspc_mismatch"]


def test_a_piece_nobody_signed_is_refused_on_import(world: World, tmp_path: Path) -> None:
    world.resolve(DCAP)
    data = entries(world)
    world.intel = IntelVendor(NOW)
    _, refused = carry(world, data, tmp_path)
    # The root's own list has no chain beside it: nothing is at hand to check it with.
    assert refused == ["untrusted_root", "untrusted_root", "collateral_missing", "untrusted_root"]


def test_a_chips_certificate_without_the_chain_above_it_is_refused_on_import(
    world: World, tmp_path: Path
) -> None:
    world.resolve(*world.needs)

    def drop_chain(document: dict[str, Any]) -> None:
        document["entries"] = [e for e in document["entries"] if "chain/" not in e["key"]]

    store, refused = carry(world, rewritten(entries(world), drop_chain), tmp_path)
    assert refused == ["collateral_missing"] * 2
    assert store.get(keys.vcek("Genoa", CHIP, LEVELS), NOW) is None


def test_a_mirror_that_signs_chips_itself_fills_no_cache(world: World) -> None:
    need = world.needs[1]
    world.served.vcek(AmdVendor(NOW), CHIP, LEVELS)
    assert codes(world.resolve(need)) == ["chain_invalid"]
    assert codes(world.resolve(need, offline=True)) == ["collateral_missing"]
    world.served.vcek(world.amd, CHIP, LEVELS)
    assert not world.resolve(need).missing


def test_an_altered_bundle_is_malformed(world: World) -> None:
    world.resolve(Need("rim", *named(keys.rim("NV_A"))))
    data = entries(world)
    assert parse_bundle(data, NOW)[0] == Carried(
        keys.rim("NV_A"), parse_bundle(data, NOW)[0].piece, NOW
    )
    for position in range(0, len(data), 5):
        raw = bytearray(data)
        raw[position] ^= 1
        with pytest.raises(MalformedError):
            parse_bundle(bytes(raw), NOW)


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "schema": lambda d: d.update(schema="anchorhold-collateral-bundle/2"),
    "unknown member": lambda d: d.update(more=1),
    "unknown member of an entry": lambda d: d["entries"][0].update(expires=NOW),
    "future": lambda d: d.update(created=NOW + 999),
    "future entry": lambda d: d["entries"][0].update(fetched_at=NOW + 999),
    "key": lambda d: d["entries"][0].update(key="https://evil.example"),
    "composed key": lambda d: d["entries"][0].update(key="intel-pcs:root/platform"),
    "twice": lambda d: d["entries"].append(d["entries"][0]),
    "twice in turn": lambda d: d["entries"].insert(0, d["entries"][0]),
    "order": lambda d: d["entries"].reverse(),
    "body": lambda d: d["entries"][0].update(body="AA=="),
    "chain": lambda d: d["entries"][0].update(chain=5),
    "long chain": lambda d: d["entries"][0].update(chain="a" * 70_000),
    "no list": lambda d: d.update(entries={}),
    "too many": lambda d: d.update(entries=[0] * 16_385),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_bundle_of_another_shape_is_malformed(world: World, name: str) -> None:
    world.resolve(DCAP)
    data = entries(world)
    assert parse_bundle(rewritten(data, lambda _: None), NOW)
    with pytest.raises(MalformedError):
        parse_bundle(rewritten(data, CHANGES[name]), NOW)


def test_an_empty_bundle_is_one(world: World) -> None:
    assert parse_bundle(write_bundle([], NOW), NOW) == ()
    assert SCHEMA.encode() in write_bundle([], NOW)


def test_a_key_that_is_stored_twice_has_one_file(world: World) -> None:
    world.resolve(DCAP)
    world.resolve(DCAP, now=NOW + DAY_S)
    found = [entry.key for entry in world.store.entries(NOW + DAY_S)]
    assert len(found) == len(set(found)) == 4
    assert CollateralKey("intel-pcs", "root-crl") in found

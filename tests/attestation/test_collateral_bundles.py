"""Collateral carried as a file to where no service is: checked anew, and never older than seen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.kept_collateral import CHIP, DCAP, FMSPC, LEVELS, NOW, World, missing
from simulators.vendor_collateral import DAY_S, IntelVendor

from attestation import collateral_key as keys
from attestation.collateral.bundle import SCHEMA, Carried, admit_bundle, parse_bundle, write_bundle
from attestation.collateral.resolve import resolve
from attestation.collateral.store import Store
from attestation.collateral_key import named
from attestation.scheme import Need
from wire.canonical import encode
from wire.errors import MalformedError
from wire.ids import sha256_tag
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from attestation.collateral.entry import Entry


def entries(world: World, now: int = NOW) -> bytes:
    return write_bundle(world.store.entries(now), now)


def carry(world: World, data: bytes, tmp_path: Path, now: int = NOW) -> tuple[Store, list[str]]:
    store = Store(tmp_path / "carried")
    done: list[int] = []
    kept, refused = admit_bundle(parse_bundle(data, now), world.vendors(), store, now, done.append)
    assert done == list(range(1, len(kept) + len(refused) + 1))
    return store, [item.code for item in refused]


def test_a_carried_entry_has_the_age_it_had_where_it_was_fetched(
    world: World, tmp_path: Path
) -> None:
    world.resolve(DCAP)
    store, _ = carry(world, entries(world), tmp_path, now=NOW + DAY_S)
    at = NOW + 2 * DAY_S
    young = resolve([DCAP], store, world.vendors(), None, at - 1, max_age_s=2 * DAY_S)
    assert not young.missing
    old = resolve([DCAP], store, world.vendors(), None, at, max_age_s=2 * DAY_S)
    assert missing(old) == ["collateral_expired"]


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
    assert missing(resolve([DCAP], store, world.vendors(), None, at)) == ["collateral_expired"]
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

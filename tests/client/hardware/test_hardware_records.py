"""Records of workers on vendors' hardware: receipts verified, policies tried, all of it offline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from simulators.gpu_tee import SnpGpuTee
from simulators.hardware_tee import AzureSnpTee, SnpTee, TdxTee
from simulators.hardware_workers import KINDS, carried, tee_of

from client.clock import utc_text
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulators.answers import Listed
    from simulators.service import Service

pytestmark = pytest.mark.usefixtures("tenant")
every_kind = pytest.mark.parametrize("make", KINDS)


@pytest.fixture
def saved(run: Any, service: Service, tmp_path: Path) -> Path:
    """The receipt bundle of one answer; the gateway is gone."""
    path, policy = tmp_path / "receipt.json", tmp_path / "policy.json"
    policy.write_bytes(service.policy())
    with service.serve() as server:
        code, out, _ = run(
            "chat", "--url", server.url, "--policy", policy, "--model", "m", "--receipt", path,
            "hello there",
        )  # fmt: skip
    assert (code, out) == (0, "You said: hello there\n")
    return path


def verified(run: Any, saved: Path, *, policy: Path | None = None) -> tuple[int, Any]:
    named = policy or saved.parent / "policy.json"
    code, out, _ = run("receipt", "verify", saved, "--policy", named, "--json")
    return code, json.loads(out)


def change(saved: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(saved.read_bytes())
    edit(document)
    saved.write_text(json.dumps(document))


@every_kind
def test_a_receipt_is_verified_offline_with_the_collateral_in_it(
    run: Any, saved: Path, listed: Listed
) -> None:
    code, found = verified(run, saved)
    assert (code, found["trust"]) == (0, "simulated")
    document = json.loads(saved.read_bytes())
    assert set(document["collateral"]) == {kind for kind, r in listed.tee.collateral().items() if r}
    assert {item["kind"] for item in document["evidence"]} >= {listed.tee.kind}


@pytest.mark.parametrize("make", [SnpTee, TdxTee, AzureSnpTee, SnpGpuTee])
def test_a_receipt_without_its_collateral_is_not_verified(run: Any, saved: Path) -> None:
    change(saved, lambda document: document["collateral"].clear())
    code, found = verified(run, saved)
    assert code in {2, 3}
    assert found["trust"] is None


def test_a_receipt_with_other_collateral_is_not_verified(
    run: Any, saved: Path, listed: Listed
) -> None:
    other = b64u(SnpTee("elsewhere", listed.tee.now).chip.cert)
    change(
        saved,
        lambda document: document["collateral"][listed.tee.kind].update(endorsement_cert=other),
    )
    code, found = verified(run, saved)
    assert code == 2
    assert "chip_id_mismatch" in json.dumps(found)


def test_a_receipt_under_a_higher_floor_is_below_the_policy(
    run: Any, saved: Path, service: Service, listed: Listed
) -> None:
    floor = {"min_tcb": {"Genoa": {"snp": 24}, "Turin": {}}}
    service.policy_changes["accept"] = [{**listed.tee.rule, **floor}]
    policy = saved.parent / "next.json"
    policy.write_bytes(service.policy())
    code, found = verified(run, saved, policy=policy)
    assert "tcb_out_of_date" in json.dumps(found)
    assert code == 3


# ---------------------------------------------------------------- what would another policy say?


@pytest.fixture
def document(service: Service, listed: Listed, tmp_path: Path) -> Path:
    """What the gateway serves about the worker, in a file."""
    path = tmp_path / "worker.json"
    with service.serve() as server:
        path.write_bytes(httpx2.get(f"{server.url}/v1/keys/{b64u(listed.bh)}").content)
    (tmp_path / "policy.json").write_bytes(service.policy())
    return path


def simulate(run: Any, policy: Path, *words: object) -> tuple[int, Any]:
    code, out, err = run("policy", "simulate", policy, *words, "--json")
    return code, json.loads(out) if out else err


@every_kind
def test_a_recorded_worker_is_accepted_and_its_claims_are_told(
    run: Any, document: Path, listed: Listed
) -> None:
    code, found = simulate(run, document.parent / "policy.json", document)
    assert (code, found["ok"], found["accepted"]) == (0, True, 1)
    (record,) = found["records"]
    assert (record["accepted"], record["trust"], record["reasons"]) == (True, "simulated", [])
    assert set(record["claims"]) == {item.kind for item in listed.evidence}
    assert all(record["claims"].values())


def test_what_a_gateway_adds_beside_the_pieces_of_a_document_is_not_read(
    run: Any, document: Path
) -> None:
    change(document, lambda found: found.update(extra=1))
    code, _ = simulate(run, document.parent / "policy.json", document)
    assert code == 0


@pytest.mark.parametrize(
    "piece",
    [lambda found: found["inclusion"], lambda found: found["evidence"][0]],
    ids=["inclusion", "evidence"],
)
def test_an_unknown_member_inside_a_piece_of_a_document_is_refused(
    run: Any, document: Path, piece: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    change(document, lambda found: piece(found).update(extra=1))
    code, said = simulate(run, document.parent / "policy.json", document)
    assert code == 4
    assert "extra" in str(said)


def test_a_recorded_worker_is_refused_with_reasons_and_claims(
    run: Any, document: Path, service: Service, listed: Listed
) -> None:
    floor = {"min_tcb": {"Genoa": {"snp": 24}, "Turin": {}}}
    service.policy_changes["accept"] = [{**listed.tee.rule, **floor}]
    policy = document.parent / "next.json"
    policy.write_bytes(service.policy())
    code, found = simulate(run, policy, document)
    assert (code, found["ok"], found["accepted"]) == (3, False, 0)
    (record,) = found["records"]
    assert (record["accepted"], record["trust"]) == (False, None)
    assert [reason["code"] for reason in record["reasons"]] == ["tcb_out_of_date"]
    assert record["claims"][listed.tee.kind]["reported_tcb"]
    code, out, _ = run("policy", "simulate", policy, document)
    assert code == 3
    assert "refuse  worker.json" in out
    assert "tcb_out_of_date" in out


def test_a_receipt_bundle_is_a_record_too(
    run: Any, saved: Path, document: Path, listed: Listed
) -> None:
    policy = saved.parent / "policy.json"
    code, found = simulate(run, policy, saved, document, "--at", "recorded")
    assert (code, found["accepted"]) == (0, 2)
    change(saved, lambda bundle: bundle["collateral"][listed.tee.kind].pop("crl"))
    code, found = simulate(run, policy, saved, document, "--at", "recorded")
    assert (code, found["accepted"]) == (3, 1)
    assert [reason["code"] for reason in found["records"][0]["reasons"]] == [
        "revocation_not_checked"
    ]


def test_the_time_of_judgement_can_be_chosen(run: Any, document: Path) -> None:
    policy = document.parent / "policy.json"
    assert simulate(run, policy, document, "--at", "now")[0] == 0
    assert simulate(run, policy, document, "--at", "recorded")[0] == 0
    code, found = simulate(run, policy, document, "--at", "2020-01-01T00:00:00Z")
    assert code == 3
    codes = {reason["code"] for reason in found["records"][0]["reasons"]}
    assert {"policy_not_yet_valid", "binding_not_yet_valid"} <= codes
    assert found["records"][0]["at"] == utc_text(1_577_836_800)
    for wrong in (
        "yesterday", "2020-01-01", "2020-01-01T00:00:00", "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00+14:00", "9999-12-31T00:00:01Z", "1969-12-31T23:59:59Z",
    ):  # fmt: skip
        assert simulate(run, policy, document, "--at", wrong)[0] == 4
    for edge in ("1970-01-01T00:00:00Z", "9999-12-31T00:00:00Z"):
        assert simulate(run, policy, document, "--at", edge)[0] == 3


def test_what_ended_since_is_accepted_as_it_was_recorded(
    run: Any, service: Service, listed: Listed, tmp_path: Path, document: Path
) -> None:
    tee_of(listed).facts["nbf"] = service.now
    short = carried(listed, crl=tee_of(listed).amd.crl(end=60))
    change(document, lambda found: found.update(collateral=short))
    policy = tmp_path / "policy.json"
    assert simulate(run, policy, document, "--at", "recorded")[0] == 0
    later = service.now + 90
    code, found = simulate(run, policy, document, "--at", utc_text(later))
    assert code == 3
    assert found["records"][0]["reasons"][0]["code"] == "crl_expired"


def test_what_is_no_record_or_no_policy_is_neither_yes_nor_no(run: Any, document: Path) -> None:
    policy, other = document.parent / "policy.json", document.parent / "other.json"
    for text in ("", "{}", '{"format":"anchorhold-receipt/1"}', "[]"):
        other.write_text(text)
        assert simulate(run, policy, other)[0] == 4
        assert simulate(run, policy, document, other)[0] == 4
    assert simulate(run, other, document)[0] == 4
    assert simulate(run, policy, document.parent / "none.json")[0] == 4

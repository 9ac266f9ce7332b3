"""A client judges workers on vendors' hardware itself: raw evidence, carried collateral, offline.

The vendors are simulated and answer nobody here: what a client needs comes beside the evidence, or
from a folder of its own.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from simulators.hardware_tee import AzureSnpTee, NitroTee, SnpTee, TdxTee
from simulators.hardware_workers import KINDS, carried, tee_of
from simulators.service import Service
from simulators.vendor_services import VendorServices

from attestation.anchors import Anchors
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.evidence_collateral import resolve_evidence
from client.api import Client
from wire.errors import AttestationError, ProtocolFailure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulators.answers import Listed

    from client.session import Options

MESSAGES = [{"role": "user", "content": "hello there"}]
every_kind = pytest.mark.parametrize("make", KINDS)


def report(service: Service, options: Options) -> Any:
    """What a client says of the deployment, without sending it anything."""
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options) as client,
    ):
        return client.report()


def refusal(service: Service, options: Options) -> tuple[str, ...]:
    """The reasons for which nothing was sent."""
    found = report(service, options)
    assert isinstance(found.error, AttestationError), found.error
    assert found.exit_code in {2, 3}
    return found.error.reasons


def fill(folder: Path, *workers: Listed) -> None:
    """A folder of the client's own, as `anchorhold collateral fetch` fills it."""
    folder.mkdir(exist_ok=True)
    with VendorServices() as served:
        store = Store(folder)
        for listed in workers:
            tee = tee_of(listed)
            tee.serve(served)
            services = served.services()
            own = frozenset().union(*(rule.anchors.pins for rule in tee.policy().accept))
            vendors = Vendors(services, _random, Anchors(own, simulated=True))
            with HttpFetcher(services) as fetcher:
                for item in listed.evidence:
                    found = resolve_evidence(item, store, vendors, fetcher, tee.now)
                    assert found.complete, found.missing


def _random(length: int) -> bytes:
    return b"\x2a" * length


# ---------------------------------------------------------------- with what the gateway carries


@every_kind
def test_a_client_verifies_the_worker_offline_and_calls_it_simulated(
    service: Service, listed: Listed, options: Callable[..., Options]
) -> None:
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
    ):
        found = client.verify()
        assert (found.trust, found.workers[0].kind) == ("simulated", listed.tee.kind)
        assert all(check.ok for check in found.checks)
        result = client.chat(MESSAGES, "m")
        assert (result.text, result.trust) == ("You said: hello there", "simulated")


@every_kind
def test_a_client_that_asks_for_live_evidence_gets_it(
    service: Service, options: Callable[..., Options]
) -> None:
    found = report(service, options(live=True))
    assert found.error is None
    assert any(check.step.endswith("8 live evidence") and check.ok for check in found.checks)


@pytest.mark.parametrize("make", [SnpTee, TdxTee, AzureSnpTee])
def test_a_gateway_that_carries_no_collateral_is_refused(
    service: Service, options: Callable[..., Options]
) -> None:
    service.carried = {}
    assert "collateral_missing" in refusal(service, options())


def test_documents_of_nitro_need_none(options: Callable[..., Options]) -> None:
    service = Service(kind=NitroTee)
    service.add()
    service.carried = {}
    assert report(service, options()).error is None


def test_a_gateway_that_withholds_the_revocation_list_is_refused(
    service: Service, listed: Listed, options: Callable[..., Options]
) -> None:
    service.carried = carried(listed, crl=None)
    assert refusal(service, options()) == ("revocation_not_checked",)


def test_a_gateway_that_carries_a_list_past_its_end_is_refused(
    service: Service, listed: Listed, options: Callable[..., Options]
) -> None:
    service.carried = carried(listed, crl=tee_of(listed).amd.crl(end=-10))
    assert refusal(service, options())[0] == "crl_expired"


def test_a_gateway_cannot_hide_what_the_list_says(
    service: Service, listed: Listed, options: Callable[..., Options]
) -> None:
    service.carried = carried(listed, crl=tee_of(listed).amd.crl([0x20002]))
    assert refusal(service, options())[0] == "revoked"


def test_another_chips_certificate_does_not_stand_in(
    service: Service, listed: Listed, options: Callable[..., Options]
) -> None:
    other = SnpTee("elsewhere", service.now).chip.cert
    service.carried = carried(listed, endorsement_cert=other)
    assert refusal(service, options())[0] == "chip_id_mismatch"


@pytest.mark.parametrize("make", [TdxTee])
def test_statements_of_another_platform_family_do_not_stand_in(
    service: Service, listed: Listed, options: Callable[..., Options]
) -> None:
    other = TdxTee("elsewhere", service.now).intel
    other.tcb_info["fmspc"] = "00806f050000"
    service.carried = carried(listed, collateral=other.collateral())
    assert refusal(service, options())[0] == "collateral_fmspc_mismatch"


@pytest.mark.parametrize("make", [TdxTee])
def test_collateral_under_another_kinds_name_is_not_looked_at(
    service: Service, listed: Listed, options: Callable[..., Options]
) -> None:
    service.carried = {"intel-sgx-quote": carried(listed)[listed.tee.kind]}
    assert "collateral_missing" in refusal(service, options())


@pytest.mark.parametrize(
    "found", [7, [], {"amd-sev-snp-report": 7}, {"amd-sev-snp-report": {"crl": "!"}}]
)
def test_what_is_no_collateral_is_no_worker_document(
    service: Service, options: Callable[..., Options], found: Any
) -> None:
    service.carried = found
    assert isinstance(report(service, options()).error, ProtocolFailure)


def test_a_policy_without_roots_trusts_the_real_vendor_alone(
    service: Service, listed: Listed, options: Callable[..., Options]
) -> None:
    rule = {name: value for name, value in listed.tee.rule.items() if name != "roots"}
    service.policy_changes["accept"] = [rule]
    assert "untrusted_root" in refusal(service, options())


def test_a_worker_below_the_clients_floor_is_passed_over_for_one_above_it(
    service: Service, listed: Listed, options: Callable[..., Options]
) -> None:
    """A gateway may admit what this client does not want: that is no reason to trust nobody."""
    weak = SnpTee("weak", service.now)
    weak.lies["policy"] = 1 << 17 | 1 << 16  # SMT
    service.add(weak)
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
    ):
        found = client.verify()
        assert [worker.wid for worker in found.workers] == [listed.tee.facts["wid"]]
        assert client.chat(MESSAGES, "m").trust == "simulated"


def test_a_forged_worker_beside_a_genuine_one_is_no_trifle(
    service: Service, options: Callable[..., Options]
) -> None:
    forged = SnpTee("forged", service.now)
    forged.chip = SnpTee("elsewhere", service.now).chip
    forged.statements["endorsement_cert"] = SnpTee("another", service.now).chip.cert
    service.add(forged)
    found = report(service, options())
    assert found.exit_code == 2


# ---------------------------------------------------------------- with a folder of its own


@every_kind
def test_a_folder_of_the_clients_own_is_enough(
    service: Service, listed: Listed, options: Callable[..., Options], tmp_path: Path
) -> None:
    fill(tmp_path / "own", listed)
    service.carried = {}
    assert report(service, options(collateral_dir=tmp_path / "own")).error is None


@pytest.mark.parametrize("make", [SnpTee, TdxTee, AzureSnpTee])
def test_a_client_with_a_folder_takes_nothing_from_the_gateway(
    service: Service, options: Callable[..., Options], tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    assert "collateral_missing" in refusal(service, options(collateral_dir=tmp_path / "own"))


def test_a_folder_older_than_the_policy_allows_is_not_enough(
    service: Service, listed: Listed, options: Callable[..., Options], tmp_path: Path
) -> None:
    fill(tmp_path / "own", listed)
    time.sleep(1.1)
    for age, taken in ((30 * 86_400, True), (1, False)):
        service.policy_changes = {
            "freshness": {"require_beacon": True, "collateral_max_age_s": age}
        }
        found = report(service, options(collateral_dir=tmp_path / "own"))
        assert (found.error is None) is taken


def test_a_folder_that_knows_another_worker_only_is_not_enough(
    service: Service, options: Callable[..., Options], tmp_path: Path
) -> None:
    other = Service(kind=SnpTee)
    fill(tmp_path / "own", other.add(SnpTee("elsewhere", service.now)))
    assert "collateral_missing" in refusal(service, options(collateral_dir=tmp_path / "own"))


def test_what_the_folder_knows_of_a_revocation_counts(
    service: Service, listed: Listed, options: Callable[..., Options], tmp_path: Path
) -> None:
    honest = carried(listed)
    tee_of(listed).revoked = [0x20002]
    fill(tmp_path / "own", listed)
    service.carried = honest
    assert report(service, options()).error is None
    assert refusal(service, options(collateral_dir=tmp_path / "own"))[0] == "revoked"


def test_what_the_gateway_carries_does_not_count_against_the_folder(
    service: Service, listed: Listed, options: Callable[..., Options], tmp_path: Path
) -> None:
    fill(tmp_path / "own", listed)
    service.carried = carried(listed, crl=tee_of(listed).amd.crl([0x20002]))
    assert report(service, options(collateral_dir=tmp_path / "own")).error is None


@pytest.mark.usefixtures("tenant")
def test_the_command_line_takes_the_folder_too(
    run: Any, service: Service, listed: Listed, tmp_path: Path
) -> None:
    fill(tmp_path / "own", listed)
    (tmp_path / "empty").mkdir()
    policy = tmp_path / "policy.json"
    policy.write_bytes(service.policy())
    service.carried = {}
    with service.serve() as server:
        words = ("verify", server.url, "--policy", policy, "--json", "--collateral-dir")
        code, out, _ = run(*words, tmp_path / "own")
        assert (code, json.loads(out)["trust"]) == (0, "simulated")
        assert run(*words, tmp_path / "empty")[0] in {2, 3}

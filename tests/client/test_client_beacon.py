"""A listed binding is dated by the log, and the date is judged under the tenant's policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulators.tee import SoftwareTee

from attestation.binding import Beacon
from client.api import Client
from client.beacon import STEP
from client.clock import wall_clock
from evidence.bundle import verify_bundle
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.service import Service

    from client.session import Options

MESSAGES = [{"role": "user", "content": "hello"}]


def test_every_worker_is_dated_before_it_is_appraised(client: Client) -> None:
    steps = [check for check in client.verify().checks if STEP in check.step]
    assert len(steps) == 3
    assert all(check.ok for check in steps)


def test_a_receipt_verifies_offline_under_a_policy_that_demands_a_beacon(
    client: Client, service: Service
) -> None:
    first = client.chat(MESSAGES, "m")
    service.publish()
    second = client.chat(MESSAGES, "m")
    for answer in (first, second):
        assert answer.receipt is not None
        report = verify_bundle(answer.receipt.bundle, client.policy, wall_clock())
        assert report.exit_code == 0
        dated = next(check for check in report.checks if check.id == "beacon")
        assert dated.ok
        assert dated.detail.startswith("entry 0, at ")


def only(service: Service, tee: SoftwareTee) -> None:
    service.workers.clear()
    service.add(tee)


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ("none", "beacon_missing"),
        ("foreign log", "beacon_unverified"),
        ("forged root", "beacon_unverified"),
        ("stale", "beacon_stale"),
        ("of the future", "beacon_stale"),
    ],
)
def test_a_binding_with_a_wrong_beacon_is_refused(
    service: Service, options: Callable[..., Options], fact: str, reason: str
) -> None:
    tee, honest = SoftwareTee("odd", service.now), service.beacon
    tee.facts["beacon"] = {
        "none": None,
        "foreign log": Beacon("elsewhere/log", honest.size, honest.root),
        "forged root": Beacon(honest.log, honest.size, bytes(32)),
    }.get(fact, honest)
    if fact in ("stale", "of the future"):
        service.log.clock_ms = (service.now + (-601 if fact == "stale" else 300)) * 1000
        service.publish()
        tee.facts["beacon"] = service.beacon
    only(service, tee)
    service.publish()
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
    ):
        report = client.report()
        assert isinstance(report.error, AttestationError)
        assert report.error.reasons == (reason,)
        with pytest.raises(AttestationError):
            client.chat(MESSAGES, "m")
    assert all(seen.path != "/v1/sealed" for seen in service.seen)


def test_the_report_says_why_a_beacon_was_not_dated(client: Client, service: Service) -> None:
    service.lies.add("forked_beacon")
    report = client.report()
    (why,) = {check.detail for check in report.checks if STEP in check.step}
    assert "consistency proof does not lead" in why

"""The report of a verification: every check with its result, and an exit code a script can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from attestation.result import Check
from client.api import Client
from client.report import Verification, exit_code, weakest
from client.verify import STEPS
from wire.errors import (
    AnchorholdError,
    AttestationError,
    BelowPolicyError,
    ConfigError,
    ForkError,
    FrameError,
    GatewayError,
    MalformedError,
    PolicyExpiredError,
    UnavailableError,
)
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.service import Service

    from client.session import Options


def test_an_honest_deployment_passes_every_numbered_step(client: Client) -> None:
    report = client.verify()
    assert report.ok
    assert report.exit_code == 0
    assert report.trust == "software"
    steps = [check.step for check in report.checks]
    for step in STEPS:
        assert any(step in name for name in steps), step
    assert len(report.workers) == 3
    assert {worker.trust for worker in report.workers} == {"software"}


def test_a_failure_lists_what_passed_what_failed_and_what_did_not_run(
    client: Client, service: Service
) -> None:
    service.lies.add("unsigned_directory")
    report = client.report()
    assert not report.ok
    assert report.trust is None
    assert report.exit_code == 2
    results = {check.step: check.ok for check in report.checks}
    assert results[STEPS[0]] is True
    assert results[STEPS[1]] is False
    assert results[STEPS[4]] is None
    with pytest.raises(AnchorholdError):
        report.require()


def test_verification_is_always_fresh(client: Client, service: Service) -> None:
    client.verify()
    service.lies.add("swapped_evidence")
    assert client.report().exit_code == 2


@pytest.mark.parametrize(("ok", "said"), [(None, "did not run"), (False, "failed")])
def test_a_check_that_did_not_pass_is_required_too(ok: bool | None, said: str) -> None:
    checks = (Check("1 first", True, ""), Check("2 second", ok, ""))
    report = Verification("u", "p", checks, (), "", None, None)
    assert not report.ok
    with pytest.raises(BelowPolicyError, match=f"'2 second' {said}"):
        report.require()


def change_policy(service: Service, name: str) -> None:
    base = service._first_tee.demands
    changes: dict[str, dict[str, Any]] = {
        "software not allowed": {"allow_software": False},
        "other measurement": {
            "accept": [{**base["accept"][0], "measurements": [sha256_tag(b"x")]}]
        },
        "posture demanded": {
            "accept": [{**base["accept"][0], "posture": {"memfd_secret": "applied"}}]
        },
        "other service policy": {"service_policies": [sha256_tag(b"x")]},
        "more workers": {"min_workers": 9},
        "expired": {"not_before": 1, "expires": 2},
        "other audience": {"aud": "elsewhere"},
    }
    service.policy_changes |= changes[name]


@pytest.mark.parametrize(
    ("name", "code", "exits"),
    [
        ("software not allowed", "attestation_failed", 3),
        ("other measurement", "attestation_failed", 3),
        ("posture demanded", "attestation_failed", 3),
        ("other service policy", "attestation_failed", 3),
        ("more workers", "below_policy", 3),
        ("expired", "policy_expired", 3),
        ("other audience", "directory_invalid", 2),
    ],
)
def test_each_policy_demand_has_its_own_refusal(
    service: Service, options: Callable[..., Options], name: str, code: str, exits: int
) -> None:
    with service.serve() as server:
        change_policy(service, name)
        with Client(
            server.url, service.api_key, policy=service.policy(), options=options()
        ) as client:
            report = client.report()
            assert report.error is not None
            assert report.error.code == code
            assert report.exit_code == exits
            with pytest.raises(AnchorholdError):
                client.chat([{"role": "user", "content": "x"}], "m")
    assert all(seen.path != "/v1/sealed" for seen in service.seen)


def test_a_worker_below_policy_is_passed_over_while_others_serve(
    service: Service, options: Callable[..., Options]
) -> None:
    from simulators.tee import SoftwareTee

    odd = SoftwareTee("odd", service.now)
    odd.parts = {**odd.parts, "first_party": sha256_tag(b"next release")}
    odd.facts["image"] = odd.measurement()
    service.add(odd)
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
    ):
        for _ in range(4):
            report = client.report()
            assert report.ok
            assert all(worker.wid != "worker-odd" for worker in report.workers)
            assert all(
                "measurement" in check.detail for check in report.passed_over if not check.ok
            )


def test_the_json_form_is_complete(client: Client) -> None:
    document = client.verify().to_json()
    assert document["ok"] is True
    assert document["trust"] == "software"
    assert document["exit_code"] == 0
    assert {"step", "ok", "detail"} == set(document["checks"][0])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ForkError("x"), 2),
        (AttestationError("x", reasons=("signature_invalid",)), 2),
        (AttestationError("x", reasons=("software_not_allowed",)), 3),
        (AttestationError("x", reasons=("software_not_allowed", "signature_invalid")), 2),
        (AttestationError("x"), 2),
        (BelowPolicyError("x"), 3),
        (PolicyExpiredError("x"), 3),
        (ConfigError("x"), 4),
        (UnavailableError("x"), 4),
        (GatewayError(status=500), 4),
        (MalformedError("the caller's own request"), 4),
        (FrameError("x"), 2),
    ],
)
def test_exit_codes(error: AnchorholdError, code: int) -> None:
    assert exit_code(error) == code


def test_the_weakest_level_is_the_requests_level() -> None:
    assert weakest(["hardware", "software", "vtpm"]) == "software"
    assert weakest(["hardware", "simulated"]) == "simulated"
    assert weakest([]) is None

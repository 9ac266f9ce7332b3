"""Live evidence is the listed binding with our nonce in it, and evidence made for that, now."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.challenge_lies import LIVE_LIES
from simulators.service import Service
from simulators.tee import SoftwareTee
from simulators.tpm import TpmTee
from simulators.worker_peer import tpm_secret

from client.api import Client
from client.async_api import AsyncClient
from wire.errors import AttestationError, GatewayError, ProtocolFailure
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulators.loopback import Loopback

    from client.session import Options

MESSAGES = [{"role": "user", "content": "hello"}]
REFUSED = {
    "live_other_kem": "live_mismatch",
    "live_other_boot": "live_mismatch",
    "live_other_model": "live_mismatch",
    "live_longer_life": "live_mismatch",
    "live_other_beacon": "live_mismatch",
    "live_other_posture": "live_mismatch",
    "live_no_nonce": "nonce_mismatch",
    "live_other_nonce": "nonce_mismatch",
    "live_evidence_of_another_worker": "report_data_mismatch",
    "live_listed_evidence": "report_data_mismatch",
    "live_no_posture": "posture_missing",
    "live_malformed": "binding_malformed",
}


def connect(service: Service, server: Loopback, options: Options) -> Client:
    return Client(server.url, service.api_key, policy=service.policy(), options=options)


def questions(service: Service) -> list[dict[str, Any]]:
    """The challenges a service was asked; an empty one only tests the API key."""
    bodies = [seen.body for seen in service.seen if seen.path.endswith("/challenge")]
    return [json.loads(body) for body in bodies if body != b"{}"]


def sealed(service: Service) -> int:
    return sum(seen.path == "/v1/sealed" for seen in service.seen)


def test_every_lie_about_live_evidence_has_a_test() -> None:
    assert {*REFUSED, "live_recorded", "live_without_evidence"} == LIVE_LIES


def test_live_evidence_is_asked_of_every_candidate_before_the_first_prompt(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    with connect(service, server, options(live=True)) as client:
        report = client.verify()
        steps = [check for check in report.checks if check.step.endswith("8 live evidence")]
        assert [check.ok for check in steps] == [True] * 3
        assert {check.detail for check in steps} == {"answers our nonce"}
        nonces = [question["nonce"] for question in questions(service)]
        assert len(set(nonces)) == 3
        assert client.chat(MESSAGES, "m").text == "You said: hello"
        client.chat(MESSAGES, "m")
    assert len(questions(service)) == 3  # the verdicts are kept until they expire


def test_without_the_option_software_workers_are_not_asked(
    client: Client, service: Service
) -> None:
    report = client.verify()
    (detail,) = {c.detail for c in report.checks if c.step.endswith("8 live evidence")}
    assert detail == "not needed for this kind"
    assert questions(service) == []


async def test_the_async_client_asks_as_well(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    async with AsyncClient(
        server.url, service.api_key, policy=service.policy(), options=options(live=True)
    ) as client:
        await client.chat(MESSAGES, "m")
    assert len(questions(service)) == 3


@pytest.mark.parametrize("lie", sorted(REFUSED))
def test_a_live_answer_with_one_fact_wrong_is_refused_and_nothing_is_sent(
    service: Service, server: Loopback, options: Callable[..., Options], lie: str
) -> None:
    service.lies.add(lie)
    with connect(service, server, options(live=True)) as client:
        with pytest.raises(AttestationError) as caught:
            client.chat(MESSAGES, "m")
        assert caught.value.reasons[0] == REFUSED[lie]
        report = client.report()
    assert not report.ok
    assert any(c.step.endswith("8 live evidence") and c.ok is False for c in report.checks)
    assert sealed(service) == 0


def test_an_answer_recorded_earlier_is_refused(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    service.lies.add("live_recorded")
    with connect(service, server, options(live=True)) as client:
        client.verify()  # recorded here
        with pytest.raises(AttestationError) as caught:
            client.verify()
    assert caught.value.reasons == ("nonce_mismatch",)


def test_an_answer_to_one_tenants_nonce_answers_no_other_tenant(
    service: Service, server: Loopback, options: Callable[..., Options], tmp_path: Path
) -> None:
    """No nonce is handed out that a second caller could be told as well: each draws its own."""
    service.lies.add("live_recorded")
    with connect(service, server, options(live=True, state_dir=tmp_path / "one")) as one:
        assert one.verify().ok  # recorded here
    with (
        connect(service, server, options(live=True, state_dir=tmp_path / "two")) as two,
        pytest.raises(AttestationError) as caught,
    ):
        two.verify()
    assert caught.value.reasons == ("nonce_mismatch",)
    nonces = [question["nonce"] for question in questions(service)]
    assert len(set(nonces)) == len(nonces)
    assert sealed(service) == 0


def test_a_reply_without_evidence_is_a_protocol_failure(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    service.lies.add("live_without_evidence")
    with (
        connect(service, server, options(live=True)) as client,
        pytest.raises(ProtocolFailure, match="evidence"),
    ):
        client.chat(MESSAGES, "m")
    assert sealed(service) == 0


def test_a_worker_that_nobody_can_ask_is_passed_over_and_alone_is_an_error(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    service.unanswered = {service.workers[0].bh}
    with connect(service, server, options(live=True)) as client:
        assert len(client.verify().workers) == 2
    service.unanswered = {worker.bh for worker in service.workers}
    with (
        connect(service, server, options(live=True)) as client,
        pytest.raises(GatewayError) as caught,
    ):
        client.chat(MESSAGES, "m")
    assert caught.value.status == 503
    assert sealed(service) == 0


def refusal(
    tee: SoftwareTee | TpmTee, options: Callable[..., Options]
) -> tuple[Service, AttestationError]:
    """Of the only worker there is, and what was asked before."""
    service = Service()
    service._first_tee = tee  # type: ignore[assignment]
    service.add(tee)
    service.publish()
    with (
        service.serve() as server,
        connect(service, server, options(live=True)) as client,
        pytest.raises(AttestationError) as caught,
    ):
        client.chat(MESSAGES, "m")
    return service, caught.value


@pytest.mark.parametrize("wid", [".", "..", "a/../b", "a b", "a?b", "a%2fb", "a#b"])
def test_a_name_that_is_no_segment_of_a_path_is_asked_nothing(
    options: Callable[..., Options], wid: str
) -> None:
    """It would choose what the client asks, and of whom, before anything in it is verified."""
    tee = SoftwareTee("w", Service().now)
    tee.facts["wid"] = wid
    service, error = refusal(tee, options)
    assert error.reasons == ("binding_malformed",)
    assert not any(seen.method == "POST" for seen in service.seen)


def test_live_evidence_of_another_kind_than_listed_is_refused(
    options: Callable[..., Options],
) -> None:
    """A TPM worker that can only show software evidence live has not shown its TPM."""
    _, error = refusal(_TwoFaced("two", Service().now), options)
    assert error.reasons == ("live_mismatch",)


def test_evidence_of_a_kind_that_the_policy_does_not_accept_is_not_challenged(
    options: Callable[..., Options],
) -> None:
    """A challenge costs the worker's TPM time, for evidence that is refused all the same."""
    now = Service().now
    tee = TpmTee("tpm", now)
    tee.demands["allow_software"] = True
    tee.demands["accept"] = [SoftwareTee("tpm", now).rule]
    service, error = refusal(tee, options)
    assert error.reasons == ("kind_not_accepted",)
    assert questions(service) == []


def test_evidence_that_cannot_be_challenged_is_refused_for_what_it_is(
    options: Callable[..., Options],
) -> None:
    service, error = refusal(_Garbled("tpm", Service().now), options)
    assert error.reasons == ("evidence_malformed",)
    assert questions(service) == []


class _Garbled(TpmTee):
    """Lists a quote that is none."""

    def evidence(self, binding_raw: bytes) -> Any:
        return replace(super().evidence(binding_raw), body=b"{}")


class _TwoFaced(TpmTee):
    """Lists a TPM's quote; under a challenge it shows what a software root signs."""

    def __init__(self, seed: str, now: int) -> None:
        super().__init__(seed, now)
        self.plain = SoftwareTee(seed, now)
        self.demands["allow_software"] = True
        self.demands["accept"] = [self.rule, self.plain.rule]

    def evidence(self, binding_raw: bytes) -> Any:
        if b'"nonce":null' in binding_raw:
            return super().evidence(binding_raw)
        return self.plain.evidence(binding_raw)

    def activate(self, credential: Any) -> Any:
        return {"secret": b64u(tpm_secret(self, credential.to_json()))}

"""Strict mode: no prompt before every candidate has answered a ping under its own key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulators.ping_lies import PING_LIES

from client.api import Client
from client.async_api import AsyncClient
from wire.envelope import parse_envelope
from wire.errors import AttestationError, GatewayError, StreamTruncated, WorkerNotice

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.session import Options
    from wire.envelope import Envelope

MESSAGES = [{"role": "user", "content": "hello"}]
UNPROVEN = sorted(PING_LIES - {"ping_replayed", "ping_no_final"})


def connect(service: Service, server: Loopback, options: Options) -> Client:
    return Client(server.url, service.api_key, policy=service.policy(), options=options)


def sent(service: Service) -> list[Envelope]:
    return [parse_envelope(seen.body) for seen in service.seen if seen.path == "/v1/sealed"]


def ops(service: Service) -> list[str]:
    return [envelope.header.op for envelope in sent(service)]


def test_each_candidate_answers_a_ping_of_its_own_before_the_first_prompt(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    with connect(service, server, options(strict=True)) as client:
        assert client.chat(MESSAGES, "m").text == "You said: hello"
        assert ops(service) == ["ping", "ping", "ping", "chat"]
        *pings, chat = sent(service)
        assert all(len(ping.kids) == 1 for ping in pings)
        assert {ping.kids[0] for ping in pings} == set(chat.kids)
        assert len({ping.header.rid for ping in pings}) == 3
        client.chat(MESSAGES, "m")
        assert ops(service)[4:] == ["chat"]  # proven until the verdict expires


def test_strict_implies_live_evidence(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    with connect(service, server, options(strict=True)) as client:
        report = client.verify()
    live = [check for check in report.checks if check.step.endswith("8 live evidence")]
    pinged = [check for check in report.checks if check.step.endswith("12 key answers a ping")]
    assert {check.detail for check in live} == {"answers our nonce"}
    assert [check.ok for check in pinged] == [True] * 3
    assert {check.detail for check in pinged} == {f"key {worker.kid}" for worker in report.workers}


def test_without_the_option_no_ping_is_sent_and_no_check_is_named(
    client: Client, service: Service
) -> None:
    report = client.verify()
    client.chat(MESSAGES, "m")
    assert ops(service) == ["chat"]
    assert not any("ping" in check.step for check in report.checks)


def test_a_verification_that_ends_early_says_that_no_key_was_pinged(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    service.lies.add("unsigned_directory")
    with connect(service, server, options(strict=True)) as client:
        report = client.report()
    (ping,) = [check for check in report.checks if check.step == "12 key answers a ping"]
    assert ping.ok is None


def test_a_new_worker_is_pinged_before_it_gets_a_prompt(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    with connect(service, server, options(strict=True)) as client:
        client.chat(MESSAGES, "m")
        for number, worker in enumerate(list(service.workers)):
            service.rotate(worker, f"restarted-{number}")
        client.chat(MESSAGES, "m")
    *_, last = sent(service)
    pinged = {kid for one in sent(service) if one.header.op == "ping" for kid in one.kids}
    assert last.header.op == "chat"
    assert set(last.kids) <= pinged


async def test_the_async_client_pings_as_well(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    async with AsyncClient(
        server.url, service.api_key, policy=service.policy(), options=options(strict=True)
    ) as client:
        assert (await client.verify()).ok
        await client.chat(MESSAGES, "m")
    assert ops(service)[:4] == ["ping", "ping", "ping", "chat"]


@pytest.mark.parametrize("lie", [*UNPROVEN, "edited", "wrong_type", "trailing_bytes"])
def test_a_ping_answered_wrongly_refuses_the_worker_and_no_prompt_is_sent(
    service: Service, server: Loopback, options: Callable[..., Options], lie: str
) -> None:
    service.lies.add(lie)
    with connect(service, server, options(strict=True)) as client:
        with pytest.raises(AttestationError) as caught:
            client.chat(MESSAGES, "m")
        assert caught.value.code == "possession_unproven"
        assert caught.value.reasons == ("possession_unproven",)
        report = client.report()
    assert report.exit_code == 2
    assert any(c.step.endswith("12 key answers a ping") and c.ok is False for c in report.checks)
    assert set(ops(service)) == {"ping"}


def test_an_answer_to_an_earlier_ping_proves_nothing(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    service.lies.add("ping_replayed")
    with connect(service, server, options(strict=True)) as client:
        client.verify()  # honest, and recorded
        with pytest.raises(AttestationError, match="another request") as caught:
            client.verify()
    assert caught.value.code == "possession_unproven"


def test_a_ping_cut_off_before_its_end_proves_nothing(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    service.lies.add("ping_no_final")
    with (
        connect(service, server, options(strict=True)) as client,
        pytest.raises(StreamTruncated),
    ):
        client.chat(MESSAGES, "m")
    assert set(ops(service)) == {"ping"}


def test_a_ping_the_gateway_refuses_passes_over_the_worker(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    absent = service.workers[0]
    service.busy = {absent.bh}
    with connect(service, server, options(strict=True)) as client:
        assert client.chat(MESSAGES, "m").text == "You said: hello"
    *_, chat = sent(service)
    assert len(chat.kids) == 2
    assert {kem.kid for kem in absent.tee.facts["kems"]}.isdisjoint(chat.kids)


def test_pings_refused_for_every_worker_are_the_gateways_error(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    service.lies.add("gateway_error")
    with (
        connect(service, server, options(strict=True)) as client,
        pytest.raises(GatewayError) as caught,
    ):
        client.chat(MESSAGES, "m")
    assert caught.value.status == 503
    assert set(ops(service)) == {"ping"}


def test_a_workers_signed_refusal_of_a_ping_is_its_own_error(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> None:
    service.lies.add("honest_notice")
    with (
        connect(service, server, options(strict=True)) as client,
        pytest.raises(WorkerNotice) as caught,
    ):
        client.chat(MESSAGES, "m")
    assert caught.value.code == "open_failed"
    assert set(ops(service)) == {"ping"}

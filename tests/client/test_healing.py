"""Rotation, restarts, re-wraps: the client repairs itself, through full verification, boundedly."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from simulators.answers import Answer
from simulators.tee import SoftwareTee

from client.api import Client
from wire.errors import BelowPolicyError, GatewayError, UnavailableError, WorkerNotice
from wire.ids import b64u, sha256_tag
from wire.problems import KID_UNKNOWN, NO_WORKER, REWRAP_NEEDED, problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.session import Options

MESSAGES = [{"role": "user", "content": "hello"}]


def paths(service: Service) -> list[str]:
    return [seen.path for seen in service.seen]


def test_key_rotation_heals_without_the_caller_noticing(client: Client, service: Service) -> None:
    assert client.chat(MESSAGES, "m").text == "You said: hello"
    for number, worker in enumerate(list(service.workers)):
        service.rotate(worker, f"restarted-{number}")
    assert client.chat(MESSAGES, "m").text == "You said: hello"


def test_candidates_are_drawn_anew_for_every_request(client: Client, service: Service) -> None:
    for number in range(5):
        service.add()
        del number
    service.publish()
    from wire.envelope import parse_envelope

    for _ in range(12):
        client.chat(MESSAGES, "m")
    drawn = {
        frozenset(parse_envelope(seen.body).kids)
        for seen in service.seen
        if seen.path == "/v1/sealed"
    }
    assert all(len(kids) == 3 for kids in drawn)
    assert len(drawn) > 1


def test_verified_workers_are_cached_until_the_directory_changes(
    client: Client, service: Service
) -> None:
    client.chat(MESSAGES, "m")
    before = [path for path in paths(service) if path.startswith("/v1/keys")]
    client.chat(MESSAGES, "m")
    after = [path for path in paths(service) if path.startswith("/v1/keys")]
    assert after == before


def test_a_lost_candidate_set_costs_one_rewrap_not_the_body_again(
    service: Service, options: Callable[..., Options]
) -> None:
    for _ in range(3):
        service.add()
    service.publish()
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
    ):
        service.fail_next.append((409, problem(REWRAP_NEEDED, 409, "no candidate is left")))
        assert client.chat(MESSAGES, "m").text == "You said: hello"
    sealed = [seen for seen in service.seen if seen.path.startswith("/v1/sealed")]
    assert [seen.path.rsplit("/", 1)[-1] for seen in sealed] == ["sealed", "wraps"]
    assert len(sealed[1].body) < len(sealed[0].body)


def test_a_gateway_cannot_widen_a_request_beyond_eight_keys(
    service: Service, options: Callable[..., Options]
) -> None:
    for _ in range(9):
        service.add()
    service.publish()
    refusal = (409, problem(REWRAP_NEEDED, 409, "no candidate is left"))
    service.fail_next.extend([refusal] * 20)
    clock = _FastClock()
    with (
        service.serve() as server,
        Client(
            server.url, service.api_key, policy=service.policy(), options=options(tick=clock)
        ) as client,
        pytest.raises(GatewayError),
    ):
        client.chat(MESSAGES, "m")
    sealed = [seen for seen in service.seen if seen.path == "/v1/sealed"]
    wraps = [seen for seen in service.seen if seen.path.endswith("/wraps")]
    assert len(sealed) == 2
    assert len(wraps) <= 4
    by_request: dict[str, int] = {}
    for seen in wraps:
        by_request[seen.path] = by_request.get(seen.path, 3) + seen.body[0]
    assert max(by_request.values()) <= 8


class _FastClock:
    """A monotonic clock that makes every refresh allowed at once."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10.0
        return self.now


def test_kid_unknown_is_believed_once_then_reported(client: Client, service: Service) -> None:
    refusal = (409, problem(KID_UNKNOWN, 409, "a key is not in the current directory"))
    service.fail_next.extend([refusal] * 10)
    with pytest.raises(GatewayError) as caught:
        client.chat(MESSAGES, "m")
    assert caught.value.type == KID_UNKNOWN
    assert paths(service).count("/v1/sealed") == 2
    assert paths(service).count("/v1/keys") == 2


def test_a_second_forced_refresh_waits_out_the_five_seconds(
    service: Service, options: Callable[..., Options]
) -> None:
    clock = _Clock()
    waited: list[float] = []
    with (
        service.serve() as server,
        Client(
            server.url, service.api_key, policy=service.policy(), options=options(tick=clock)
        ) as client,
    ):
        refusal = (409, problem(KID_UNKNOWN, 409, "not known"))
        service.fail_next.append(refusal)
        client.chat(MESSAGES, "m")
        view = client._session.verifier.directory
        waited.append(view.wait_for_refresh())
        clock.now += 4.0
        waited.append(view.wait_for_refresh())
        clock.now += 1.5
        waited.append(view.wait_for_refresh())
    assert waited == [5.0, 1.0, 0.0]


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_refusal_that_says_nothing_about_keys_is_not_repeated(
    client: Client, service: Service
) -> None:
    service.fail_next.append((503, problem(NO_WORKER, 503, "no worker", retry_after=2)))
    with pytest.raises(GatewayError) as caught:
        client.chat(MESSAGES, "m")
    assert caught.value.retry_after == 2
    assert paths(service).count("/v1/sealed") == 1


def test_nothing_is_repeated_after_the_first_byte(client: Client, service: Service) -> None:
    service.lies.add("truncated")
    with pytest.raises(Exception, match="authenticated end"):
        list(client.chat(MESSAGES, "m", stream=True))
    assert paths(service).count("/v1/sealed") == 1


def test_an_expired_directory_is_fetched_again(
    service: Service, options: Callable[..., Options]
) -> None:
    service.life_s = 20
    now = [service.now]
    with (
        service.serve() as server,
        Client(
            server.url,
            service.api_key,
            policy=service.policy(),
            options=options(clock=lambda: now[0]),
        ) as client,
    ):
        client.chat(MESSAGES, "m")
        service.publish()
        now[0] += 10  # within the margin before the first one's end
        client.chat(MESSAGES, "m")
    assert paths(service).count("/v1/keys") == 2


def test_a_worker_that_was_denied_is_dropped_with_the_next_directory(
    client: Client, service: Service
) -> None:
    client.chat(MESSAGES, "m")
    denied = service.workers[0]
    service.publish(deny=[denied.bh])
    report = client.verify()
    listed = {worker.bh for worker in report.workers}
    assert b64u(denied.bh) not in listed
    assert len(listed) == 2


def test_a_sealed_refusal_is_the_workers_own_word(client: Client, service: Service) -> None:
    error = {
        "message": "too long",
        "type": "invalid_request_error",
        "code": "context",
        "param": None,
    }
    service.answer = lambda body: Answer("", status=400, error=error)
    with pytest.raises(WorkerNotice, match="too long") as caught:
        client.chat(MESSAGES, "m")
    assert caught.value.code == "context"
    with pytest.raises(WorkerNotice, match="too long"):
        client.chat(MESSAGES, "m", stream=True)
    reply = client.request("/v1/chat/completions", {"model": "m", "messages": MESSAGES})
    assert reply.status == 400
    assert reply.receipt is None
    assert reply.trust == "software"


def test_an_error_in_mid_stream_is_raised_after_the_text_before_it(
    client: Client, service: Service
) -> None:
    service.answer = lambda body: Answer(
        "one two three", failure={"code": "engine_error", "message": "the engine stopped"}
    )
    seen: list[Any] = []
    with pytest.raises(WorkerNotice, match="engine stopped") as caught:
        seen.extend(delta.text for delta in client.chat(MESSAGES, "m", stream=True))
    assert caught.value.code == "engine_error"


def test_leaving_a_stream_early_cancels_it(client: Client, service: Service) -> None:
    service.pause_s = 0.05
    service.answer = lambda body: Answer(" ".join(str(n) for n in range(200)))
    with client.chat(MESSAGES, "m", stream=True) as stream:
        next(iter(stream))
    assert not stream.complete
    deadline = time.monotonic() + 5
    while not service.cancelled and time.monotonic() < deadline:
        time.sleep(0.02)
    assert service.cancelled


def test_a_gateway_that_restarts_is_waited_for(
    service: Service, options: Callable[..., Options]
) -> None:
    with service.serve() as first:
        port = first.port
        client = Client(
            first.url, service.api_key, policy=service.policy(), options=options(patient=True)
        )
        client.chat(MESSAGES, "m")
    with service.serve(port=port):
        assert client.chat(MESSAGES, "m").text == "You said: hello"
    client.close()


def test_a_gateway_that_is_not_there_is_said_with_its_url(
    service: Service, options: Callable[..., Options], server: Loopback
) -> None:
    with (
        Client(
            "http://127.0.0.1:9", service.api_key, policy=service.policy(), options=options()
        ) as client,
        pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:9"),
    ):
        client.chat(MESSAGES, "m")


def test_a_worker_that_is_gone_is_replaced_from_a_newer_directory(
    client: Client, service: Service
) -> None:
    client.models()  # verifies the directory and one worker; the others are not cached
    for number, worker in enumerate(list(service.workers)):
        service.rotate(worker, f"next-{number}")
    assert client.chat(MESSAGES, "m").text == "You said: hello"
    assert paths(service).count("/v1/keys") == 2


def test_a_worker_below_policy_is_not_asked_again_until_the_directory_changes(
    service: Service, options: Callable[..., Options]
) -> None:
    odd = SoftwareTee("odd", service.now)
    odd.parts = {**odd.parts, "first_party": sha256_tag(b"next release")}
    odd.facts["image"] = odd.measurement()
    listed = service.add(odd)
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
    ):
        for _ in range(12):
            client.chat(MESSAGES, "m")
        asked = paths(service).count(f"/v1/keys/{b64u(listed.bh)}")
        assert asked <= 1


def test_workers_that_come_back_are_found_without_waiting_for_the_lists_end(
    client: Client, service: Service
) -> None:
    service.policy_changes["min_workers"] = 1
    gone = list(service.workers)
    service.workers.clear()
    service.publish()
    with pytest.raises(BelowPolicyError, match="at least 1 workers for 'm' expected, found 0"):
        client.chat(MESSAGES, "m")
    service.workers.extend(gone)
    service.publish()
    clock = time.monotonic()
    while True:  # a refresh for want of workers is allowed every five seconds
        try:
            assert client.chat(MESSAGES, "m").text == "You said: hello"
            break
        except BelowPolicyError:
            assert time.monotonic() - clock < 8, "the old list must not be believed to its end"
            time.sleep(0.25)


def test_a_short_list_costs_no_more_than_one_refresh_at_a_time(
    client: Client, service: Service
) -> None:
    service.workers.clear()
    service.publish()
    for _ in range(6):
        with pytest.raises(BelowPolicyError, match="found 0") as caught:
            client.chat(MESSAGES, "m")
    assert "min_workers" in caught.value.hint
    assert 1 <= paths(service).count("/v1/keys") <= 3
    assert "/v1/sealed" not in paths(service)


def test_a_list_shorter_than_the_policys_minimum_is_refused_before_any_worker_is_asked(
    service: Service, options: Callable[..., Options]
) -> None:
    service.policy_changes["min_workers"] = 4
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
        pytest.raises(BelowPolicyError, match="at least 4 workers"),
    ):
        client.chat(MESSAGES, "m")
    assert all(path == "/v1/keys" for path in paths(service) if path.startswith("/v1/keys"))

"""One worker under several bindings is one candidate; two epochs of it are usable, and one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulators.service import Service
from simulators.tee import SoftwareTee

from client.api import Client
from evidence.directory import WorkerEntry
from wire.errors import AttestationError, BelowPolicyError
from wire.suites import HYBRID, X25519

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.session import Options

MESSAGES = [{"role": "user", "content": "hello"}]


def same_wid(tee: SoftwareTee, first: SoftwareTee) -> None:
    tee.facts["wid"] = first.facts["wid"]


def same_boot(tee: SoftwareTee, first: SoftwareTee) -> None:
    tee.facts["boot"] = tee.posture_boot = first.posture_boot


def same_sig(tee: SoftwareTee, first: SoftwareTee) -> None:
    tee.sig = tee.posture_signer = first.sig
    tee.facts["sig_pk"] = first.facts["sig_pk"]


def same_kid(tee: SoftwareTee, first: SoftwareTee) -> None:
    for other in (tee, first):
        other.facts["kems"] = [other.kem(HYBRID), first.kem(X25519)]


SHARED: list[Callable[[SoftwareTee, SoftwareTee], None]] = [same_wid, same_boot, same_sig, same_kid]


def epoch(seed: str, number: int, now: int) -> SoftwareTee:
    """Another epoch of one process start: new encapsulation key, everything else as before."""
    tee = SoftwareTee(seed, now)
    tee.facts["epoch"] = number
    tee.keys = SoftwareTee(f"{seed}-{number}", now).keys if number else tee.keys
    tee.facts["kems"] = [tee.kem(HYBRID)]
    return tee


def connect(service: Service, url: str, options: Callable[..., Options]) -> Client:
    return Client(url, service.api_key, policy=service.policy(), options=options())


@pytest.mark.parametrize("share", SHARED, ids=lambda share: share.__name__)
def test_a_worker_that_repeats_one_fact_of_another_is_not_a_second_candidate(
    options: Callable[..., Options], share: Callable[[SoftwareTee, SoftwareTee], None]
) -> None:
    service = Service()
    first, second = (SoftwareTee(seed, service.now) for seed in ("a", "b"))
    share(second, first)
    for tee in (first, second):
        service.add(tee)
    service.publish(
        workers=[
            WorkerEntry((worker.tee.kem(HYBRID).kid,), worker.bh, worker.verdict, ("m",))
            for worker in service.workers
        ]
    )
    with service.serve() as server, connect(service, server.url, options) as client:
        assert len(client.verify().workers) == 1
    service.policy_changes["min_workers"] = 2
    with (
        service.serve() as server,
        connect(service, server.url, options) as client,
        pytest.raises(BelowPolicyError, match="at least 2 distinct workers"),
    ):
        client.chat(MESSAGES, "m")
    assert [seen.path for seen in service.seen].count("/v1/sealed") == 0


def test_one_worker_under_three_bindings_is_below_a_minimum_of_three(
    options: Callable[..., Options],
) -> None:
    service = Service()
    service.policy_changes["min_workers"] = 3
    for number in range(3):
        service.add(epoch("w", number, service.now))
    with (
        service.serve() as server,
        connect(service, server.url, options) as client,
        pytest.raises(BelowPolicyError, match=r"at least 3 distinct workers .*found 1"),
    ):
        client.chat(MESSAGES, "m")


def test_a_list_that_is_seen_to_be_padded_is_below_a_minimum_above_k(
    options: Callable[..., Options],
) -> None:
    """Two of four entries are one worker's: once both were drawn, three workers at most remain."""
    service = Service()
    service.policy_changes |= {"k": 2, "min_workers": 4}
    for number in range(2):
        service.add(epoch("w", number, service.now))
    for seed in ("x", "y"):
        service.add(SoftwareTee(seed, service.now))
    caught: BelowPolicyError | None = None
    with service.serve() as server, connect(service, server.url, options) as client:
        for _ in range(64):  # each request draws anew, until both epochs were seen
            try:
                client.chat(MESSAGES, "m")
            except BelowPolicyError as error:
                caught = error
                break
        assert caught is not None
        assert "at least 4 workers for 'm' expected, found 3 in 4 entries" in caught.message
        with pytest.raises(BelowPolicyError):  # and remembered: no later draw forgets it
            client.chat(MESSAGES, "m")


def test_a_minimum_above_k_is_met_by_a_long_enough_list_of_distinct_workers(
    options: Callable[..., Options],
) -> None:
    service = Service()
    service.policy_changes |= {"k": 2, "min_workers": 3}
    for number in range(2):
        service.add(epoch("w", number, service.now))
    for seed in ("x", "y"):
        service.add(SoftwareTee(seed, service.now))
    with service.serve() as server, connect(service, server.url, options) as client:
        assert len(client.verify().workers) == 2
        for _ in range(12):
            assert client.chat(MESSAGES, "m").text == "You said: hello"


def test_two_epochs_are_both_usable_and_count_as_one_worker(
    options: Callable[..., Options],
) -> None:
    service = Service()
    for number in range(2):
        service.add(epoch("w", number, service.now))
    drawn: set[str] = set()
    with service.serve() as server, connect(service, server.url, options) as client:
        for _ in range(64):  # each draw is a fair coin
            [worker] = client.verify().workers
            drawn.add(worker.bh)
            if len(drawn) == 2:
                break
        assert client.chat(MESSAGES, "m").text == "You said: hello"
    assert len(drawn) == 2


def test_a_binding_made_for_somebodys_challenge_is_refused(
    options: Callable[..., Options],
) -> None:
    service = Service()
    tee = SoftwareTee("w", service.now)
    tee.facts["nonce"] = b"\x07" * 32
    service.add(tee)
    with (
        service.serve() as server,
        connect(service, server.url, options) as client,
        pytest.raises(AttestationError) as caught,
    ):
        client.chat(MESSAGES, "m")
    assert caught.value.reasons == ("nonce_unexpected",)

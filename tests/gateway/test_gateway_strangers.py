"""Whoever may connect holds and costs little, and keeps out nobody that holds less."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import until
from simulators.tpm import TpmTee
from simulators.worker_peer import WorkerPeer

from gateway.asker import Asker
from gateway.strangers import Stranger, Strangers
from wire.ids import b64u
from wire.limits import JSON_MAX, LINK_ITEMS_MAX, LINK_SMALL_MAX
from wire.link import (
    ACTIVATED,
    BYTES,
    CHALLENGE_ANSWER,
    FROM_STRANGERS,
    HELLO,
    PROVED,
    Message,
    MessageType,
    encode,
    json_message,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from simulators.deployment import Fleet, Up

    from gateway.link import Link
    from gateway.turns import Turns

MANY = b'{"wid":[' + b"1," * 500_000 + b"1]}"


def header(kind: int, length: int) -> bytes:
    return length.to_bytes(4, "big") + bytes([kind])


def unfinished(size: int) -> bytes:
    """A HELLO that lacks its last byte, of which `size` bytes are here."""
    return header(HELLO, size - 3) + bytes(size - 5)


def links(up: Up) -> list[Link]:
    return sorted(up.gateway.workers._links, key=lambda link: link.asker.link)


@contextlib.asynccontextmanager
async def taken(turns: Turns) -> AsyncIterator[None]:
    """All places are taken, by processes of which nothing else comes."""
    gate, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def hold() -> None:
        begun.release()
        await gate.wait()

    async with asyncio.TaskGroup() as group:
        for peer in range(turns.places):
            group.create_task(turns.run(Asker(0, -1 - peer), hold))
        for _ in range(turns.places):
            await begun.acquire()
        try:
            yield
        finally:
            gate.set()


# ---------------------------------------------------------------- shares


class Crowd:
    """Strangers of several processes, and which of them were ended."""

    def __init__(self, bytes_max: int = 1000) -> None:
        self.strangers = Strangers(bytes_max)
        self.ended: list[str] = []

    def come(self, peer: int, name: str = "", *, said: bool = False, held: int = 0) -> Stranger:
        new = Stranger(Asker(0, peer), lambda cause: self.ended.append(name or cause), said=said)
        self.strangers.enter(new)
        self.strangers.holds(new, held)
        return new


def test_where_no_link_is_free_the_oldest_silent_one_of_whoever_holds_most_gives_way() -> None:
    crowd = Crowd()
    crowd.come(1, "said", said=True)
    for name in ("first", "second"):
        crowd.come(1, name)
    crowd.come(2, "other")
    assert crowd.strangers.has_room(3, free=0)
    assert crowd.ended == ["first"]
    assert len(crowd.strangers) == 3


def test_the_oldest_gives_way_where_none_is_silent() -> None:
    crowd = Crowd()
    for name in ("first", "second"):
        crowd.come(1, name, said=True)
    assert crowd.strangers.has_room(2, free=0)
    assert crowd.ended == ["first"]


def test_nobody_gives_way_to_a_process_that_would_then_hold_as_much() -> None:
    crowd = Crowd()
    for peer in (1, 1, 2):
        crowd.come(peer)
    assert not crowd.strangers.has_room(1, free=0)
    assert not crowd.strangers.has_room(2, free=0)
    assert crowd.strangers.has_room(2, free=2)
    assert not crowd.ended
    assert not Crowd().strangers.has_room(1, free=0)  # all links are of admitted workers


def test_however_many_processes_take_all_links_one_that_has_none_gets_one() -> None:
    crowd, most = Crowd(), 64
    for peer in range(1, 12):
        while crowd.strangers.has_room(peer, most - len(crowd.strangers)):
            crowd.come(peer)
            assert len(crowd.strangers) <= most
    assert len(crowd.strangers) == most
    assert crowd.strangers.has_room(99, free=0)
    crowd.come(99, "honest")
    for peer in range(1, 12):  # they try again
        while crowd.strangers.has_room(peer, most - len(crowd.strangers)):
            crowd.come(peer)
    assert "honest" not in crowd.ended


def test_what_strangers_hold_is_bounded_and_whoever_holds_most_gives_way() -> None:
    crowd = Crowd(bytes_max=1000)
    crowd.come(1, "empty")
    crowd.come(1, "judged", held=300, said=True)
    crowd.come(1, "stalled", held=300)
    honest = crowd.come(2, "honest", held=390)
    assert not crowd.ended
    crowd.strangers.holds(honest, 450)
    assert crowd.ended == ["stalled"]
    assert crowd.strangers.held == 750
    crowd.come(3, "large", held=900)
    assert crowd.ended == ["stalled", "large"]


def test_a_link_that_left_holds_nothing() -> None:
    crowd = Crowd()
    one = crowd.come(1, held=600)
    crowd.strangers.leave(one)
    crowd.strangers.leave(one)
    crowd.strangers.holds(one, 700)
    assert (len(crowd.strangers), crowd.strangers.held) == (0, 0)


# ---------------------------------------------------------------- what may be sent


@pytest.mark.parametrize("kind", [kind for kind in MessageType if kind not in FROM_STRANGERS])
async def test_a_stranger_is_ended_by_the_head_of_a_message_that_only_workers_send(
    up: Up, fleet: Fleet, kind: MessageType
) -> None:
    worker = fleet.make("a")
    await worker.connect()
    worker.send_raw(header(kind, 17 if kind == MessageType.CANCEL else 4000))
    await worker.closed()
    assert up.gateway.workers._strangers.held == 0


@pytest.mark.parametrize(
    ("kind", "most"), [(HELLO, JSON_MAX), (ACTIVATED, LINK_SMALL_MAX), (PROVED, LINK_SMALL_MAX)]
)
async def test_a_stranger_is_ended_by_the_head_of_a_message_that_is_too_large(
    fleet: Fleet, kind: int, most: int
) -> None:
    worker = fleet.make("a")
    await worker.connect()
    worker.send_raw(header(kind, most + 2))
    await worker.closed()


async def test_a_stranger_answers_no_more_than_it_was_asked(fleet: Fleet) -> None:
    worker = fleet.make("a")
    await worker.connect()
    worker.send(json_message(PROVED, {"id": 1, "answer": None}))
    await worker.closed()
    asked = fleet.make("b")
    asked.honest = False
    await asked.connect()
    await asked.hello()
    await asked.receive(MessageType.PROVE)
    for _ in range(2):
        asked.send(json_message(PROVED, {"id": 99, "answer": None}))
    await asked.closed()


async def test_the_bytes_of_all_strangers_together_are_bounded(up: Up, fleet: Fleet) -> None:
    strangers = up.gateway.workers._strangers
    strangers.bytes_max = 2_500_000
    flood = [fleet.make(f"flood {number}") for number in range(6)]
    for stranger in flood:
        await stranger.connect()
        stranger.send_raw(unfinished(1_000_000))
    await asyncio.gather(*(stranger.closed() for stranger in flood[:4]))
    await until(lambda: strangers.held == 2_000_000)
    assert [link.inbound.stranger.held for link in links(up)] == [1_000_000] * 2
    # A worker of this same process is judged all the same: the oldest that stalls gives way to it.
    strangers.bytes_max = 2_000_000
    await fleet.admit("honest")
    await flood[4].closed()
    assert strangers.held == 1_000_000  # what an admitted worker sent counts no more


async def test_a_link_that_ended_keeps_nothing_of_what_it_sent(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    await worker.connect()
    worker.send_raw(unfinished(1_000_000))
    (link,) = links(up)
    await until(lambda: link.inbound.stranger.held == 1_000_000)
    link.end("overflow")
    # Nor does anything lead from it to itself: it goes at once, and all it refers to.
    assert link.inbound._decoder.held == 0
    assert getattr(link.inbound.stranger.end, "__self__", None) is None
    await worker.closed()


async def test_a_hello_that_began_has_a_deadline_of_its_own(up: Up, fleet: Fleet) -> None:
    silent, begun, whole = (fleet.make(name) for name in ("silent", "begun", "whole"))
    for worker in (silent, begun, whole):
        await worker.connect()
    hello = encode(json_message(HELLO, whole.introduction()))
    begun.send_raw(hello[:1])
    whole.honest = False
    whole.send_raw(hello[:100])
    await until(lambda: all(link.inbound._whole for link in links(up)[1:]))
    whole.send_raw(hello[100:])
    await whole.receive(MessageType.PROVE)
    timers = [link.inbound._whole for link in links(up)]
    assert timers[0] is None
    assert [timer.cancelled() for timer in timers[1:] if timer is not None] == [False, True]


# ---------------------------------------------------------------- who gets a link

CROWD = """
import socket, sys
held = []
while True:
    one = socket.socket(socket.AF_UNIX); one.settimeout(20); one.connect(sys.argv[1])
    try:
        if not one.recv(1): break
    except ConnectionError: break
    held.append(one)
    if len(held) == 40: break
print(len(held), flush=True); sys.stdin.read()
"""


async def test_a_worker_gets_a_link_where_several_processes_hold_all_in_silence(
    up: Up, fleet: Fleet
) -> None:
    up.gateway.workers._most = 16
    command = [sys.executable, "-c", CROWD, str(up.deployment.socket)]
    crowd = []
    try:
        for _ in range(6):
            crowd.append(
                await asyncio.create_subprocess_exec(
                    *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            assert crowd[-1].stdout is not None
            assert int(await crowd[-1].stdout.readline()) > 0
        await until(lambda: len(up.gateway.workers._strangers) == 16)
        (worker,) = await fleet.admit("honest")
        assert up.gateway.registry.knows(worker.kid)
    finally:
        for process in crowd:
            await process.communicate(b"")


# ---------------------------------------------------------------- where it is parsed


async def test_a_hello_of_many_items_ends_the_link_and_is_not_parsed(
    up: Up, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    worker = fleet.make("a")
    await worker.connect()
    worker.send(Message(HELLO, MANY))
    await worker.closed()
    assert not up.gateway.workers._links
    assert "worker.link_broken" in caplog.text


async def test_nothing_a_link_sends_at_length_is_parsed_in_the_event_loop(
    up: Up, fleet: Fleet
) -> None:
    await fleet.admit("admitted")
    await fleet.make("stranger").connect()
    await until(lambda: len(links(up)) == 2)
    for link in links(up):
        assert await link.inbound.read(threading.get_ident) != threading.get_ident()


async def test_a_hello_is_parsed_when_a_place_is_free(up: Up, fleet: Fleet) -> None:
    (here,) = await fleet.admit("here")
    worker = fleet.make("a")
    reading = up.gateway.workers._strangers.reading
    async with taken(reading):
        await worker.connect()
        await worker.hello()
        await until(lambda: len(reading._waiting) == 1)
        # Admitted workers have places of their own.
        asked = asyncio.create_task(
            up.gateway.workers.challenge(here.wid, here.bh, b64u(bytes(32)), None)
        )
        question = (await here.receive(MessageType.CHALLENGE_JOB)).json()
        evidence = [{"kind": "any", "body": ""}]
        answer = {"id": question["id"], "binding": "AA", "evidence": evidence}
        here.send(json_message(CHALLENGE_ANSWER, answer))
        assert (await asked).presented.binding == b"\0"
        assert up.gateway.registry.epoch(worker.bh) is None
    await worker.receive(MessageType.ADMITTED)


async def test_a_link_that_ends_while_its_hello_waits_is_forgotten(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    strangers = up.gateway.workers._strangers
    async with taken(strangers.reading):
        await worker.connect()
        await worker.hello()
        await until(lambda: len(strangers.reading._waiting) == 1)
        links(up)[0].end("overflow")
        await until(lambda: not up.gateway.workers._links)
        assert (len(strangers), strangers.held, strangers.reading._waiting) == (0, 0, [])


async def test_a_live_answer_of_many_items_ends_the_link(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    asked = asyncio.create_task(
        up.gateway.workers.challenge(worker.wid, worker.bh, b64u(bytes(32)), None)
    )
    await worker.receive(MessageType.CHALLENGE_JOB)
    worker.send(Message(CHALLENGE_ANSWER, b"{" + b"," * LINK_ITEMS_MAX + b"}"))
    await worker.closed()
    await asyncio.wait([asked])
    assert asked.exception() is not None


async def test_an_admitted_worker_sends_pieces_larger_than_any_document(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    worker.send(Message(BYTES, bytes(16) + bytes(2 * JSON_MAX)))  # of no request that is here
    worker.send(json_message(MessageType.HEARTBEAT, {}))
    await worker.receive(MessageType.LEASE)
    assert len(up.gateway.roster) == 1


async def test_what_a_tpm_says_is_parsed_in_the_turns_of_judgements(up: Up) -> None:
    worker = WorkerPeer(TpmTee("a", up.deployment.tee.now, "gateway.test"), up.deployment.socket)
    turns = up.gateway.roster.admission._turns
    async with taken(turns):
        await worker.connect()
        await worker.hello()
        await until(lambda: len(turns._waiting) == 1)
        assert worker.got(MessageType.ACTIVATE) == 0
    await worker.receive(MessageType.ACTIVATE)
    await worker.drop()

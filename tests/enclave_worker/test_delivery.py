"""One response on its way: order, back-pressure, ends. Real seals, a slow or broken reader."""

import asyncio
import os
import time
from typing import Any

import pytest
from simulators.caller import Caller
from simulators.key_holder import key_holder

from attestation.binding import parse_binding
from attestation.evidence import Evidence
from enclave_worker.clock import Clock
from enclave_worker.delivery import Delivery, head_record
from enclave_worker.epochs import Keyring
from enclave_worker.intake import accept
from wire.errors import StreamTruncated
from wire.records import DATA, Record, TokenDelta


class Exchange:
    """A sealed request opened by a real keyring, and what arrived of the answer."""

    def __init__(self, **changes: Any) -> None:
        keyring = Keyring(key_holder(), os.urandom)
        now = Clock().s()
        epoch = keyring.prepare(now)
        keyring.install(epoch, (Evidence("software", b"{}"),))
        self.caller = Caller(parse_binding(epoch.binding))
        asked = self.caller.chat("hi", stream=changes.get("stream", True))
        self.sealed = self.caller.seal(asked, **changes)
        self.opened = accept(self.sealed.envelope, self.sealed.header.rid, keyring, now).opened
        self.data = bytearray()
        self.sizes: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken = False

    async def send(self, data: bytes) -> None:
        await self.gate.wait()
        if self.broken:
            raise ConnectionError
        self.data += data
        self.sizes.append(len(data))

    def delivery(self) -> Delivery:
        return Delivery(self.opened, os.urandom, time.monotonic, self.send)

    def read(self) -> Any:
        return self.caller.read(self.sealed, bytes(self.data))


def begin(delivery: Delivery) -> None:
    delivery.put(head_record({"s": 200, "h": {}}))


@pytest.mark.parametrize("pad", ["off", "bucket", "cadence"])
async def test_text_arrives_whole_and_in_order_under_every_profile(pad: str) -> None:
    exchange = Exchange(pad=pad)
    delivery = exchange.delivery()
    task = asyncio.create_task(delivery.run())
    begin(delivery)
    for number in range(40):
        delivery.put(TokenDelta(f"{number} "))
        await asyncio.sleep(0)
    delivery.put(TokenDelta("end", {"f": "stop"}))
    delivery.close(b"{}")
    assert await task
    reply = exchange.read()
    assert reply.text == "".join(f"{number} " for number in range(40)) + "end"
    assert reply.finish == "stop"
    assert reply.receipt == b"{}"


async def test_a_stalled_gateway_stops_the_writing_and_loses_nothing() -> None:
    exchange = Exchange(pad="off")
    delivery = exchange.delivery()
    task = asyncio.create_task(delivery.run())
    begin(delivery)
    await asyncio.sleep(0.02)
    exchange.gate.clear()
    for number in range(500):
        delivery.put(TokenDelta(f"{number},"))
        await asyncio.sleep(0)
    stalled = len(exchange.sizes)
    await asyncio.sleep(0.05)
    assert len(exchange.sizes) == stalled, "nothing is written past a reader that does not read"
    exchange.gate.set()
    delivery.close(None)
    assert await task
    assert exchange.read().text == "".join(f"{number}," for number in range(500))
    assert len(exchange.sizes) < 20, "what waited went out together"


async def test_a_lost_gateway_ends_the_delivery_with_an_error() -> None:
    exchange = Exchange(pad="off")
    exchange.broken = True
    delivery = exchange.delivery()
    begin(delivery)
    with pytest.raises(ConnectionError):
        await delivery.run()


async def test_an_abandoned_response_has_no_authenticated_end() -> None:
    exchange = Exchange(pad="off")
    delivery = exchange.delivery()
    task = asyncio.create_task(delivery.run())
    begin(delivery)
    delivery.put(TokenDelta("never "))
    await asyncio.sleep(0.02)
    delivery.abandon()
    assert not await task
    with pytest.raises(StreamTruncated):
        exchange.read()


async def test_a_failure_is_an_error_record_without_a_receipt() -> None:
    exchange = Exchange(pad="cadence")
    delivery = exchange.delivery()
    begin(delivery)
    delivery.fail("engine_error", "the engine could not finish this answer")
    assert await delivery.run()
    reply = exchange.read()
    assert reply.error["code"] == "engine_error"
    assert reply.receipt is None


async def test_cadence_frames_leave_on_the_clock_while_nothing_is_said() -> None:
    exchange = Exchange(pad="cadence")
    delivery = exchange.delivery()
    task = asyncio.create_task(delivery.run())
    begin(delivery)
    await asyncio.sleep(0.45)
    assert len(exchange.sizes) == 5
    assert set(exchange.sizes[1:]) == {276}
    delivery.abandon()
    assert not await task


@pytest.mark.parametrize("pad", ["off", "bucket", "cadence"])
async def test_a_settled_body_is_hashed_before_the_receipt_and_sent_with_it(pad: str) -> None:
    exchange = Exchange(pad=pad, stream=False)
    delivery = exchange.delivery()
    task = asyncio.create_task(delivery.run())
    begin(delivery)
    delivery.put(Record(DATA, b'{"choices":[]}'))
    delivery.settle()
    await asyncio.sleep(0.02)
    named = delivery.writer.ct_hash
    assert not exchange.data, "no byte before the receipt"
    delivery.close(b"{}")
    assert await task
    reply = exchange.read()
    assert reply.receipt == b"{}"
    assert reply.json == {"choices": []}
    assert reply.reader.ct_hash_at(reply.reader.frames) == named
    assert reply.reader.frames > 0


async def test_a_withheld_body_never_leaves_and_shares_no_key_with_what_does() -> None:
    exchange = Exchange(pad="off", stream=False)
    delivery = exchange.delivery()
    begin(delivery)
    delivery.put(Record(DATA, b'{"choices":["withheld"]}'))
    delivery.settle()
    first = delivery.writer
    delivery.restart()
    delivery.put(head_record({"s": 503, "h": {}}))
    delivery.put(Record(DATA, b'{"error":{}}'))
    delivery.close(None)
    assert await delivery.run()
    reply = exchange.read()
    assert reply.status == 503
    assert reply.json == {"error": {}}
    assert delivery.writer.salt_r != first.salt_r
    with pytest.raises(RuntimeError):
        delivery.restart()

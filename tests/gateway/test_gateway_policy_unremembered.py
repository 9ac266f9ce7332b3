"""A policy that revokes is in force though the disk takes nothing, and the log says so once."""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING

import pytest
from simulators.unwritable import disk_error

from gateway.attributes import Attr
from gateway.journal import Event
from gateway.policy_memory import PolicyMemory
from wire.errors import PolicyError
from wire.ids import b64u

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Up

    from gateway.runtime import Gateway


def remembered(gateway: Gateway) -> PolicyMemory:
    """What a gateway that starts in its place would find."""
    return PolicyMemory(gateway.memory.path)


async def test_it_ends_a_worker_that_it_denies_and_is_remembered_once_there_is_room(
    up: Up, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="anchorhold.gateway")
    (worker,) = await fleet.admit("a")
    first = up.gateway.policies.value
    with disk_error(up.deployment.config.state_dir, errno.ENOSPC):
        await up.demand(deny={"bh": [b64u(worker.bh)]})
        await worker.closed()
        assert not up.gateway.registry.knows(worker.kid)
        await up.write_policy(seq=1)  # the older one is put back
        await up.gateway.look()
        assert up.gateway.reappraisal.appraiser.policy.seq == 2
        await asyncio.to_thread(remembered(up.gateway).admit, first)  # a start would take it
    await up.gateway.look()
    with pytest.raises(PolicyError, match="found seq 1, expected at least 2"):
        await asyncio.to_thread(remembered(up.gateway).admit, first)
    events = (Event.POLICY_UNREMEMBERED, Event.POLICY_REMEMBERED)
    found = [vars(record) for record in caplog.records]
    assert [
        (one["anchorhold_event"], one["fields"].get(Attr.CAUSE.value))
        for one in found
        if one.get("anchorhold_event") in events
    ] == [(Event.POLICY_UNREMEMBERED, "disk_full"), (Event.POLICY_REMEMBERED, None)]

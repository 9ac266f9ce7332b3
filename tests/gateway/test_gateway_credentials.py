"""API keys at the HTTP edge: what is none, what has ended, and what it may not do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import now, problem, seal

from tenancy.key_table import load_table, save_table
from wire.errors import ConfigError
from wire.ids import b64u
from wire.link import MessageType

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Up


def key_variants(up: Up) -> dict[str, str | None]:
    good = up.deployment.keys["tenant-a"]
    return {
        "none": None,
        "empty": "",
        "basic": f"Basic {good}",
        "no scheme": good,
        "mistyped": f"Bearer {good[:-1]}{'0' if good[-1] != '0' else '1'}",
        "other secret": f"Bearer {good[:30]}{'A' if good[30] != 'A' else 'B'}{good[31:]}",
        "long": "Bearer " + "a" * 5000,
    }


@pytest.mark.parametrize(
    "variant", ["none", "empty", "basic", "no scheme", "mistyped", "other secret", "long"]
)
async def test_a_request_without_a_valid_key_is_refused(up: Up, fleet: Fleet, variant: str) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    headers = up.headers(idempotency_key=b64u(sealed.header.rid))
    credential = key_variants(up)[variant]
    del headers["authorization"]
    if credential is not None:
        headers["authorization"] = credential
    response = await up.http.post("/v1/sealed", content=sealed.envelope, headers=headers)
    assert problem(response) == (401, "auth")
    assert response.headers["www-authenticate"] == "Bearer"
    assert up.deployment.keys["tenant-a"] not in response.text
    assert worker.got(MessageType.JOB) == 0


async def test_an_expired_key_is_refused(up: Up) -> None:
    await asyncio.to_thread(up.deployment.mint, "tenant-a", life_s=60, at=now() - 3600)
    await up.gateway.keys.changed()
    response = await up.http.post("/v1/sealed", content=b"x", headers=up.headers())
    assert problem(response) == (401, "auth")


async def test_a_revoked_key_stops_working_while_the_gateway_runs(up: Up) -> None:
    table = await asyncio.to_thread(load_table, up.deployment.table)
    kid = up.deployment.keys["tenant-a"].split("_")[2]
    await asyncio.to_thread(save_table, table.revoke(kid), up.deployment.table)
    await up.gateway.keys.changed()
    response = await up.http.post("/v1/sealed", content=b"x", headers=up.headers())
    assert problem(response) == (401, "auth")


async def test_wraps_and_challenges_need_a_key_as_well(up: Up) -> None:
    for path in (f"/v1/sealed/{b64u(bytes(16))}/wraps", "/v1/workers/w/challenge"):
        assert problem(await up.http.post(path, content=b"{}")) == (401, "auth")


async def test_a_key_is_tested_by_an_empty_challenge_that_reaches_no_worker(up: Up) -> None:
    headers = up.headers(content_type="application/json")
    reply = await up.http.post("/v1/workers/-/challenge", content=b"{}", headers=headers)
    assert problem(reply) == (400, "bad_request")


async def test_a_key_without_the_scope_is_refused_as_forbidden(up: Up) -> None:
    table = up.deployment.table
    text = await asyncio.to_thread(table.read_text)
    await asyncio.to_thread(table.write_text, text.replace('"infer"', '"other"'))
    await up.gateway.keys.changed()
    response = await up.http.post("/v1/sealed", content=b"x", headers=up.headers())
    assert problem(response) == (403, "auth")


async def test_a_key_table_that_breaks_while_running_keeps_the_old_one(up: Up) -> None:
    await asyncio.to_thread(up.deployment.table.write_text, "{")
    with pytest.raises(ConfigError):
        await up.gateway.keys.changed()
    response = await up.http.post("/v1/sealed", content=b"x", headers=up.headers())
    assert problem(response) == (400, "bad_envelope")

"""A hostile gateway changes one thing; the client refuses it by name, and never shows forged text.

One table for every way in: `Client`, `AsyncClient`, and the unmodified `openai` package over the
transports, which reports the same refusal as an OpenAI error whose `code` is the error's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest
from simulators.service import LIES, Service

from client.api import Client
from client.async_api import AsyncClient
from client.async_transport import AsyncSealedTransport
from client.transport import SealedTransport
from wire.errors import (
    AnchorholdError,
    AttestationError,
    DirectoryError,
    ForkError,
    FrameError,
    GatewayError,
    OpenError,
    ProtocolFailure,
    RollbackError,
    SpliceError,
    StaleDirectoryError,
    StreamTruncated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators.loopback import Loopback

    from client.session import Options

MESSAGES = [{"role": "user", "content": "a b c d e f"}]


@dataclass(frozen=True)
class Case:
    """One lie, the error it must end in, and whether the client has seen the honest log before."""

    lie: str
    error: type[AnchorholdError]
    reason: str = ""
    seen: bool = False


CASES = [
    Case("stale_directory", StaleDirectoryError),
    Case("unsigned_directory", DirectoryError),
    Case("unlogged_directory", DirectoryError),
    Case("rolled_back", RollbackError, seen=True),
    Case("older_snapshot", RollbackError, seen=True),
    Case("forked", ForkError, seen=True),
    Case("swapped_keys", AttestationError, "binding_hash_mismatch"),
    Case("swapped_evidence", AttestationError, "report_data_mismatch"),
    Case("foreign_verdict", AttestationError, "verdict_invalid"),
    Case("refused_verdict", AttestationError, "verdict_invalid"),
    Case("negative_verdict", AttestationError, "verdict_invalid"),
    Case("others_verdict", AttestationError, "verdict_invalid"),
    Case("moved_verdict", AttestationError, "verdict_invalid"),
    Case("other_head_verdict", AttestationError, "verdict_invalid"),
    Case("unlisted_kid", AttestationError, "kid_not_listed"),
    Case("flattering_verdict", AttestationError, "verdict_mismatch"),
    Case("other_measurement_verdict", AttestationError, "verdict_mismatch"),
    Case("other_type_verdict", AttestationError, "verdict_invalid"),
    Case("no_beacon_proof", AttestationError, "beacon_unverified"),
    Case("other_beacon_entry", AttestationError, "beacon_unverified"),
    Case("damaged_beacon_path", AttestationError, "beacon_unverified"),
    Case("damaged_beacon_link", AttestationError, "beacon_unverified"),
    Case("other_beacon_head", AttestationError, "beacon_unverified"),
    Case("forked_beacon", AttestationError, "beacon_unverified"),
    Case("replayed", SpliceError, seen=True),
    Case("truncated", StreamTruncated),
    Case("cut_inside_frame", StreamTruncated),
    Case("broken_connection", StreamTruncated),
    Case("no_final", StreamTruncated),
    Case("reordered", OpenError),
    Case("spliced", OpenError),
    Case("edited", OpenError),
    Case("trailing_bytes", FrameError),
    Case("wrong_type", ProtocolFailure),
    Case("plaintext", ProtocolFailure),
    Case("compressed", ProtocolFailure),
    Case("redirected", GatewayError),
    Case("gateway_error", GatewayError),
    Case("html_error", GatewayError),
    Case("forged_notice", ProtocolFailure),
    Case("foreign_notice", ProtocolFailure),
    Case("receipt_forked", ForkError, seen=True),
    Case("receipt_rolled_back", RollbackError, seen=True),
]
EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: case.lie)


def test_every_lie_of_the_service_has_a_case() -> None:
    assert {case.lie for case in CASES} == LIES


@pytest.fixture
def lying(
    service: Service, options: Callable[..., Options], case: Case
) -> Iterator[tuple[Loopback, Callable[..., Options]]]:
    """The deployment, after an honest first visit where the lie needs one."""
    with service.serve() as server:
        if case.seen:
            if case.lie == "replayed":
                service.lies.add(case.lie)  # its first answer is honest, and recorded
            with Client(
                server.url, service.api_key, policy=service.policy(), options=options()
            ) as honest:
                list(honest.chat(MESSAGES, "m", stream=True))
                service.publish()
                honest.verify()
        if case.lie == "forked":
            service.log = service.log.forked(2)
            service.publish()
        service.lies.add(case.lie)
        yield server, options


def expect(case: Case, error: AnchorholdError) -> None:
    assert type(error) is case.error, error
    if case.reason:
        assert isinstance(error, AttestationError)
        assert case.reason in error.reasons


@EVERY
def test_client_refuses(lying: Any, service: Service, case: Case) -> None:
    server, options = lying
    with (
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
        pytest.raises(AnchorholdError) as caught,
    ):
        list(client.chat(MESSAGES, "m", stream=True))
    expect(case, caught.value)


@EVERY
async def test_async_client_refuses(lying: Any, service: Service, case: Case) -> None:
    server, options = lying
    async with AsyncClient(
        server.url, service.api_key, policy=service.policy(), options=options()
    ) as client:
        with pytest.raises(AnchorholdError) as caught:
            [delta async for delta in await client.chat(MESSAGES, "m", stream=True)]
    expect(case, caught.value)


OF_A_WORKER = [case for case in CASES if case.error is AttestationError]
UNPROVED = [case for case in OF_A_WORKER if case.reason == "beacon_unverified"]
FORGED = [case for case in OF_A_WORKER if case not in UNPROVED]


@pytest.fixture
def beside(
    service: Service, options: Callable[..., Options], case: Case
) -> Iterator[Callable[[], Client]]:
    """Clients of a deployment that lies about one of its three workers; each looks at all."""
    service.policy_changes["k"] = len(service.workers)
    service.liars = (service.workers[1],)
    with service.serve() as server:
        service.lies.add(case.lie)
        yield lambda: Client(
            server.url, service.api_key, policy=service.policy(), options=options()
        )


@pytest.mark.parametrize("case", FORGED, ids=lambda case: case.lie)
def test_a_lie_about_one_worker_beside_honest_ones_stops_everything(
    beside: Callable[[], Client], service: Service, case: Case
) -> None:
    """Whoever lies about one of a list made the list: the others on it are no better."""
    with beside() as client, pytest.raises(AnchorholdError) as caught:
        client.chat(MESSAGES, "m")
    expect(case, caught.value)
    assert all(seen.path != "/v1/sealed" for seen in service.seen)


@pytest.mark.parametrize("case", UNPROVED, ids=lambda case: case.lie)
def test_one_worker_whose_age_nothing_proves_is_passed_over(
    beside: Callable[[], Client], service: Service, case: Case
) -> None:
    with beside() as client:
        verified = client.verify()
    assert verified.ok
    (liar,) = service.liars
    honest = {worker.tee.facts["wid"] for worker in service.workers if worker is not liar}
    assert {worker.wid for worker in verified.workers} == honest


WHOLE = [case for case in CASES if case.lie in ("truncated", "edited", "spliced", "plaintext")]


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.lie)
def test_whole_answers_are_refused_before_any_text_is_shown(
    lying: Any, service: Service, case: Case
) -> None:
    server, options = lying
    with (
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
        pytest.raises(AnchorholdError) as caught,
    ):
        client.chat(MESSAGES, "m")
    expect(case, caught.value)


def ask(client: openai.OpenAI) -> None:
    for chunk in client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
        assert "forged" not in chunk.model_dump_json()


async def ask_async(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    async for chunk in stream:
        assert "forged" not in chunk.model_dump_json()


@EVERY
def test_openai_refuses(lying: Any, service: Service, case: Case) -> None:
    server, options = lying
    url = f"{server.url}/v1"
    transport = SealedTransport(service.policy(), options=options())
    with httpx2.Client(transport=transport) as http:
        client = openai.OpenAI(
            base_url=url, api_key=service.api_key, http_client=http, max_retries=0
        )
        with pytest.raises(openai.APIError) as caught:
            ask(client)
    assert caught.value.code == case.error.default_code


@EVERY
async def test_async_openai_refuses(lying: Any, service: Service, case: Case) -> None:
    server, options = lying
    url = f"{server.url}/v1"
    transport = AsyncSealedTransport(service.policy(), options=options())
    async with httpx2.AsyncClient(transport=transport) as http:
        client = openai.AsyncOpenAI(
            base_url=url, api_key=service.api_key, http_client=http, max_retries=0
        )
        with pytest.raises(openai.APIError) as caught:
            await ask_async(client)
    assert caught.value.code == case.error.default_code


def test_hidden_workers_are_below_the_policys_minimum(
    service: Service, options: Callable[..., Options]
) -> None:
    service.policy_changes["min_workers"] = 3
    service.hidden = {service.workers[0].bh}
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
        pytest.raises(AnchorholdError, match="at least 3 workers") as caught,
    ):
        client.chat(MESSAGES, "m")
    assert caught.value.code == "below_policy"


@pytest.mark.parametrize("lie", ["truncated", "no_final", "broken_connection", "edited"])
def test_a_broken_stream_never_ends_in_done(
    service: Service, server: Loopback, options: Callable[..., Options], lie: str
) -> None:
    service.lies.add(lie)
    transport = SealedTransport(service.policy(), options=options())
    with httpx2.Client(transport=transport) as http:
        reply = http.post(
            f"{server.url}/v1/chat/completions",
            json={"model": "m", "messages": MESSAGES, "stream": True},
            headers={"authorization": f"Bearer {service.api_key}"},
        )
    assert reply.status_code == 200
    assert b"[DONE]" not in reply.content
    last = reply.content.strip().split(b"\n\n")[-1]
    assert b'"error"' in last


def test_a_redirect_is_not_followed(client: Client, service: Service) -> None:
    service.lies.add("redirected")
    with pytest.raises(GatewayError):
        client.chat(MESSAGES, "m")
    assert all(seen.path != "/v1/elsewhere" for seen in service.seen)


def test_a_gateways_words_are_cut_and_labelled(client: Client, service: Service) -> None:
    service.lies.add("gateway_error")
    with pytest.raises(GatewayError) as caught:
        client.chat(MESSAGES, "m")
    assert len(caught.value.text) <= 256
    assert str(caught.value).startswith("gateway answered 503")


def test_nothing_leaves_in_the_clear(client: Client, service: Service) -> None:
    secret = "the canary sings at dawn"
    client.chat([{"role": "user", "content": secret}], "m", user="patient-4711")
    for seen in service.seen:
        flat = seen.body + repr(seen.headers).encode() + seen.path.encode()
        assert b"canary" not in flat
        assert b"patient" not in flat

"""`POST /v1/sealed` and `POST /v1/sealed/{rid}/wraps`: ciphertext in, ciphertext out."""

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.errors import Fault, Refusal
from gateway.exchange import Exchange, queue_deadline
from gateway.intake import check_headers, read_small, receive_envelope, spool_refusal
from gateway.request_trace import RequestTrace
from gateway.runtime import Gateway
from gateway.spool import Entry, SpoolFullError
from gateway.streams import SealedStream, first_byte
from wire.errors import MalformedError
from wire.header import RequestHeader
from wire.ids import unb64u
from wire.limits import K_MAX, WRAP_MAX
from wire.wraps import CONTENT_TYPE, KID_LEN

SCOPE = "infer"
#: A wrap list at its largest.
WRAPS_MAX = 1 + K_MAX * (KID_LEN + 2 + WRAP_MAX)
#: The client left: nobody reads this status, it is there for the server's own bookkeeping.
CLIENT_GONE = 499


def sealed_routes(gateway: Gateway) -> APIRouter:
    """The two routes, over one gateway."""
    router = APIRouter()

    @router.post("/v1/sealed", response_class=Response)
    async def post_sealed(request: Request) -> Response:
        """Answer one sealed request with a sealed response, or with a problem."""
        trace = RequestTrace(gateway.telemetry)
        try:
            exchange = await _accept(request, gateway, trace)
        except Refusal as refusal:
            trace.ended("refused", refusal.fault.word)
            raise
        except ClientDisconnect:
            trace.ended("cancelled", "cancelled")
            return Response(status_code=CLIENT_GONE)
        except BaseException:
            trace.ended("refused", Fault.INTERNAL.word)
            raise
        return await _answer(request, gateway, exchange)

    @router.post("/v1/sealed/{rid}/wraps", response_class=Response)
    async def post_wraps(request: Request, rid: str) -> Response:
        """Continue a request whose candidates were all lost, with new wraps."""
        principal = gateway.authenticator.authenticate(
            request.headers.get("authorization"), SCOPE, gateway.clock.wall()
        )
        check_headers(request, WRAPS_MAX, CONTENT_TYPE)
        try:
            number = unb64u(rid, 16)
        except MalformedError as error:
            raise Refusal(Fault.NOT_FOUND, "rid: expected 16 bytes in base64url") from error
        body = await read_small(request, WRAPS_MAX, gateway.config, gateway.clock)
        exchange = gateway.dispatcher.rewrap(number, principal.tenant, body)
        return await _answer(request, gateway, exchange)

    return router


async def _accept(request: Request, gateway: Gateway, trace: RequestTrace) -> Exchange:
    """From HTTP to a request in line.

    Steps: 1 credential. 2 room in the spool. 3 body within limits, clear header (audience, times,
    id not in flight), envelope form. 4 keys known, caps, in line.
    """
    # 1
    principal = gateway.authenticator.authenticate(
        request.headers.get("authorization"), SCOPE, gateway.clock.wall()
    )
    # 2
    try:
        entry = gateway.spool.entry(principal.tenant)
    except SpoolFullError as error:
        raise spool_refusal(error) from error
    try:
        return await _submit(request, gateway, trace, principal.tenant, entry)
    except BaseException:
        await entry.remove()
        raise


async def _submit(
    request: Request, gateway: Gateway, trace: RequestTrace, tenant: str, entry: Entry
) -> Exchange:
    def judge(header: RequestHeader) -> None:
        if gateway.dispatcher.in_flight(header.rid):
            raise Refusal(Fault.DUPLICATE)

    # 3
    envelope = await receive_envelope(request, entry, gateway.config, gateway.clock, judge)
    header = envelope.header
    trace.admitted(header, entry.size, len(envelope.wraps))
    exchange = Exchange(
        rid=header.rid,
        tenant=tenant,
        header=header,
        th=envelope.th,
        wraps=envelope.wraps,
        entry=entry,
        trace=trace,
        expires=queue_deadline(header.exp),
    )
    # 4
    gateway.dispatcher.submit(exchange)
    return exchange


async def _answer(request: Request, gateway: Gateway, exchange: Exchange) -> Response:
    def cancel() -> None:
        gateway.dispatcher.cancel(exchange)

    if not await first_byte(request, exchange, cancel):
        return Response(status_code=CLIENT_GONE)
    return SealedStream(exchange, cancel)

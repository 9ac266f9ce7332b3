"""Reads one sealed request from HTTP into the spool, within its limits and deadlines.

The clear header is judged as soon as it is here, before the body is: a request for another
deployment, an expired one or one for unknown keys costs its sender a few kilobytes, not eight
megabytes. Nothing is ever held beyond the limit, however much is sent.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request

from wire.envelope import CONTENT_TYPE, Envelope, parse_envelope
from wire.errors import ExpiredError, MalformedError
from wire.excerpt import shown
from wire.header import RequestHeader, check_times, parse_header
from wire.ids import b64u
from wire.limits import HDR_MAX
from wire.sealing import MAGIC

from .clock import Clock
from .config import GatewayConfig
from .errors import Fault, Refusal
from .spool import Entry, SpoolFullError, TooLargeError

_HEADER_AT = len(MAGIC) + 4
#: Digits of 2^63; no body is longer, and a longer text is not worth reading as a number.
LENGTH_DIGITS_MAX = 20


def check_headers(request: Request, limit: int, media_type: str) -> None:
    """Check what HTTP says about a body before reading it.

    Raises:
        Refusal: wrong content type, any content encoding (compression before encryption leaks), or
            a declared length above `limit`.
    """
    headers = request.headers
    found = headers.get("content-type")
    if (found or "").split(";")[0].strip().lower() != media_type:
        raise Refusal(
            Fault.MEDIA_TYPE, f"Content-Type: found {shown(found)}, expected {media_type}"
        )
    if "content-encoding" in headers:
        raise Refusal(
            Fault.MEDIA_TYPE,
            f"Content-Encoding: found {shown(headers['content-encoding'])}, expected none",
        )
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > LENGTH_DIGITS_MAX:
        raise Refusal(
            Fault.BAD_ENVELOPE,
            f"Content-Length: found {shown(length)}, expected a number of bytes up to {limit}",
        )
    if int(length) > limit:
        raise Refusal(Fault.TOO_LARGE, f"body: found {length} bytes, expected at most {limit}")


async def receive_envelope(
    request: Request,
    entry: Entry,
    config: GatewayConfig,
    clock: Clock,
    judge: Callable[[RequestHeader], None],
) -> Envelope:
    """Read, spool and parse an envelope.

    Args:
        request: its body is read here.
        entry: an empty spool entry; the caller removes it when this fails.
        judge: called with the clear header once it is complete; may refuse.

    Returns:
        The parsed envelope; its frames refer to a buffer the caller should let go soon.

    Raises:
        Refusal: it is not acceptable; says found and expected.
        starlette.requests.ClientDisconnect: the client went away.
    """
    check_headers(request, config.request_bytes_max, CONTENT_TYPE)
    head = bytearray()
    pace = _Pace(config, clock)
    async for chunk in pace.chunks(request):
        await _spool(entry, chunk)
        if not pace.header_done:
            head += chunk[: _HEADER_AT + HDR_MAX - len(head)]
            header = _complete_header(head)
            if header is not None:
                check_header(request, header, config, clock)
                judge(header)
                pace.header_done = True
    try:
        return parse_envelope(await entry.read())
    except MalformedError as error:
        raise Refusal(Fault.BAD_ENVELOPE, error.message) from error


def check_header(
    request: Request, header: RequestHeader, config: GatewayConfig, clock: Clock
) -> None:
    """Check the clear header against this deployment, the time and the HTTP request.

    Raises:
        Refusal: it does not fit.
    """
    if header.aud != config.aud:
        raise Refusal(
            Fault.BAD_ENVELOPE,
            f"aud: found {shown(header.aud)}, expected this deployment, {shown(config.aud)}",
        )
    found = request.headers.get("idempotency-key")
    if found != b64u(header.rid):
        raise Refusal(
            Fault.BAD_ENVELOPE,
            f"Idempotency-Key: found {shown(found)}, expected the request id"
            f" {shown(b64u(header.rid))}",
        )
    try:
        check_times(header, clock.wall())
    except ExpiredError as error:
        raise Refusal(Fault.EXPIRED, error.message) from error


def _complete_header(head: bytearray) -> RequestHeader | None:
    """The clear header, once all of it is in `head`."""
    begin = bytes(head[: len(MAGIC)])
    if not MAGIC.startswith(begin):
        # Four bytes of what should have been an envelope: in hex, for whoever wrote the client.
        raise Refusal(
            Fault.BAD_ENVELOPE,
            f"envelope: found the bytes {begin.hex()}, expected it to begin with"
            f" {MAGIC.hex()} ({MAGIC.decode()})",
        )
    if len(head) < _HEADER_AT:
        return None
    size = int.from_bytes(head[len(MAGIC) : _HEADER_AT], "big")
    if size > HDR_MAX:
        raise Refusal(Fault.BAD_ENVELOPE, f"header: found {size} bytes, expected at most {HDR_MAX}")
    if len(head) < _HEADER_AT + size:
        return None
    try:
        return parse_header(bytes(head[_HEADER_AT : _HEADER_AT + size]))
    except MalformedError as error:
        raise Refusal(Fault.BAD_ENVELOPE, error.message) from error


async def _spool(entry: Entry, chunk: bytes) -> None:
    try:
        await entry.write(chunk)
    except TooLargeError as error:
        limit = entry.spool.entry_max
        raise Refusal(
            Fault.TOO_LARGE, f"body: found more than {limit} bytes, expected at most that"
        ) from error
    except SpoolFullError as error:
        raise spool_refusal(error) from error


def spool_refusal(error: SpoolFullError) -> Refusal:
    """The answer when there is no room: the tenant's own limit, or everybody's."""
    if error.tenant_cap:
        return Refusal(Fault.QUOTA, retry_after=5)
    return Refusal(Fault.QUEUE_FULL, retry_after=2)


class _Pace:
    """Deadlines of a body: one for everything up to the header's end, then one for each pause."""

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        self._idle = config.idle_deadline_s
        self._clock = clock
        self._deadline = clock.monotonic() + config.header_deadline_s
        self.header_done = False

    async def chunks(self, request: Request) -> AsyncIterator[bytes]:
        """The body's chunks.

        Raises:
            Refusal: a deadline passed.
        """
        stream = request.stream()
        while True:
            left = self._deadline - self._clock.monotonic()
            try:
                async with asyncio.timeout(self._idle if self.header_done else left):
                    chunk = await anext(stream, None)
            except TimeoutError as error:
                raise Refusal(Fault.TOO_SLOW) from error
            if chunk is None:
                return
            if chunk:
                yield chunk


async def read_small(request: Request, limit: int, config: GatewayConfig, clock: Clock) -> bytes:
    """Read a small body whole, within `limit` bytes.

    Raises:
        Refusal: too large or too slow.
    """
    body = bytearray()
    async for chunk in _Pace(config, clock).chunks(request):
        body += chunk
        if len(body) > limit:
            raise Refusal(
                Fault.TOO_LARGE, f"body: found more than {limit} bytes, expected at most that"
            )
    return bytes(body)

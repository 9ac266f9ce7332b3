"""`GET /v1/log/…`: checkpoint and proofs of the evidence log, for clients and auditors."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway.errors import Fault, Refusal
from gateway.runtime import Gateway
from wire.errors import MalformedError
from wire.ids import b64u

#: Any size is far below this; larger numbers are not sizes.
_SIZE_MAX = 2**53
_FRESH = {"cache-control": "no-cache"}
_NUMBER_MAX = 16


def log_routes(gateway: Gateway) -> APIRouter:
    """The routes, over one gateway."""
    router = APIRouter()
    log = gateway.ledger.log

    @router.get("/v1/log/checkpoint", response_class=Response)
    async def get_checkpoint() -> Response:
        """The newest signed head of the log, as a C2SP note."""
        return PlainTextResponse(log.checkpoint(), headers=_FRESH)

    @router.get("/v1/log/consistency", response_class=Response)
    async def get_consistency(first: str, second: str) -> Response:
        """Proof that the log of size `second` continues the log of size `first`."""
        sizes = _number("first", first), _number("second", second)
        try:
            proof = log.consistency(*sizes)
        except MalformedError as error:
            raise Refusal(Fault.BAD_QUERY, error.message) from error
        return JSONResponse({"proof": [b64u(item) for item in proof]}, headers=_FRESH)

    @router.get("/v1/log/inclusion", response_class=Response)
    async def get_inclusion(index: str, size: str) -> Response:
        """Proof that entry `index` is in the log of size `size`."""
        place = _number("index", index), _number("size", size)
        try:
            proof = log.inclusion(*place)
        except MalformedError as error:
            raise Refusal(Fault.BAD_QUERY, error.message) from error
        return JSONResponse({"proof": [b64u(item) for item in proof]}, headers=_FRESH)

    return router


def _number(name: str, text: str) -> int:
    """A plain decimal number; `int()` alone would also take signs, spaces and other scripts."""
    digits = text.isascii() and text.isdigit() and len(text) <= _NUMBER_MAX
    if not digits or int(text) > _SIZE_MAX:
        raise Refusal(Fault.BAD_QUERY, f"{name}: expected a decimal number")
    return int(text)

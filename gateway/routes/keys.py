"""`GET /v1/keys`, `GET /v1/keys/{bh}` and live challenges: who the workers are, for all to check.

Everything served here is checked by its reader; the gateway adds no authority to it.
"""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.errors import Fault, Refusal
from gateway.intake import check_headers, read_small
from gateway.runtime import Gateway
from gateway.shown import Shown
from wire.canonical import parse_strict
from wire.errors import MalformedError, UnavailableError
from wire.ids import unb64u

from .names import check_name
from .sealed import SCOPE

DIRECTORY_TYPE = "application/vnd.anchorhold.keys+json"
#: A nonce, a binding hash and a credential challenge.
CHALLENGE_MAX = 16_384
_FRESH = {"cache-control": "no-cache"}


def keys_routes(gateway: Gateway) -> APIRouter:
    """The routes, over one gateway."""
    router, shown = APIRouter(), Shown()

    @router.get("/v1/keys", response_class=Response)
    async def get_keys(model: str | None = None) -> Response:
        """The signed, logged directory. `model` is a hint: the snapshot is whole or it is nothing.

        Filtering would break the signature, and would tell which model a client is about to use.
        """
        check_name("model", model)
        document = await gateway.directory.current()
        if document is None:
            raise Refusal(Fault.NO_WORKER, "no directory has been published", retry_after=1)
        return Response(document, media_type=DIRECTORY_TYPE, headers=_FRESH)

    @router.get("/v1/keys/{bh}", response_class=Response)
    async def get_binding(bh: str) -> Response:
        """What one listed worker presented, our logged verdict on it, and what dates its beacon."""
        epoch = gateway.registry.epoch(binding_hash(bh))
        if epoch is None:
            raise Refusal(Fault.NOT_FOUND, "no admitted binding has this hash")
        named = epoch.appraised.binding.beacon
        verdict, beacon = await gateway.ledger.dated(epoch.verdict.index, named)
        document = shown.document(epoch, verdict, beacon)
        return Response(document, media_type="application/json", headers=_FRESH)

    @router.post("/v1/workers/{wid}/challenge", response_class=Response)
    async def post_challenge(request: Request, wid: str) -> Response:
        """Relay a client's challenge to a worker, and its answer back; it judges, not we."""
        gateway.authenticator.authenticate(
            request.headers.get("authorization"), SCOPE, gateway.clock.wall()
        )
        check_headers(request, CHALLENGE_MAX, "application/json")
        raw = await read_small(request, CHALLENGE_MAX, gateway.config, gateway.clock)
        nonce, bh, credential = _challenge(raw)
        try:
            answer = await gateway.workers.challenge(wid, bh, nonce, credential)
        except (UnavailableError, MalformedError) as error:
            raise Refusal(Fault.NO_WORKER, error.message, retry_after=2) from error
        return JSONResponse(dict(answer.relayed), headers={"cache-control": "no-store"})

    return router


def binding_hash(text: str) -> bytes:
    """The binding hash in a path.

    Raises:
        Refusal: not 32 bytes in base64url.
    """
    try:
        return unb64u(text, 32)
    except MalformedError as error:
        raise Refusal(Fault.NOT_FOUND, "bh: expected 32 bytes in base64url") from error


def _challenge(raw: bytes) -> tuple[str, bytes, dict[str, Any] | None]:
    """Nonce, binding hash and credential of a challenge.

    Raises:
        Refusal: not of this form.
    """
    try:
        document = parse_strict(raw, max_bytes=CHALLENGE_MAX)
        if not isinstance(document, dict) or set(document) != {"nonce", "credential", "bh"}:
            raise MalformedError("expected an object with nonce, bh and credential")
        credential = document["credential"]
        if credential is not None and not isinstance(credential, dict):
            raise MalformedError("credential: expected an object or null")
        unb64u(document["nonce"], 32)
        return document["nonce"], unb64u(document["bh"], 32), credential
    except MalformedError as error:
        raise Refusal(Fault.BAD_QUERY, error.message) from error

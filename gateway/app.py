"""The HTTP application: routes over a `Gateway`, every failure a problem document."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from wire.errors import UnavailableError
from wire.excerpt import shown

from .config import GatewayConfig
from .errors import Fault, Refusal
from .journal import Event
from .routes.attestation import attestation_routes
from .routes.health import health_routes
from .routes.keys import keys_routes
from .routes.log import log_routes
from .routes.sealed import sealed_routes
from .runtime import Gateway

_BY_STATUS = {404: Fault.NOT_FOUND, 405: Fault.METHOD}


def create_app(config: GatewayConfig, deps: Gateway) -> FastAPI:
    """Build the application; starting it starts `deps`, stopping it stops them.

    Args:
        config: the settings `deps` were opened with.
        deps: an opened, not started gateway.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await deps.start()
        try:
            yield
        finally:
            await deps.stop()

    # No docs pages: they load scripts from elsewhere. No schema either: docs/operate/gateway.md
    # has the routes, and a public port need not describe itself to whoever scans it.
    app = FastAPI(
        title=f"Anchorhold gateway ({config.aud})",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    for routes in (sealed_routes, keys_routes, attestation_routes, log_routes, health_routes):
        app.include_router(routes(deps))

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        return _problem(refusal)

    @app.exception_handler(HTTPException)
    async def refuse_http(request: Request, error: HTTPException) -> Response:
        fault = _BY_STATUS.get(error.status_code, Fault.BAD_QUERY)
        if fault is not Fault.METHOD:
            return _problem(Refusal(fault))
        allowed = (error.headers or {}).get("Allow", "")
        found = shown(request.method)
        answer = _problem(Refusal(fault, f"method: found {found}, expected {allowed or 'another'}"))
        if allowed:  # RFC 9110 §15.5.6
            answer.headers["allow"] = allowed
        return answer

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(_: Request, error: RequestValidationError) -> Response:
        # The library's own message repeats the input; the names of the parameters are enough.
        names = sorted({str(item["loc"][-1]) for item in error.errors()})
        return _problem(Refusal(Fault.BAD_QUERY, f"missing or wrong: {', '.join(names)[:100]}"))

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, error: UnavailableError) -> Response:
        del error  # the ledger has written it down; its words are for the operator
        return _problem(Refusal(Fault.NO_WORKER, "the evidence log has stopped", retry_after=10))

    @app.exception_handler(Exception)
    async def fail(_: Request, error: Exception) -> Response:
        deps.journal.write(Event.INTERNAL, level=logging.ERROR, error=error)
        return _problem(Refusal(Fault.INTERNAL))

    return app


def _problem(refusal: Refusal) -> Response:
    return Response(refusal.body(), status_code=refusal.fault.status, headers=refusal.headers())

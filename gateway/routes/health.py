"""`GET /healthz` (the process lives) and `GET /readyz` (it can answer requests)."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from gateway.errors import Fault, Refusal
from gateway.runtime import Gateway

_FRESH = {"cache-control": "no-store"}


def health_routes(gateway: Gateway) -> APIRouter:
    """The routes, over one gateway."""
    router = APIRouter()

    @router.get("/healthz", response_class=Response)
    async def get_health() -> Response:
        """The event loop turns."""
        return JSONResponse({"status": "ok"}, headers=_FRESH)

    @router.get("/readyz", response_class=Response)
    async def get_ready() -> Response:
        """At least one admitted worker is here and the evidence log takes entries."""
        if not gateway.ready:
            raise Refusal(Fault.NO_WORKER, "no admitted worker, or the evidence log has stopped")
        return JSONResponse({"status": "ready"}, headers=_FRESH)

    return router

"""How this SDK's results look to a program that only knows OpenAI, or Anthropic.

Errors become error JSON of the API that was used, whose `code` is ours, so that
`except openai.APIStatusError as e: e.code` names the exact refusal. Every response carries
`x-anchorhold-trust` where an answer has one, and `x-anchorhold-receipt`: the saved bundle's path,
or the request id when none is saved.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from wire.errors import (
    AnchorholdError,
    BelowPolicyError,
    GatewayError,
    MalformedError,
    PolicyError,
    UnavailableError,
    WorkerNotice,
)

from .calls import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .events import Answered

TRUST_HEADER: Final = "x-anchorhold-trust"
RECEIPT_HEADER: Final = "x-anchorhold-receipt"
MODELS: Final = "/v1/models"
MESSAGES: Final = "/v1/messages"
_MESSAGES_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_JSON: Final = {"content-type": "application/json"}
_NOT_FOUND_CODES: Final = frozenset({"unknown_endpoint", "model_not_found", "model_not_accepted"})
# Refusals that may pass by themselves; OpenAI's client retries those, and nothing else of ours:
# repeating a request cannot repair a fork or a forged key.
_RETRY_CODES: Final = frozenset({"unavailable", "busy"})


def sealed_path(path: str) -> str:
    """The endpoint under `/v1`, whatever prefix the caller's base URL has."""
    at = path.find("/v1/")
    return path[at:] if at >= 0 else "/v1/" + path.lstrip("/")


def base_of(path: str) -> str:
    """What stands before `/v1` in a path."""
    return path[: max(path.find("/v1/"), 0)]


def unknown_endpoint(method: str, path: str) -> MalformedError:
    """The refusal of a path that has no sealed form."""
    known = ", ".join((*(f"POST {name}" for name in ENDPOINTS), f"GET {MODELS}"))
    return MalformedError(
        f"found {method} {path[:80]}, expected one of {known}",
        code="unknown_endpoint",
        hint="nothing was sent: only sealed endpoints leave this process",
    )


def error_document(error: AnchorholdError, path: str = "") -> dict[str, Any]:
    """The error object of a path's API; a gateway's words are labelled as such."""
    kind = "gateway" if isinstance(error, GatewayError) else "anchorhold"
    message = error.diagnostics().replace("\n", ". ")
    found = {"message": message, "type": kind, "param": None, "code": error.code}
    if path != MESSAGES:
        return {"error": found}
    return {"type": "error", "error": found | {"type": _messages_type(error_status(error))}}


def _messages_type(status: int) -> str:
    """Anthropic's word for a status."""
    return _MESSAGES_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def error_response(error: AnchorholdError, path: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a refusal."""
    headers = dict(_JSON)
    if not isinstance(error, GatewayError) and error.code not in _RETRY_CODES:
        headers["x-should-retry"] = "false"
    if isinstance(error, GatewayError) and error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return error_status(error), headers, json.dumps(error_document(error, path)).encode()


def error_status(error: AnchorholdError) -> int:
    """The HTTP status a program that knows only OpenAI sees."""
    if error.code in _NOT_FOUND_CODES:
        return 404
    if isinstance(error, GatewayError):
        return error.status if 400 <= error.status < 600 else 502
    if isinstance(error, UnavailableError) or error.code == "busy":
        return 503
    if isinstance(error, PolicyError) and not isinstance(error, BelowPolicyError):
        return 403
    if type(error) is MalformedError:
        return 400  # the caller's own request body
    if isinstance(error, WorkerNotice) and error.code == "class_exceeded":
        return 413
    return 502


def json_response(document: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """A success made on this side."""
    return 200, dict(_JSON), json.dumps(document).encode()


def answer_headers(answered: Answered, saved: str | None, content_type: str) -> dict[str, str]:
    """Headers of a worker's answer."""
    return {
        "content-type": content_type,
        "cache-control": "no-store",
        "x-request-id": answered.rid,
        TRUST_HEADER: answered.trust,
        RECEIPT_HEADER: saved or answered.rid,
    }

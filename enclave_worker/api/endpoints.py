"""Which path is read by whom: the one way from a request's bytes to an `ApiRequest`."""

from collections.abc import Callable, Mapping
from typing import Any

from wire.canonical import parse_strict
from wire.errors import MalformedError
from wire.limits import BODY_DEPTH_MAX, BODY_MAX

from .chat import read_chat
from .completions import read_completion
from .embeddings import read_embeddings
from .errors import ApiError, invalid
from .fields import Fields
from .messages import read_message
from .request import MODEL_NAME_MAX, ApiRequest
from .responses import read_response

Reader = Callable[[Fields, str, Mapping[str, Any]], ApiRequest]

ENDPOINTS: Mapping[str, Reader] = {
    "/v1/chat/completions": read_chat,
    "/v1/completions": read_completion,
    "/v1/responses": read_response,
    "/v1/messages": read_message,
    "/v1/embeddings": read_embeddings,
}


def parse_request(method: str, path: str, body: bytes) -> ApiRequest:
    """Parse one request.

    Args:
        method: of the sealed HEAD; only POST exists.
        path: of the sealed HEAD.
        body: JSON bytes.

    Raises:
        ApiError: anything this service cannot do exactly as asked.
    """
    read = ENDPOINTS.get(path)
    if read is None or method != "POST":
        known = ", ".join(f"POST {name}" for name in ENDPOINTS)
        raise ApiError(404, "unknown_endpoint", f"no such endpoint here; expected one of {known}")
    try:
        members = parse_strict(body, max_depth=BODY_DEPTH_MAX, max_bytes=BODY_MAX)
    except MalformedError as error:
        raise ApiError(400, "invalid_json", f"request body: {error}") from None
    fields = Fields(members)
    model = fields.text("model", MODEL_NAME_MAX)
    if not model:
        raise invalid("model", "found none, expected the name of the served model")
    request = read(fields, model, members)
    fields.done()
    return request

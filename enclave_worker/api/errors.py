"""Errors a caller reads as JSON of the API it used. They travel inside the ciphertext only."""

import json
from typing import Any

# Anthropic's error types by status; what is not here is an invalid request.
_MESSAGES_TYPES = {
    404: "not_found_error",
    413: "request_too_large",
    500: "api_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """A request the worker opened and will not run.

    The message may name fields and values of the caller's own request: it is only ever sealed to
    that caller (HEAD status ≥ 400), never logged.

    Attributes:
        status: the logical HTTP status inside the ciphertext.
        code: stable machine code, OpenAI's where one exists.
        param: the offending field, or None.
        kind: OpenAI's error type.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        """Keep what the JSON body needs."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind

    def document(self) -> dict[str, Any]:
        """Return the object OpenAI clients expect under `error`."""
        return {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }

    def body(self, path: object = None) -> bytes:
        """Return the whole JSON reply, in the form of the API `path` belongs to."""
        document: dict[str, Any] = {"error": self.document()}
        if path == "/v1/messages":
            document["type"] = "error"
            document["error"]["type"] = _MESSAGES_TYPES.get(self.status, "invalid_request_error")
        return json.dumps(document, separators=(",", ":")).encode()


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """Return a 400 that names `param`; the message says found and expected."""
    return ApiError(400, code, f"{param}: {message}", param=param)


def unsupported(param: str, message: str) -> ApiError:
    """Return a 400 for what the API has and this service has not."""
    return invalid(param, message, "unsupported_value")

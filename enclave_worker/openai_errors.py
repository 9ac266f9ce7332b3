"""Errors a caller reads as OpenAI error JSON. They travel inside the ciphertext only."""

import json
from typing import Any


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

    def body(self) -> bytes:
        """Return the whole JSON reply."""
        return json.dumps({"error": self.document()}, separators=(",", ":")).encode()


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """Return a 400 that names `param`; the message says found and expected."""
    return ApiError(400, code, f"{param}: {message}", param=param)

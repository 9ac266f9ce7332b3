"""What the gateway answers when it refuses: the only place where HTTP status codes are chosen.

Every refusal is `application/problem+json`. It is an untrusted hint to the client, so it says as
little as helps: a type from a closed list, a sentence without content, a coarse Retry-After.
"""

from enum import Enum
from typing import Any

from wire import problems

#: Waits a client may be told. Exact ones would show other tenants' load.
RETRY_AFTER_S = (1, 2, 5, 10, 30)


class Fault(Enum):
    """Each refusal: problem type, HTTP status, title."""

    AUTH = (problems.AUTH, 401, "credential missing or not valid")
    SCOPE = (problems.AUTH, 403, "credential does not allow this")
    QUOTA = (problems.QUOTA, 429, "too many requests waiting for this tenant")
    QUEUE_FULL = (problems.QUEUE_FULL, 503, "the queue is full")
    EXPIRED = (problems.EXPIRED, 408, "the request expired before a worker took it")
    NO_WORKER = (problems.NO_WORKER, 503, "no worker can take this now")
    REWRAP_NEEDED = (problems.REWRAP_NEEDED, 409, "no candidate worker is left; send new wraps")
    TOO_LARGE = (problems.TOO_LARGE, 413, "larger than the limit")
    KID_UNKNOWN = (problems.KID_UNKNOWN, 409, "a key is not in the current directory")
    BAD_ENVELOPE = (problems.BAD_ENVELOPE, 400, "not a valid sealed request")
    MEDIA_TYPE = (problems.BAD_ENVELOPE, 415, "content type or encoding not accepted")
    TOO_SLOW = (problems.BAD_ENVELOPE, 408, "the request body came too slowly")
    DUPLICATE = (problems.BAD_ENVELOPE, 409, "a request with this id is in flight")
    NOT_FOUND = (problems.NOT_FOUND, 404, "no such thing here")
    BAD_QUERY = (problems.BAD_REQUEST, 400, "a parameter is not valid")
    BAD_REQUEST = (problems.BAD_REQUEST, 400, "not valid HTTP")
    METHOD = (problems.METHOD, 405, "method not allowed")
    INTERNAL = (problems.INTERNAL, 500, "the gateway failed")

    @property
    def urn(self) -> str:
        """The problem type."""
        return self.value[0]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[1]

    @property
    def title(self) -> str:
        """The same short sentence for every refusal of this kind."""
        return self.value[2]

    @property
    def word(self) -> str:
        """The fault as one lower-case word, for telemetry's closed list."""
        return self.name.lower()


#: How a worker's signed notice is relayed: the HTTP status is for proxies, the notice for clients.
NOTICE_FAULTS = {
    "kid_unknown": Fault.KID_UNKNOWN,
    "open_failed": Fault.BAD_ENVELOPE,
    "replay": Fault.DUPLICATE,
    "expired": Fault.EXPIRED,
    "class_exceeded": Fault.TOO_LARGE,
    "busy": Fault.REWRAP_NEEDED,
}


class Refusal(Exception):  # noqa: N818 -- an answer to the client, not a failure of the gateway
    """Ends a request with a problem document.

    Args:
        fault: which refusal.
        detail: what was found and expected, without content.
        retry_after: seconds, one of `RETRY_AFTER_S`, or None.
        notice: a worker's signed notice to relay, or None.
    """

    def __init__(
        self,
        fault: Fault,
        detail: str = "",
        *,
        retry_after: int | None = None,
        notice: dict[str, Any] | None = None,
    ) -> None:
        """Keep the parts; `body()` and `headers()` make the answer of them."""
        super().__init__(fault.title)
        if retry_after is not None and retry_after not in RETRY_AFTER_S:
            msg = f"retry_after must be one of {RETRY_AFTER_S}"
            raise ValueError(msg)
        self.fault = fault
        self.detail = detail
        self.retry_after = retry_after
        self.notice = notice

    def body(self) -> bytes:
        """The problem document."""
        fault = self.fault
        extra: dict[str, object] = {}
        if self.retry_after is not None:
            extra["retry_after"] = self.retry_after
        if self.notice is not None:
            extra["notice"] = self.notice
        document = problems.problem(fault.urn, fault.status, fault.title, self.detail, **extra)
        return problems.encode_problem(document)

    def headers(self) -> dict[str, str]:
        """Headers that go with it."""
        headers = {"content-type": problems.CONTENT_TYPE, "cache-control": "no-store"}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.fault is Fault.AUTH:
            headers["www-authenticate"] = "Bearer"
        return headers

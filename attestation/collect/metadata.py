"""Azure's metadata service, for the one thing asked of it: a TD quote of a TD report.

The host answers at one address that routers do not pass on. What it says is verified by whoever
appraises the quote; here only time, size and place are bounded: no proxy, no redirect, no other
address, and an end for a service that drips.

    POST http://169.254.169.254/acc/tdquote   {"report": base64url of the TD report}
    200                                       {"quote": base64url of the quote}

Source: Microsoft, azure-cvm-tooling (`az-tdx-vtpm`), confidential-computing-cvm-guest-attestation.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from wire.canonical import encode, parse_strict
from wire.errors import MalformedError, UnavailableError
from wire.ids import b64u, unb64u

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS: Final = ("169.254.169.254", 80)
PATH: Final = "/acc/tdquote"
ANSWER_MAX: Final = 64 * 1024  # a quote takes 5 to 8 KiB, a third more in base64
TIMEOUT_S: Final = 10.0  # one attempt; three and their pauses end before the worker's 60 s
PAUSES_S: Final = (0.5, 2.0)  # before the second and third attempt
_OK: Final = 200
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_HINT: Final = (
    "The service answers inside an Azure VM only; a firewall rule or a container's network may "
    "keep 169.254.169.254 away."
)


class MetadataService:
    """The service.

    Args:
        address: host and port.
        timeout_s: how long one attempt may take in all.
        sleep: waits between attempts.
    """

    def __init__(
        self,
        address: tuple[str, int] = ADDRESS,
        *,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._sleep = sleep

    def td_quote(self, report: bytes) -> bytes:
        """A quote of this TD report.

        Raises:
            UnavailableError: no answer, none in time, or another than a quote.
        """
        body = encode({"report": b64u(report)})
        failure = ""
        for pause in (0.0, *PAUSES_S):
            if failure:
                self._sleep(pause)
            found = self._attempt(body)
            if isinstance(found, bytes):
                return _quote(found)
            failure = found
        raise _unavailable(f"{failure}, {len(PAUSES_S) + 1} times")

    def _attempt(self, body: bytes) -> bytes | str:
        """The answer, or why another attempt may help."""
        connection = http.client.HTTPConnection(*self._address, timeout=self._timeout_s)
        watch: threading.Timer | None = None
        try:
            connection.connect()
            # Each read is in time where bytes drip: the whole has its own end.
            watch = threading.Timer(self._timeout_s, _cut, (connection.sock,))
            watch.daemon = True
            watch.start()
            headers = {"content-type": "application/json", "metadata": "true"}
            connection.request("POST", PATH, body, headers)
            answer = connection.getresponse()
            if answer.status in _BUSY:
                return f"status {answer.status}"
            if answer.status != _OK:
                raise _unavailable(f"status {answer.status}")
            data = answer.read(ANSWER_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            return f"no whole answer ({type(error).__name__})"
        finally:
            if watch is not None:
                watch.cancel()
            connection.close()
        if len(data) > ANSWER_MAX:
            raise _unavailable(f"an answer of more than {ANSWER_MAX} bytes")
        return data


def _cut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it ended meanwhile
        line.shutdown(socket.SHUT_RDWR)


def _quote(answer: bytes) -> bytes:
    try:
        document = parse_strict(answer, max_bytes=ANSWER_MAX)
        text = document.get("quote") if isinstance(document, dict) else None
        quote = unb64u(text.rstrip("=")) if isinstance(text, str) else b""
    except MalformedError as error:
        raise _unavailable(f"another document ({error.message})") from error
    if not quote:
        raise _unavailable("an answer without a quote")
    return quote


def _unavailable(found: str) -> UnavailableError:
    return UnavailableError(f"metadata service: found {found}, expected a TD quote", hint=_HINT)

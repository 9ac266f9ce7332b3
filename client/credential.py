"""Does the gateway take our API key? Learnt without a request that costs anybody anything.

A live challenge needs a credential, and the gateway looks at it before it reads the challenge. An
empty challenge is therefore answered 401 or 403 to a wrong key and 400 to a right one; no worker
hears of it. The answer is the gateway's word, a hint like all its words: no trust hangs on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wire.errors import AnchorholdError, GatewayError
from wire.limits import PROBLEM_MAX

from .commands import Fetch, Steps, fetch
from .served import refusal

_PATH: Final = "/v1/workers/-/challenge"
_EMPTY: Final = b"{}"
_BAD_REQUEST: Final = 400
_UNAUTHORISED: Final = (401, 403)


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """What became of the key.

    Attributes:
        said: for the report: not sent, accepted, refused or not tested, and why.
        error: the gateway's refusal, or None.
    """

    said: str
    error: GatewayError | None = None


NOT_SENT: Final = KeyCheck("not sent, not tested: none was given (--key-file)")
NOT_REACHED: Final = KeyCheck("not tested: verification ended before it")


def after_failure(error: AnchorholdError) -> KeyCheck:
    """What is known of the key when verification itself ended with `error`."""
    if isinstance(error, GatewayError) and error.status in _UNAUTHORISED:
        return KeyCheck(f"refused by the gateway ({error.status})", error)
    return NOT_REACHED


def check_key(api_key: str | None) -> Steps[KeyCheck]:
    """Show the gateway the key; never raises for what it answers."""
    if api_key is None:
        return NOT_SENT
    try:
        command = Fetch("POST", _PATH, PROBLEM_MAX, _EMPTY, "application/json")
        reply = yield from fetch(command)
    except AnchorholdError as error:
        return KeyCheck(f"not tested: {error.message}")
    if reply.status in _UNAUTHORISED:
        return after_failure(refusal(reply.status, reply.content_type, reply.body))
    if reply.status != _BAD_REQUEST:
        return KeyCheck(f"not tested: the gateway answered {reply.status}, expected 400")
    return KeyCheck("accepted by the gateway")

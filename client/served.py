"""Reading the gateway's small replies: status, type and size first, then bytes for a verifier."""

from __future__ import annotations

from typing import Any, Final

from wire.canonical import parse_strict
from wire.errors import GatewayError, MalformedError, ProtocolFailure
from wire.ids import unb64u
from wire.limits import JSON_MAX, PROBLEM_MAX
from wire.problems import AUTH, parse_problem

from .commands import Fetch, Reply, Steps, fetch

PROOF_HASHES_MAX: Final = 128  # two paths of a tree of 2^63 leaves
PROOF_REPLY_MAX: Final = 16 * 1024
HTTP_OK: Final = 200


def get(path: str, limit: int = JSON_MAX) -> Steps[bytes]:
    """The body of a successful JSON GET; what it says is for the caller to verify.

    Raises:
        GatewayError: any other status: an untrusted hint.
        ProtocolFailure: a success that is not JSON.
    """
    reply = yield from fetch(Fetch("GET", path, limit))
    return json_body(reply)


def json_body(reply: Reply) -> bytes:
    """The body of a reply that must be a JSON success."""
    if reply.status != HTTP_OK:
        raise refusal(reply.status, reply.content_type, reply.body)
    media = media_type(reply.content_type)
    if media != "application/json" and not media.endswith("+json"):
        raise ProtocolFailure(f"gateway reply: expected JSON, found type {media[:64]!r}")
    return reply.body


def refusal(status: int, content_type: str, body: bytes) -> GatewayError:
    """The gateway's refusal as an error, with what a human can do about it."""
    error = parse_problem(status, content_type, body[:PROBLEM_MAX])
    if error.type == AUTH or status in (401, 403):
        error.hint = "check the API key (--key-file or ANCHORHOLD_API_KEY)"
    elif error.retry_after is not None:
        error.hint = f"try again in {error.retry_after} s"
    return error


def media_type(content_type: str) -> str:
    """The media type without parameters, lower case."""
    return content_type.split(";", 1)[0].strip().lower()


def json_object(body: bytes, what: str) -> dict[str, Any]:
    """A JSON object as received.

    Raises:
        ProtocolFailure: anything else.
    """
    try:
        document = parse_strict(body, max_bytes=JSON_MAX)
    except MalformedError as error:
        raise ProtocolFailure(f"{what}: {error.message}") from error
    if not isinstance(document, dict):
        raise ProtocolFailure(f"{what}: expected a JSON object")
    return document


def proof(path: str) -> Steps[tuple[bytes, ...]]:
    """Fetch a Merkle proof: `{"proof":[base64url hash…]}`."""
    body = yield from get(path, PROOF_REPLY_MAX)
    hashes = json_object(body, "log proof").get("proof")
    if not isinstance(hashes, list) or len(hashes) > PROOF_HASHES_MAX:
        raise ProtocolFailure("log proof: expected a list of hashes")
    try:
        return tuple(unb64u(item, 32) for item in hashes)
    except MalformedError as error:
        raise ProtocolFailure(f"log proof: {error.message}") from error

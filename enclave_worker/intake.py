"""From envelope bytes to a request this worker has agreed to answer.

Two kinds of refusal leave here. Before the request is open, or when the gateway may try another
worker: an error of `wire.errors`, which becomes a signed notice. After it is open: an `ApiError`,
which is sealed to the caller.
"""

from dataclasses import dataclass
from typing import Any

from wire.envelope import OpenedRequest, open_envelope, parse_envelope
from wire.errors import MalformedError, OpenError
from wire.header import check_class, check_times
from wire.ids import unb64u
from wire.schedule import transcript_hash
from wire.suites import SUITES
from wire.wraps import KID_LEN

from .api.errors import ApiError
from .api.request import ApiRequest
from .epochs import Epoch, Keyring
from .worker_config import WorkerConfig

OPS = ("chat", "completion", "embed")
CACHE_SALT_LEN = 32
NO_TH = bytes(32)


@dataclass(frozen=True, slots=True)
class Accepted:
    """An opened request and the epoch whose key opened it."""

    opened: OpenedRequest
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Addressee:
    """What a signed notice about an envelope names: this request, this candidate."""

    th: bytes
    kid: bytes


def addressee(envelope: bytes, keyring: Keyring, now: int) -> Addressee:
    """Return whom a notice about `envelope` speaks to, as far as the bytes can be read.

    It names the candidate that is or was a key of this boot, so that the caller finds the attested
    signing key; where the envelope holds none, the newest key, which will not convince the caller
    of anything but a lost way.
    """
    size = int.from_bytes(envelope[4:8], "big")
    header = envelope[8 : 8 + size]
    th = transcript_hash(header) if len(header) == size else NO_TH
    try:
        kid = keyring.named(parse_envelope(envelope).kids)
    except MalformedError:
        kid = None
    offered = keyring.offered(now)
    newest = next(iter(offered[-1].keys)) if offered else bytes(KID_LEN)
    return Addressee(th, kid or newest)


def accept(envelope: bytes, rid: bytes, keyring: Keyring, now: int) -> Accepted:
    """Open one envelope.

    Steps: 1 parse, within limits, without a key. 2 the request id is the one the gateway gave.
    3 find a kid held here. 4 unwrap, commitment, replay set, frames (wire.envelope). 5 times.

    Args:
        envelope: bytes as received.
        rid: request id the gateway labelled them with.
        keyring: keys held.
        now: seconds since the epoch, on the worker's own clock.

    Raises:
        OpenError: steps 1, 2 and 4, with one code, so that altering an envelope teaches nothing.
        KidUnknownError, ReplayError, BusyError, ExpiredError: as named.
    """
    # 1
    try:
        parsed = parse_envelope(envelope)
    except MalformedError as error:
        raise OpenError("the envelope did not open") from error
    # 2
    if parsed.header.rid != rid:
        raise OpenError("the envelope did not open")
    # 3
    epoch, kid, key = keyring.find(parsed.kids, now)
    # 4
    opened = open_envelope(parsed, kid, key.private_key(), SUITES[key.suite], replay=epoch.replay)
    # 5
    check_times(opened.header, now)
    return Accepted(opened, epoch)


def check_header(opened: OpenedRequest, config: WorkerConfig) -> None:
    """Compare what the caller relied on with what this worker is.

    Steps: 1 deployment. 2 service policy. 3 model. 4 operation.

    Raises:
        ApiError: sealed to the caller; the message says found and expected.
    """
    header = opened.header
    # 1
    if header.aud != config.aud:
        raise ApiError(
            421, "audience_mismatch", f"aud: found {header.aud!r}, expected {config.aud!r}"
        )
    # 2
    if header.policy != config.policy:
        raise ApiError(
            412,
            "policy_mismatch",
            f"policy: this worker runs under {config.policy}, the request demands {header.policy}",
        )
    # 3
    if header.model != config.model_name:
        raise ApiError(
            404,
            "model_not_found",
            f"model: found {header.model!r}, expected {config.model_name!r}",
            param="model",
        )
    # 4
    if header.op not in (*OPS, "ping"):
        known = ", ".join((*OPS, "ping"))
        raise ApiError(404, "unsupported_operation", f"op: expected one of {known}")


def check_agreement(opened: OpenedRequest, request: ApiRequest) -> str:
    """Compare the sealed body with the clear header the gateway ordered and charged by.

    Steps: 1 operation is the endpoint's. 2 same model, or MODEL:ADAPTER: only the body says which.
    3 same stream mode. 4 within the classes. Returns the adapter's name, empty for none.

    Raises:
        ApiError: steps 1 to 3.
        ClassExceededError: step 4.
    """
    header = opened.header
    # 1
    if header.op != request.op:
        raise ApiError(400, "header_mismatch", f"op: header says {header.op}, body {request.op}")
    # 2
    adapter = request.model.removeprefix(f"{header.model}:")
    if adapter == request.model or request.kind == "embeddings":
        adapter = ""
    if request.model != (f"{header.model}:{adapter}" if adapter else header.model):
        raise ApiError(
            400,
            "header_mismatch",
            f"model: found {request.model!r}, the header says {header.model!r}",
            param="model",
        )
    # 3
    if header.stream != request.stream:
        raise ApiError(400, "header_mismatch", "stream: body and header differ", param="stream")
    # 4
    check_class(header, len(opened.body), (request.max_tokens or 1) * request.n)
    return adapter


def cache_salt(head: dict[str, Any]) -> bytes | None:
    """Return the caller's prefix-cache salt from the sealed HEAD, None where there is none.

    Raises:
        ApiError: not 32 bytes of base64url.
    """
    value = head.get("salt")
    if value is None:
        return None
    try:
        return unb64u(value, CACHE_SALT_LEN)
    except MalformedError:
        raise ApiError(
            400, "invalid_value", f"salt: expected {CACHE_SALT_LEN} bytes in base64url"
        ) from None

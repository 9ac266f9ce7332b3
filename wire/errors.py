"""Every failure caused by data from outside, in one tree.

    AnchorholdError
    ├── MalformedError            malformed           bytes do not follow the format
    │   ├── EnvelopeError         bad_envelope
    │   ├── FrameError            bad_frame
    │   ├── RecordError           bad_record
    │   └── HeaderError           bad_header
    ├── OpenError                 open_failed         any unwrap, commitment or AEAD failure
    ├── ReplayError               replay
    ├── ExpiredError              expired
    ├── ClassExceededError        class_exceeded
    ├── KidUnknownError           kid_unknown
    ├── BusyError                 busy
    ├── StreamTruncated           stream_truncated
    ├── ProtocolFailure           protocol_failure    a 200 that is not what it must be
    ├── SpliceError               splice              the response belongs to another exchange
    ├── AttestationError          attestation_failed  (.reasons)
    ├── DirectoryError            directory_invalid
    │   ├── StaleDirectoryError   directory_stale
    │   ├── RollbackError         log_rollback
    │   └── ForkError             log_fork
    ├── PolicyError               policy_invalid
    │   ├── PolicyExpiredError    policy_expired
    │   └── BelowPolicyError      below_policy
    ├── ReceiptError              receipt_invalid
    ├── GatewayError              gateway             an untrusted hint (.status .type .text)
    ├── WorkerNotice              worker_notice       a verified, signed notice; code as in it
    ├── ConfigError               config
    └── UnavailableError          unavailable

A caller's own mistake is a plain `ValueError` or `RuntimeError`; this tree means hostile, broken or
outdated data. Messages name what was found and what was expected, never content. `code` is stable:
other programs branch on it, so a code is never renamed.
"""

from __future__ import annotations

from typing import ClassVar

GATEWAY_TEXT_MAX = 256  # a gateway's words are a hint for a human, not a channel into the client


class AnchorholdError(Exception):
    """Root of the tree.

    Args:
        message: one sentence, found and expected, without content.
        code: overrides the class's stable code.
        hint: what the human should do next; may be empty.
    """

    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.code: str = code if code is not None else self.default_code
        self.message = message
        self.hint = hint

    def diagnostics(self) -> str:
        """The message and, on its own line, what to do next."""
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class MalformedError(AnchorholdError):
    """The bytes do not follow the format they claim."""

    default_code = "malformed"


class EnvelopeError(MalformedError):
    """A request envelope or wrap list is not well formed."""

    default_code = "bad_envelope"


class FrameError(MalformedError):
    """A frame header is impossible, or bytes follow FINAL."""

    default_code = "bad_frame"


class RecordError(MalformedError):
    """A frame's plaintext is not a list of records."""

    default_code = "bad_record"


class HeaderError(MalformedError):
    """A clear request header misses a member or holds a wrong type or value."""

    default_code = "bad_header"


class OpenError(AnchorholdError):
    """Something sealed did not open. One code for every cause, so it is no oracle."""

    default_code = "open_failed"


class ReplayError(AnchorholdError):
    """This request was already entered under this key."""

    default_code = "replay"


class ExpiredError(AnchorholdError):
    """The request's time window does not hold the present."""

    default_code = "expired"


class ClassExceededError(AnchorholdError):
    """The request is larger than the class its clear header declares."""

    default_code = "class_exceeded"


class KidUnknownError(AnchorholdError):
    """No wrap of the envelope is for a key this worker holds."""

    default_code = "kid_unknown"


class BusyError(AnchorholdError):
    """The worker has no room for this request now."""

    default_code = "busy"


class StreamTruncated(AnchorholdError):  # noqa: N818 -- it names an event
    """The response ended before its authenticated end; what was delivered is incomplete."""

    default_code = "stream_truncated"


class ProtocolFailure(AnchorholdError):  # noqa: N818 -- it names an event
    """A successful status with a body that is not a sealed response."""

    default_code = "protocol_failure"


class SpliceError(AnchorholdError):
    """The response names another request or a key that was not a candidate."""

    default_code = "splice"


class AttestationError(AnchorholdError):
    """Evidence was refused.

    Args:
        reasons: machine codes, most important first.
        case_of: a broader code that the first is a case of here, though not everywhere; or "".
    """

    default_code = "attestation_failed"

    def __init__(
        self,
        message: str,
        *,
        reasons: tuple[str, ...] = (),
        code: str | None = None,
        hint: str = "",
        case_of: str = "",
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.reasons = reasons
        self.case_of = case_of


def refused(code: str, detail: str, about: str = "", case_of: str = "") -> AttestationError:
    """A refusal of evidence for one reason.

    Args:
        code: the reason's code.
        detail: found and expected.
        about: what was looked at; the sentence begins with it.
        case_of: a broader code that it is a case of here, though not everywhere.
    """
    sentence = f"{about}: {detail}" if about else detail
    return AttestationError(sentence, reasons=(code,), case_of=case_of)


class DirectoryError(AnchorholdError):
    """The directory document does not verify."""

    default_code = "directory_invalid"


class StaleDirectoryError(DirectoryError):
    """The directory is older than the policy allows."""

    default_code = "directory_stale"


class RollbackError(DirectoryError):
    """The log shown is smaller than one seen before."""

    default_code = "log_rollback"


class ForkError(DirectoryError):
    """Two checkpoints of one log do not agree."""

    default_code = "log_fork"


class PolicyError(AnchorholdError):
    """A policy document is not valid."""

    default_code = "policy_invalid"


class PolicyExpiredError(PolicyError):
    """The policy's own validity window does not hold the present."""

    default_code = "policy_expired"


class BelowPolicyError(PolicyError):
    """What was verified is genuine but weaker than the policy demands."""

    default_code = "below_policy"


class ReceiptError(AnchorholdError):
    """A receipt or its log proof does not verify."""

    default_code = "receipt_invalid"


class GatewayError(AnchorholdError):
    """What the gateway says went wrong: an untrusted hint, never model output.

    Args:
        status: HTTP status.
        type: problem type URN, or "" where the gateway named none.
        text: the gateway's words; cut to 256 printable characters.
        retry_after: seconds the gateway asks to wait, or None.
        notice: the worker notice relayed inside, still unverified, or None.
    """

    default_code = "gateway"

    def __init__(
        self,
        message: str = "",
        *,
        status: int,
        type: str = "",  # noqa: A002 -- the member's name in RFC 9457
        text: str = "",
        retry_after: int | None = None,
        notice: dict[str, object] | None = None,
        code: str | None = None,
        hint: str = "",
    ) -> None:
        self.status = status
        self.type = type
        self.text = "".join(c if c.isprintable() else " " for c in text[:GATEWAY_TEXT_MAX])
        self.retry_after = retry_after
        self.notice = notice
        said = f": {self.text}" if self.text else ""
        super().__init__(message or f"gateway answered {status}{said}", code=code, hint=hint)


class WorkerNotice(AnchorholdError):  # noqa: N818 -- it names an event
    """A worker's signed refusal, verified; `code` is the notice's own code."""

    default_code = "worker_notice"


class ConfigError(AnchorholdError):
    """A configuration file or option cannot be used."""

    default_code = "config"


class UnavailableError(AnchorholdError):
    """A part this one needs cannot be reached now."""

    default_code = "unavailable"

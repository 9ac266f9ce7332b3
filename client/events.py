"""What an exchange hands to its caller: `Answered`, then `Delta`s or a `Body`, then `Done`.

Everything here was authenticated to one verified worker before it was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.result import Trust

    from .receipts import Receipt
    from .workers import VerifiedWorker


@dataclass(frozen=True, slots=True)
class Answered:
    """The logical response begins.

    Attributes:
        status: logical HTTP status, from inside the ciphertext.
        headers: logical headers, lower-case names.
        id, created, model: what OpenAI chunks repeat.
        worker: who answers.
        rid: text form of the request id.
        prompt_tokens: as the worker counted them before it began; the receipt's count is signed.
    """

    status: int
    headers: Mapping[str, str]
    id: str
    created: int
    model: str
    worker: VerifiedWorker
    rid: str
    prompt_tokens: int = 0

    @property
    def trust(self) -> Trust:
        """What stands behind the answering worker's evidence."""
        return self.worker.trust


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A piece of a tool call.

    Attributes:
        number: of the call, from 0.
        id, name: of the call and the function, on the call's first piece; else empty and None.
        arguments: JSON text added; content.
    """

    number: int
    id: str
    name: str | None
    arguments: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's bytes, its log-probability, and those of the likeliest tokens."""

    token: bytes = field(repr=False)
    logprob: float
    top: tuple[tuple[bytes, float], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new of one choice of a streamed answer.

    Attributes:
        text: the text added; content, kept out of `repr`.
        index: choice index.
        finish: why the choice ended, on its last delta.
        usage: token counts as OpenAI spells them, on the last delta.
        trust: what stands behind the answering worker's evidence.
        call: a piece of a tool call, where the delta is one.
        logprobs: of tokens whose text is in this delta or comes next.
        stop: which of the request's stop strings ended the choice, on its last delta.
    """

    text: str = field(repr=False)
    index: int
    finish: str | None
    usage: Mapping[str, int] | None
    trust: Trust
    call: CallDelta | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """The whole body of an answer that is not streamed, or of a refusal."""

    data: bytes = field(repr=False)
    trust: Trust


@dataclass(frozen=True, slots=True)
class Done:
    """The authenticated end was read. `receipt` is verified; None only for a sealed refusal."""

    receipt: Receipt | None
    trust: Trust


Event = Answered | Delta | Body | Done

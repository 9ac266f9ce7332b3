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
    """

    status: int
    headers: Mapping[str, str]
    id: str
    created: int
    model: str
    worker: VerifiedWorker
    rid: str

    @property
    def trust(self) -> Trust:
        """What stands behind the answering worker's evidence."""
        return self.worker.trust


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of one choice of a streamed answer.

    Attributes:
        text: the text added; content, kept out of `repr`.
        index: choice index.
        finish: why the choice ended, on its last delta.
        usage: token counts as OpenAI spells them, on the last delta.
        trust: what stands behind the answering worker's evidence.
    """

    text: str = field(repr=False)
    index: int
    finish: str | None
    usage: Mapping[str, int] | None
    trust: Trust


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

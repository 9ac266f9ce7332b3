"""What calls return. Every result says what stands behind it (`trust`) and carries its receipt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wire.canonical import parse_strict
from wire.errors import MalformedError, ProtocolFailure, WorkerNotice

from .told import DEPTH_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.result import Trust

    from .receipts import Receipt


@dataclass(frozen=True, slots=True)
class SealedResponse:
    """A whole logical response, as the worker sealed it.

    Attributes:
        status: logical HTTP status.
        headers: logical headers.
        body: logical body; content.
        receipt: verified; None only for a sealed refusal (status ≥ 400).
        trust: what stands behind the worker.
        rid: text form of the request id.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    receipt: Receipt | None
    trust: Trust
    rid: str

    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        try:
            document = parse_strict(
                self.body, max_depth=DEPTH_MAX, max_bytes=max(len(self.body), 1)
            )
        except MalformedError as error:
            raise ProtocolFailure(f"response body: {error.message}") from error
        if not isinstance(document, dict):
            raise ProtocolFailure("response body: a JSON object expected")
        return document

    def require(self) -> SealedResponse:
        """This response, if it is a success; otherwise raises the worker's sealed refusal."""
        if self.receipt is not None:
            return self
        error = self.json().get("error")
        said = error if isinstance(error, dict) else {}
        message, code = said.get("message"), said.get("code")
        raise WorkerNotice(
            f"worker answered {self.status}: {message if isinstance(message, str) else ''}",
            code=code if isinstance(code, str) else "worker_refused",
        )


@dataclass(frozen=True, slots=True)
class ChatResult:
    """One whole chat answer.

    Attributes:
        text: of the first choice; content.
        finish: why it ended: stop, length or tool_calls.
        usage: token counts as OpenAI spells them, from the signed receipt.
        receipt: verified.
        trust: what stands behind the worker.
        document: the whole OpenAI response; content.
    """

    text: str = field(repr=False)
    finish: str
    usage: Mapping[str, int]
    receipt: Receipt
    trust: Trust
    document: Mapping[str, Any] = field(repr=False)


def chat_result(response: SealedResponse) -> ChatResult:
    """The chat answer in a response.

    Raises:
        WorkerNotice: it is a refusal.
    """
    document = response.require().json()
    receipt = response.receipt
    assert receipt is not None, "a success has a receipt"
    choice = document["choices"][0]
    return ChatResult(
        text=choice["message"]["content"] or "",  # none beside tool calls
        finish=choice["finish_reason"],
        usage=receipt.usage,
        receipt=receipt,
        trust=response.trust,
        document=document,
    )

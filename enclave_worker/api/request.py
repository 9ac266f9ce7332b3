"""What every shape is read into: one request form, so that the engine's side has one path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from enclave_worker.engine.params import Grammar, SamplingParams
from evidence.commit import SEGMENTS_MAX

Kind = Literal["chat", "completion", "responses", "messages", "embeddings"]
ToolChoice = Literal["none", "auto", "required"]

# More messages than any context window holds, and less than a receipt can commit to.
MESSAGES_MAX = SEGMENTS_MAX - 8
MODEL_NAME_MAX = 256
# Each choice is a sequence of its own in the engine: one request must not fill the batch.
CHOICES_MAX = 8
TOKENS_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is a JSON schema of an object."""

    name: str
    description: str | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model made; `arguments` is JSON text, cut short if the answer was."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn; `content` is the text parts joined.

    Attributes:
        role: system, user, assistant or tool.
        content: text.
        calls: tool calls of an assistant's turn.
        call_id: which call a tool's turn answers.
    """

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """What may be called.

    Attributes:
        tools: offered functions.
        choice: whether the model must, may or must not call.
        only: the one function that must be called, or None.
        parallel: whether one answer may hold several calls.
    """

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = "none"
    only: str | None = None
    parallel: bool = True

    @property
    def active(self) -> bool:
        """Whether the answer may hold calls."""
        return bool(self.tools) and self.choice != "none"

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The functions the answer may call."""
        return tuple(tool for tool in self.tools if self.only in (None, tool.name))


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A parsed request.

    Attributes:
        kind: which endpoint.
        model: as named in the body.
        turns: of a conversation, else empty.
        prompt: of a completion: text or token ids; None for a conversation.
        inputs: of embeddings: texts or lists of token ids.
        sampling: every sampling field; its max_tokens is the caller's, or 1 as a placeholder.
        max_tokens: the caller's limit for each choice, or None.
        n: choices.
        stream: whether deltas are asked for.
        include_usage: whether the stream's last chunk should carry usage.
        tools: what may be called.
        format: grammar the text of the answer follows, or None.
        echo: whether the answer begins with the prompt.
        members: the body as parsed, for replies that repeat parts of it.
        segments: (role, bytes) of each part of the prompt, for the receipt's commitment.
    """

    kind: Kind
    model: str
    sampling: SamplingParams
    turns: tuple[Turn, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    inputs: tuple[str | tuple[int, ...], ...] = ()
    max_tokens: int | None = None
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    tools: ToolPlan = ToolPlan()
    format: Grammar | None = None
    echo: bool = False
    members: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    segments: tuple[tuple[int, bytes], ...] = ()

    @property
    def op(self) -> str:
        """The clear header's operation for this endpoint."""
        ops = {"completion": "completion", "embeddings": "embed"}
        return ops.get(self.kind, "chat")

"""Which endpoint's whole reply is written by whom."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from enclave_worker.engine.events import Usage

from .chat_reply import chat_reply, completion_reply
from .messages_reply import messages_reply, settled
from .request import ApiRequest, Kind
from .responses_reply import responses_reply
from .results import ChoiceResult, Identity

Reply = Callable[[Identity, ApiRequest, Sequence[ChoiceResult], Usage], dict[str, Any]]

REPLIES: Mapping[Kind, Reply] = {
    "chat": chat_reply,
    "completion": completion_reply,
    "responses": responses_reply,
    "messages": messages_reply,
}


def shown(request: ApiRequest, results: Sequence[ChoiceResult]) -> list[ChoiceResult]:
    """The choices as a whole reply of this shape can show them."""
    if request.kind == "messages":
        return [settled(result) for result in results]
    return list(results)


def body(
    identity: Identity, request: ApiRequest, results: Sequence[ChoiceResult], usage: Usage
) -> bytes:
    """The whole JSON reply of a request that is not streamed."""
    document = REPLIES[request.kind](identity, request, results, usage)
    return dumped(document)


def dumped(document: Mapping[str, Any]) -> bytes:
    """A document as it is sent."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

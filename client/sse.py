"""Server-sent events: the framing alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

DONE: Final = b"data: [DONE]\n\n"


def event(document: Mapping[str, Any]) -> bytes:
    """One `data:` event. ASCII only: U+2028 and its kin end lines in some readers."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def typed_event(document: Mapping[str, Any]) -> bytes:
    """One event that is named as its document's `type`, a word of ours."""
    return f"event: {document['type']}\n".encode() + event(document)

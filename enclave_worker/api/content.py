"""Contents of messages: a text, or an array of parts of which only texts exist here."""

from collections.abc import Iterable
from typing import Any

from wire.excerpt import json_kind, shown

from .errors import invalid, unsupported
from .fields import KEYWORD_MAX, Fields, counted

# Members of a text part that say nothing about the answer.
PART_IGNORED = ("annotations", "cache_control", "logprobs", "prompt_cache_breakpoint")


def read_text(raw: Any, name: str, kinds: Iterable[str]) -> str:
    """Return the text, of parts the texts joined; `kinds` are the part types that are texts."""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list) or not raw:
        raise invalid(name, f"found {counted(raw)}, expected a string or an array of text parts")
    return "".join(
        text_of(Fields(item, f"{name}[{index}]."), tuple(kinds)) for index, item in enumerate(raw)
    )


def text_of(part: Fields, kinds: tuple[str, ...]) -> str:
    """Return the text of one part."""
    found = part.raw("type")
    if found not in kinds:
        what = shown(found, KEYWORD_MAX) if isinstance(found, str) else json_kind(found)
        raise unsupported(part.name("type"), f"found {what}, this service supports only text parts")
    text = part.raw("text")
    if not isinstance(text, str):
        raise invalid(part.name("text"), f"found {json_kind(text)}, expected a string")
    part.ignore(PART_IGNORED)
    part.done()
    return text

"""A worker's answer to a client's live challenge. Its form is read here; who asked judges it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestation.evidence import evidence_list
from attestation.posture import CONTAINER_MAX
from wire.errors import MalformedError, UnavailableError
from wire.ids import unb64u
from wire.limits import BINDING_MAX

from .appraiser import Presented

_RELAYED = ("binding", "evidence", "posture", "answer")


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """What a worker showed for somebody's nonce; nothing in it is verified.

    Attributes:
        presented: binding, evidence and posture record.
        relayed: the same as received, with the answer to a credential challenge.
    """

    presented: Presented
    relayed: Mapping[str, Any]


def parse_live_answer(document: Mapping[str, Any]) -> LiveAnswer:
    """The answer in a CHALLENGE_ANSWER.

    Raises:
        UnavailableError: it says that the worker cannot answer.
        MalformedError: binding, evidence or posture record are not of their form.
    """
    if "error" in document or "binding" not in document:
        raise UnavailableError("the worker could not answer the challenge")
    posture = document.get("posture")
    return LiveAnswer(
        Presented(
            _bytes(document["binding"], BINDING_MAX),
            evidence_list(document.get("evidence")),
            None if posture is None else _bytes(posture, CONTAINER_MAX),
        ),
        {name: document.get(name) for name in _RELAYED},
    )


def _bytes(text: object, most: int) -> bytes:
    if not isinstance(text, str) or len(text) > most * 4 // 3 + 4:
        raise MalformedError(f"challenge answer: expected at most {most} bytes in base64url")
    return unb64u(text)

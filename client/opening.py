"""What opens a receipt: the request, the answer's segments and the two salts, as one file.

A receipt holds no content, only salted commitments. Whoever is to run the answer again
(`anchorhold receipt replay`) or to read what was said needs this beside it. **It is content**:
whoever has the file has the prompt and the answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from evidence.commit import SECRET_LEN, commit_segments, request_segments
from wire.canonical import parse_strict
from wire.errors import ConfigError, MalformedError, ReceiptError
from wire.ids import b64u, unb64u
from wire.limits import BODY_MAX

from .calls import parse_call
from .files import make_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    Segments = tuple[tuple[int, bytes], ...]

FORMAT: Final = "anchorhold-opening/1"
OPENING: Final = "opening"  # what messages call the file
# The request and its answer; JSON may escape a byte into six.
OPENING_MAX: Final = 8 * BODY_MAX
_MEMBERS: Final = {"format", "rid", "path", "body", "salt_q", "salt_r", "answer", "logprobs"}
_HINT: Final = "name a file that `anchorhold chat --opening FILE` wrote"


@dataclass(frozen=True, slots=True)
class Opening:
    """The content of one exchange, and the salts it was committed to with.

    Attributes:
        rid: text form of the request id.
        path: the endpoint inside the envelope.
        body: the request's JSON bytes, as they were sealed.
        salt_q, salt_r: salts of the request's and the answer's commitments.
        answer: segments of the answer, one for each choice.
        logprobs: of the chosen tokens of each choice, where the answer told them; else empty.
    """

    rid: str
    path: str
    body: bytes = field(repr=False)
    salt_q: bytes = field(repr=False)
    salt_r: bytes = field(repr=False)
    answer: Segments = field(repr=False)
    logprobs: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    def encode(self) -> bytes:
        """The file's bytes."""
        document = {
            "format": FORMAT,
            "rid": self.rid,
            "path": self.path,
            "body": self.body.decode(),
            "salt_q": b64u(self.salt_q),
            "salt_r": b64u(self.salt_r),
            "answer": [[role, b64u(data)] for role, data in self.answer],
            "logprobs": [list(values) for values in self.logprobs],
        }
        return json.dumps(document, ensure_ascii=False, indent=1).encode()

    def save(self, path: Path | str) -> Path:
        """Write it into a new file (mode 0600, whole or not at all); returns the path.

        Raises:
            ConfigError: there is something of that name, or it cannot be written.
        """
        target = Path(path)
        make_file(target, self.encode(), OPENING, hint="name another file: none is replaced")
        return target

    def check(self, claims: Mapping[str, Any]) -> None:
        """Hold it against a verified statement.

        Raises:
            ReceiptError: it is of another exchange, or something in it is not what was said.
        """
        if claims["rid"] != self.rid:
            raise _differs("id of the receipt's request")
        sent = request_segments(parse_call(self.path, self.body).members)
        for name, side, salt, segments in (
            ("request", claims["req"], self.salt_q, sent),
            ("answer", claims["resp"], self.salt_r, self.answer),
        ):
            found = commit_segments(salt, segments)
            if side["n"] != len(segments) or unb64u(side["c"]) != found:
                raise _differs(f"{name} that the receipt commits to")


def parse_opening(raw: bytes) -> Opening:
    """Read a file's bytes.

    Raises:
        ConfigError: it is no opening.
    """
    try:
        document = parse_strict(raw, max_bytes=OPENING_MAX)
        if not isinstance(document, dict) or set(document) != _MEMBERS:
            raise MalformedError(f"expected the members {', '.join(sorted(_MEMBERS))}")
        if document["format"] != FORMAT:
            raise MalformedError(f"expected the format {FORMAT}")
        answer = tuple((_role(role), unb64u(data)) for role, data in document["answer"])
        return Opening(
            rid=_text(document["rid"]),
            path=_text(document["path"]),
            body=_text(document["body"]).encode(),
            salt_q=unb64u(document["salt_q"], SECRET_LEN),
            salt_r=unb64u(document["salt_r"], SECRET_LEN),
            answer=answer,
            logprobs=tuple(tuple(map(float, values)) for values in document["logprobs"]),
        )
    except MalformedError as error:
        raise ConfigError(f"opening file: {error.message}", hint=_HINT) from error
    except (TypeError, ValueError) as error:
        raise ConfigError("opening file: found another form than expected", hint=_HINT) from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    return value


def _role(value: object) -> int:
    if type(value) is not int or not 0 <= value < 256:
        raise TypeError("a role expected")
    return value


def _differs(expected: str) -> ReceiptError:
    return ReceiptError(f"opening: the {expected} expected, found another", code="opening_invalid")

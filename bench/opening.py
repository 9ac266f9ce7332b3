"""What opening sealed bytes costs: a request, and a link in small pieces, each against a limit.

    .venv/bin/python bench/opening.py [--rounds 50] [--json]

The limit of a request is the bare AES-256-GCM decryption of as many bytes in frames of the same
size, in the same run; that of the link, appending the same pieces to a plain buffer. Reported are
medians on one core, and the ratio to the limit.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from median import median_ms

from wire.envelope import open_envelope, parse_envelope, seal_request
from wire.header import RequestHeader
from wire.ids import kid_of
from wire.limits import FRAME_PT_MAX
from wire.link import JOB, Decoder, encode, raw_message
from wire.suites import HYBRID, SUITES
from wire.wraps import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
#: Bytes of a request's body, of a link's message, and of one piece of it.
BODY, MESSAGE, PIECE = MIB, 8 * MIB, 4096
HEAD = {"m": "POST", "p": "/v1/chat/completions", "h": {"content-type": "application/json"}}
NOW = 1_790_000_000


def request() -> Callable[[], object]:
    """Opening one sealed request."""
    key = SUITES[HYBRID].private_key(bytes(32))
    kid = kid_of(HYBRID, key.pk)
    header = RequestHeader(
        rid=bytes(16), aud="bench", op="chat", model="m", policy="sha256:" + "0" * 64,
        iat=NOW, exp=NOW + 300, out=1024, stream=True, pad="off", retry="never", suite=HYBRID,
    )  # fmt: skip
    sealed = seal_request(header, [Candidate(kid, HYBRID, key.pk)], HEAD, bytes(BODY), os.urandom)

    def opened() -> object:
        return open_envelope(parse_envelope(sealed.envelope), kid, key, SUITES[HYBRID])

    return opened


def bare_decryption() -> Callable[[], object]:
    """The decryption that nothing can do without."""
    aead, nonce, head = AESGCM(bytes(32)), bytes(12), bytes(4)
    frames = [aead.encrypt(nonce, bytes(FRAME_PT_MAX), head) for _ in range(BODY // FRAME_PT_MAX)]
    return lambda: [aead.decrypt(nonce, frame, head) for frame in frames]


def pieces() -> list[bytes]:
    """A message as a socket gives it."""
    message = encode(raw_message(JOB, bytes(16), bytes(MESSAGE)))
    return [message[at : at + PIECE] for at in range(0, len(message), PIECE)]


def decoded(cut: list[bytes]) -> None:
    """The link's reading of them."""
    decoder = Decoder()
    for piece in cut:
        decoder.feed(piece)


def appended(cut: list[bytes]) -> bytes:
    """Keeping them, and giving the whole out once."""
    buffer = bytearray()
    for piece in cut:
        buffer += piece
    return bytes(buffer)


def measured(rounds: int) -> list[dict[str, Any]]:
    """Both: ours, the limit and the ratio."""
    cut = pieces()
    found = []
    for name, ours, limit in (
        ("request of 1 MiB", request(), bare_decryption()),
        ("link, 8 MiB in pieces of 4 KiB", lambda: decoded(cut), lambda: appended(cut)),
    ):
        took, least = median_ms(ours, rounds), median_ms(limit, rounds)
        found.append({"what": name, "ms": took, "limit_ms": least, "ratio": took / least})
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50, help="calls of each")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    found = measured(options.rounds)
    if options.json:
        print(json.dumps({"opening": found}, indent=2))
        return
    for row in found:
        print(
            f"{row['what']:<32} {row['ms']:6.2f} ms  limit {row['limit_ms']:5.2f} ms  "
            f"ratio {row['ratio']:4.2f}"
        )


if __name__ == "__main__":
    main()

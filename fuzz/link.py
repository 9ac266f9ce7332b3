"""What gateway and worker read from each other on a link: messages, HELLO, proof of possession."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from simulators.key_holder import key_holder
from simulators.tee import SoftwareTee

from attestation.evidence import Evidence
from enclave_worker.bench import Bench
from enclave_worker.challenges import Challenges
from enclave_worker.clock import Clock
from enclave_worker.epochs import Epoch, Keyring
from fuzz.seeds import NONCE, Seed
from fuzz.target import Target
from gateway.admission import parse_hello
from gateway.inbound import INBOUND_MAX
from wire.canonical import encode as encode_json
from wire.errors import MalformedError, OpenError
from wire.ids import b64u, unb64u
from wire.limits import RID_LEN
from wire.link import (
    BYTES,
    FROM_STRANGERS,
    FROM_WORKERS,
    HELLO,
    PROVE,
    PROVED,
    WITH_RID,
    Decoder,
    Message,
    encode,
    hello_bytes,
    json_message,
    raw_message,
)
from wire.possession import ANSWER_LEN, Possession, ask_possession, prove_possession
from wire.wraps import Candidate

if TYPE_CHECKING:
    from collections.abc import Mapping

_ONE: Final = (MalformedError,)
_RID: Final = bytes(RID_LEN)
_NOW: Final = 1_790_000_000
_WORDS: Final = (b"sealed", b"answer", b"evidence", b"posture", b"null", b'""', b"[]", b"{}")


# -- messages -------------------------------------------------------------------------------------


def _streams() -> list[Seed]:
    """What strangers send, and what workers send; the context is what a gateway expects."""
    first = [json_message(HELLO, _hello()), json_message(PROVED, {"id": 0, "answer": b64u(NONCE)})]
    raw = (BYTES,)
    later = [
        raw_message(kind, _RID, bytes(40)) if kind in raw
        else json_message(kind, {"id": 1, "n": 2}, rid=_RID if kind in WITH_RID else b"")
        for kind in FROM_WORKERS
    ]  # fmt: skip
    rows = ((first, FROM_STRANGERS), ([*first, *later], FROM_WORKERS), (later, None))
    return [Seed({"": b"".join(map(encode, sent))}, expected) for sent, expected in rows]


def _stream(roles: Mapping[str, bytes], context: Any) -> bool:
    raw, decoder = roles[""], Decoder(INBOUND_MAX, context)
    cut = len(raw) // 3
    for chunk in (raw[:cut], raw[cut:]):
        for message in decoder.feed(chunk):
            if message.type == BYTES:
                _ = message.rid, message.data
            else:
                message.json()
    return decoder.empty


# -- HELLO ----------------------------------------------------------------------------------------


def _hello() -> dict[str, Any]:
    tee = SoftwareTee()
    binding = tee.binding()
    return {
        "wid": "w",
        "binding": b64u(binding),
        "evidence": [tee.evidence(binding).to_json()],
        "posture": b64u(tee.record()),
        "sig": b64u(tee.sig.sign(hello_bytes(NONCE, bytes(32)))),
        "activation": None,
    }


def _hellos() -> list[Seed]:
    honest = _hello()
    several = {**honest, "evidence": honest["evidence"] * 3, "posture": None}
    return [Seed({"": encode_json(each)}) for each in (several, honest)]


def _introduced(roles: Mapping[str, bytes], context: Any) -> bool:
    del context
    parse_hello(Message(HELLO, roles[""]).json())
    return True


# -- possession -----------------------------------------------------------------------------------


@cache
def _holder() -> tuple[Challenges, Epoch]:
    """A worker's answerer of questions, and the epoch whose keys it holds."""
    clock = Clock(lambda: _NOW * 10**9, lambda: 0)
    ring = Keyring(key_holder(), bytes)
    ring.set_posture(b"{}")
    epoch = ring.prepare(_NOW)
    ring.install(epoch, [Evidence("software", b"{}")])
    nothing: Any = None  # no request is served here
    bench = Bench(key_holder(), ring, nothing, nothing, clock, bytes, executor=nothing)
    return Challenges(bench, nothing, b"{}"), epoch


def _asked() -> Possession:
    epoch = _holder()[1]
    keys = [Candidate(kid, key.suite, key.pk) for kid, key in epoch.keys.items()]
    return ask_possession(keys, NONCE, epoch.bh, bytes)


def _questions() -> list[Seed]:
    epoch = _holder()[1]
    sealed = [b64u(one) for one in _asked().sealed]
    return [Seed({"": encode_json({"id": 1, "bh": b64u(epoch.bh), "sealed": sealed})})]


def _prove(roles: Mapping[str, bytes], context: Any) -> bool:
    """Of what a question says only its number must be there: who asks is admitted already."""
    del context
    question = Message(PROVE, roles[""]).json()
    answer = _holder()[0].prove({"id": 0, **question}, NONCE)
    json.dumps(answer)
    return answer["answer"] is not None


def _sealed() -> list[Seed]:
    return [Seed({str(at): one for at, one in enumerate(_asked().sealed)})]


def _open(roles: Mapping[str, bytes], context: Any) -> bool:
    del context
    epoch = _holder()[1]
    keys = [(kid, key.private_key()) for kid, key in epoch.keys.items()]
    prove_possession(keys, list(roles.values()), NONCE, epoch.bh)
    return True


def _answers() -> list[Seed]:
    epoch = _holder()[1]
    keys = [(kid, key.private_key()) for kid, key in epoch.keys.items()]
    asked = _asked()
    answer = b64u(prove_possession(keys, asked.sealed, NONCE, epoch.bh))
    return [Seed({"": encode_json({"id": 1, "answer": one})}, asked) for one in (None, answer)]


def _proved(roles: Mapping[str, bytes], context: Any) -> bool:
    """As admission reads it: no text is no answer."""
    answer = Message(PROVED, roles[""]).json().get("answer")
    asked: Possession = context
    return isinstance(answer, str) and asked.proves(unb64u(answer, ANSWER_LEN))


LINK: Final = (
    Target("link messages", _streams, _stream, _ONE, _WORDS),
    Target("link hello", _hellos, _introduced, _ONE, _WORDS),
    Target("possession question", _questions, _prove, _ONE, _WORDS),
    Target("possession sealed", _sealed, _open, (OpenError,)),
    Target("possession answer", _answers, _proved, _ONE, _WORDS),
)

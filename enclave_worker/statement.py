"""The receipt of one answer: claims, signature, the gateway's log proof, the sealed record.

The gateway sees only the outer event: ids, rounded counts and `sc`, a commitment it cannot open.
The exact statement and the blind that opens `sc` travel inside the sealed stream.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any

from evidence.commit import commit_segments
from evidence.entry import Logged
from evidence.events import infer_receipt_event, parse_event
from evidence.leaf import open_leaf
from evidence.receipt import (
    BLIND_LEN,
    ReceiptClaims,
    Side,
    sign_statement,
    statement_commitment,
)
from evidence.record import ReceiptRecord
from wire.errors import ReceiptError

from .api.request import ApiRequest
from .engine.config import EngineConfig
from .engine.events import Usage
from .engine.ops.library import library_path
from .engine.params import SamplingParams
from .epochs import Epoch, Keyring
from .worker_config import WorkerConfig

ENGINE_NAME = "anchorhold-engine"
ENGINE_VERSION = "0.1.0"
NATIVE = "native-"
BUILD_DIGITS = 16  # of a library's digest: enough to tell builds apart, the measurement has it all
# Length buckets of the statement: powers of two hide the exact size from whoever is shown a
# statement without its segments.
BUCKET_MIN = 64


@dataclass(frozen=True, slots=True)
class Answered:
    """What happened to one request, in the worker's own terms.

    Attributes:
        rid, th, kid: of the request and the key that opened it.
        op: operation of the clear header.
        started_ms, ended_ms: worker clock.
        salt_q, salt_r: commitment salts of the two directions; secret from the gateway.
        prompt, answer: (role, bytes) of each segment of the two directions.
        request_ct, response_ct: SHA-256 over the ciphertext frames of each direction.
        finish: stop or length: other ends are answers without a receipt.
        parameters: of `parameters`, or an embedding's.
        usage: exact counts.
        salt_scope: "request" or "caller": where the prefix-cache salt came from.
    """

    rid: bytes
    th: bytes
    kid: bytes
    op: str
    started_ms: int
    ended_ms: int
    salt_q: bytes
    salt_r: bytes
    prompt: Sequence[tuple[int, bytes]]
    answer: Sequence[tuple[int, bytes]]
    request_ct: bytes
    response_ct: bytes
    finish: str
    parameters: Mapping[str, str | int | bool | None]
    usage: Usage
    salt_scope: str


@dataclass(frozen=True, slots=True)
class SignedAnswer:
    """A signed statement with the blind that opens its public commitment, and that public event."""

    statement: bytes
    blind: bytes
    event: dict[str, Any]


class Notary:
    """Signs statements with the attested key and numbers them without gaps, one series per boot."""

    def __init__(
        self,
        config: WorkerConfig,
        keyring: Keyring,
        engine: EngineConfig,
        rng: Callable[[int], bytes],
    ) -> None:
        """Bind the notary to one boot and to the settings that its engine runs with."""
        self._config = config
        self._keyring = keyring
        self._engine = engine
        self._version = engine_version(engine.kernels)
        self._rng = rng
        self._numbers = count(1)

    def sign(self, answered: Answered, epoch: Epoch) -> SignedAnswer:
        """Return the statement for one finished answer; takes the next `wseq`."""
        config, digests = self._config, self._config.model_digests
        wseq = next(self._numbers)
        claims = ReceiptClaims(
            rid=answered.rid,
            th=answered.th,
            kid=answered.kid,
            wid=config.wid,
            boot=self._keyring.boot,
            wseq=wseq,
            op=answered.op,
            t0=answered.started_ms,
            t1=answered.ended_ms,
            req=_side(answered.salt_q, answered.prompt, answered.request_ct),
            resp=_side(answered.salt_r, answered.answer, answered.response_ct),
            finish=answered.finish,
            trunc=answered.finish == "length",
            model=config.model_name,
            model_digest=digests["tree"],
            weights=digests["weights"],
            tokenizer=digests.get("tokenizer"),
            template=digests.get("template"),
            dtype=self._engine.dtype,
            engine=ENGINE_NAME,
            engine_version=self._version,
            # These compute a row in one order, whatever else is in the step.
            deterministic=self._engine.kernels.startswith(NATIVE),
            par=answered.parameters,
            tokens_in=answered.usage.prompt_tokens,
            tokens_out=answered.usage.completion_tokens,
            tokens_cached=answered.usage.cached_tokens,
            bh=epoch.bh,
            att_evidence=epoch.evidence_digest,
            att_type=epoch.witness.kind,
            measurement=config.image,
            trust=config.trust,
            service_policy=config.policy,
            cache={"hit": answered.usage.cached_tokens > 0, "scope": answered.salt_scope},
        )
        ring = self._keyring
        statement = sign_statement(claims, ring.sig, epoch.bh, answered.rid, ring.sig_pk)
        blind = self._rng(BLIND_LEN)
        event = infer_receipt_event(
            rid=answered.rid,
            th=answered.th,
            kid=answered.kid,
            wid=config.wid,
            wseq=wseq,
            model=config.model_name,
            tokens_in=answered.usage.prompt_tokens,
            tokens_out=answered.usage.completion_tokens,
            status=answered.finish,
            sc=statement_commitment(statement, blind),
        )
        return SignedAnswer(statement, blind, event)


def engine_version(kernels: str) -> str:
    """What computes: version, kernels and, of a compiled library, the start of its digest.

    Raises:
        OSError: there is no such library.
    """
    version = f"{ENGINE_VERSION}+{kernels}"
    if not kernels.startswith(NATIVE):
        return version
    library = library_path(kernels.removeprefix(NATIVE)).read_bytes()
    return f"{version}.{sha256(library).hexdigest()[:BUILD_DIGITS]}"


def receipt_record(signed: SignedAnswer, logged: Mapping[str, Any]) -> bytes:
    """Check the gateway's LOGGED answer and return the payload of the RECEIPT record.

    Steps: 1 it has the agreed members. 2 the leaf opens to the event with its blind. 3 that event
    is the one this worker asked to have logged. The inclusion proof and checkpoint are checked by
    the client, which knows the log's keys; this worker does not.

    Raises:
        ReceiptError, MalformedError: the gateway logged something else, or nothing.
    """
    # 1
    answer = Logged.from_json(logged)
    # 2
    open_leaf(answer.leaf, answer.event, answer.blind)
    # 3
    if parse_event(answer.event).body != signed.event:
        raise ReceiptError("log answer: found another event than the one sent")
    return ReceiptRecord(signed.statement, signed.blind, answer).encode()


def _side(salt: bytes, segments: Sequence[tuple[int, bytes]], ciphertext: bytes) -> Side:
    root = commit_segments(salt, segments)
    size = sum(len(data) for _, data in segments)
    return Side(c=root, n=len(segments), len_b=_bucket(size), ct=ciphertext)


def _bucket(size: int) -> int:
    """Return the smallest power of two that holds `size` bytes, at least 64."""
    return max(BUCKET_MIN, 1 << (size - 1).bit_length()) if size else BUCKET_MIN


def parameters(request: ApiRequest, params: SamplingParams) -> dict[str, str | int | bool | None]:
    """What shaped an answer, as used; decimals as strings, since evj1 has no floats.

    Of what may be content (stop strings, biases, tools, a grammar) the kind or the number only.
    """
    return {
        "temperature": repr(params.temperature),
        "top_p": repr(params.top_p),
        "top_k": params.top_k,
        "min_p": repr(params.min_p),
        "presence_penalty": repr(params.presence_penalty),
        "frequency_penalty": repr(params.frequency_penalty),
        "repetition_penalty": repr(params.repetition_penalty),
        "logit_bias": len(params.logit_bias),
        "max_tokens": params.max_tokens,
        # 64-bit seeds do not fit an evj1 integer (2^53 - 1).
        "seed": None if params.seed is None else str(params.seed),
        "stop": len(params.stop),
        "n": request.n,
        "ignore_eos": params.ignore_eos,
        "speculate": params.speculate,
        "logprobs": params.logprobs,
        "grammar": None if params.grammar is None else params.grammar.kind,
        "tools": len(request.tools.tools),
        "tool_choice": request.tools.choice,
        "shape": request.kind,
    }

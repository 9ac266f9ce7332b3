"""What telemetry and logs may carry: a closed table of attributes, each with a type.

Content cannot be recorded by construction: a value is a word from a closed list, an integer, a
truth value or a digest. Anything else is dropped and counted. There is no type "text".
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from attestation.collateral_key import SOURCES
from attestation.reasons import CODES
from wire.suites import SUITES

from .errors import Fault

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Integers beyond this are no counts of ours; a larger one could smuggle bytes.
INTEGER_MAX = 2**31
#: Upper bounds of the size classes: powers of four, so a class tells little about a length.
SIZE_CLASSES = (1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864)
OTHER = "other"

#: Reasons of the gateway's own for refusing a worker; the others are those of appraisal.
OWN_REASONS = (
    "hello_signature", "kid_in_use", "nonce_unexpected", "policy_changed", "possession_unproven",
    "session_mismatch", "wid_in_use", "wid_malformed",
)  # fmt: skip
REASONS = (*CODES, *OWN_REASONS)


class Kind(Enum):
    """The types an attribute may have."""

    WORD = "word"  # one of a closed list; anything else becomes `other`
    INTEGER = "integer"
    BOOL = "bool"
    DIGEST = "digest"  # sha256:<64 hex>
    MODEL = "model"  # a model name that an admitted worker's attested binding lists


@dataclass(frozen=True, slots=True)
class AttrType:
    """Type of one attribute; `words` for WORD only."""

    kind: Kind
    words: frozenset[str] = frozenset()


class Attr(Enum):
    """Names of everything that can be recorded."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    MODEL = "gen_ai.request.model"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    ERROR = "error.type"
    OUTCOME = "anchorhold.outcome"
    RID_DIGEST = "anchorhold.rid_digest"
    SIZE_CLASS = "anchorhold.size_class"
    OUT_CLASS = "anchorhold.out_class"
    CANDIDATES = "anchorhold.candidates"
    ATTEMPTS = "anchorhold.attempts"
    REWRAPS = "anchorhold.rewraps"
    SUITE = "anchorhold.suite"
    PAD = "anchorhold.pad"
    STREAM = "anchorhold.stream"
    POLICY = "anchorhold.policy"
    BINDING = "anchorhold.binding"
    TRUST = "anchorhold.trust"
    REASON = "anchorhold.reason"
    CAUSE = "anchorhold.cause"
    FINISH = "anchorhold.finish"
    WORKERS = "anchorhold.workers"
    LOG_INDEX = "anchorhold.log_index"
    COUNT = "anchorhold.count"
    SOURCE = "anchorhold.source"


def _words(*words: str) -> AttrType:
    return AttrType(Kind.WORD, frozenset(words))


_INTEGER = AttrType(Kind.INTEGER)
_DIGEST_TYPE = AttrType(Kind.DIGEST)

#: Operations of the clear header as the GenAI conventions name them.
OPERATIONS = {
    "chat": "chat",
    "completion": "text_completion",
    "embed": "embeddings",
    "vector.query": "retrieval",
    "vector.write": "vector_write",
    "admin": "admin",
    "ping": "ping",
}

ATTRIBUTES: dict[Attr, AttrType] = {
    Attr.OPERATION: _words(*OPERATIONS.values()),
    Attr.PROVIDER: _words("anchorhold"),
    Attr.MODEL: AttrType(Kind.MODEL),
    Attr.INPUT_TOKENS: _INTEGER,
    Attr.OUTPUT_TOKENS: _INTEGER,
    Attr.ERROR: _words(*(fault.word for fault in Fault), "truncated", "cancelled"),
    Attr.OUTCOME: _words("completed", "refused", "cancelled", "truncated", "rewrap_needed"),
    Attr.RID_DIGEST: _DIGEST_TYPE,
    Attr.SIZE_CLASS: _INTEGER,
    Attr.OUT_CLASS: _INTEGER,
    Attr.CANDIDATES: _INTEGER,
    Attr.ATTEMPTS: _INTEGER,
    Attr.REWRAPS: _INTEGER,
    Attr.SUITE: _words(*SUITES),
    Attr.PAD: _words("cadence", "bucket", "off"),
    Attr.STREAM: AttrType(Kind.BOOL),
    Attr.POLICY: _DIGEST_TYPE,
    Attr.BINDING: _DIGEST_TYPE,
    Attr.TRUST: _words("hardware", "vtpm", "simulated", "software"),
    Attr.REASON: _words(*REASONS),
    Attr.CAUSE: _words("busy", "kid_unknown", "lost", "lease_expired", "protocol", "draining",
                       "overflow", "refused", "replaced", "closed", "expired", "denied", "stopped",
                       "internal", "failed_lately", "allowance_spent", "vendor_silent", "locked",
                       "disk_full", "disk_read_only", "disk_failing", "exhausted", "damaged",
                       "dropped"),
    Attr.FINISH: _words("stop", "length", "cancelled", "error"),
    Attr.WORKERS: _INTEGER,
    Attr.LOG_INDEX: _INTEGER,
    Attr.COUNT: _INTEGER,
    Attr.SOURCE: _words(*SOURCES),
}  # fmt: skip


def size_class(size: int) -> int:
    """The class of a size in bytes: the next power of four, never the size itself."""
    return next((bound for bound in SIZE_CLASSES if size <= bound), SIZE_CLASSES[-1])


def digest_text(digest: bytes) -> str:
    """A 32-byte digest as an attribute value."""
    return f"sha256:{digest.hex()}"


def admit(attribute: object, value: object, models: Iterable[str]) -> tuple[str, str | int] | None:
    """Let one attribute through, or not.

    Args:
        attribute: an `Attr`; anything else is dropped.
        value: checked against the attribute's type, strictly: True is no integer.
        models: model names known from attested bindings.

    Returns:
        (name, value) to record, or None when it must be dropped. A word or model outside its list
        is recorded as `other`: that it was unknown is worth knowing, what it was is not.
    """
    if not isinstance(attribute, Attr):
        return None
    spec = ATTRIBUTES[attribute]
    if spec.kind is Kind.BOOL:
        return (attribute.value, value) if type(value) is bool else None
    if spec.kind is Kind.INTEGER:
        fits = type(value) is int and 0 <= value <= INTEGER_MAX
        return (attribute.value, value) if fits and isinstance(value, int) else None
    if type(value) is not str:
        return None
    if spec.kind is Kind.DIGEST:
        return (attribute.value, value) if _DIGEST.fullmatch(value) else None
    known = value in spec.words if spec.kind is Kind.WORD else value in models
    return (attribute.value, value if known else OTHER)


def admit_named(name: str, value: object, models: Iterable[str]) -> tuple[str, str | int] | None:
    """The same check for an attribute given by its wire name: the exporter's second look."""
    try:
        attribute = Attr(name)
    except ValueError:
        return None
    if value == OTHER and ATTRIBUTES[attribute].kind in (Kind.WORD, Kind.MODEL):
        return (name, OTHER)
    return admit(attribute, value, models)

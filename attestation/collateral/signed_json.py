"""Intel's signed JSON: TCB info and QE identity, as their service sends them.

Steps, in order:
 1. the answer is one object of the signed statement and its signature, nothing around or between;
 2. the issuer chain is the signing certificate and a root, and the root is pinned;
 3. the chain verifies at the time;
 4. the signature covers the statement's bytes exactly as they were sent: it is never re-serialised;
 5. the statement is of the kind and version that were asked for;
 6. it is in force: issued, and its next update still to come.

Reason codes: `collateral_malformed` stands for `MalformedError`; `untrusted_root`, `chain_invalid`,
`certificate_not_valid_at_time`, `signature_invalid`, `collateral_mismatch`, `collateral_expired`,
`collateral_not_yet_valid`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from attestation.formats.pem import certificates
from attestation.verify.x509 import verify_chain
from wire.canonical import parse_strict
from wire.errors import AttestationError, MalformedError
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from attestation.anchors import Anchors

    from .entry import Piece

CHAIN_LEN: Final = 2  # the signing certificate and the root
SIGNATURE_LEN: Final = 64  # r and s, 32 bytes each
SEQUENCE_MAX: Final = 2**31 - 1

_HEAD: Final = {
    "tcbInfo": re.compile(rb'\s*\{\s*"tcbInfo"\s*:\s*'),
    "enclaveIdentity": re.compile(rb'\s*\{\s*"enclaveIdentity"\s*:\s*'),
}
# As few steps back as possible: from the end, only the signature's own digits may follow.
_TAIL = re.compile(rb'\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*')
_TAIL_MAX: Final = 256
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True)
class Statement:
    """A signed statement; what it says counts only once `verify_statement` returned.

    Attributes:
        raw: the signed bytes.
        fields: the same, parsed.
        signature: r and s.
    """

    raw: bytes
    fields: dict[str, Any]
    signature: bytes


def parse_statement(body: bytes, name: str, limit: int) -> Statement:
    """Step 1.

    Args:
        body: the answer's bytes.
        name: `tcbInfo` or `enclaveIdentity`.
        limit: largest size in bytes.

    Raises:
        MalformedError: anything else.
    """
    whole = parse_strict(body, max_depth=10, max_bytes=limit)
    head = _HEAD[name].match(body)
    start = max(0, len(body) - _TAIL_MAX)
    tail = next((m for m in _TAIL.finditer(body, start) if m.end() == len(body)), None)
    if not isinstance(whole, dict) or set(whole) != {name, "signature"} or not head or not tail:
        raise MalformedError(f"{name}: expected an object of {name} and signature, in this order")
    raw = body[head.end() : tail.start()]
    # Cut out by hand and by the parser: both must see the same.
    fields = parse_strict(raw, max_depth=10, max_bytes=limit)
    if not isinstance(fields, dict) or fields != whole[name]:
        raise MalformedError(f"{name}: expected one signed object")
    return Statement(raw, fields, bytes.fromhex(tail[1].decode("ascii")))


def verify_statement(statement: Statement, piece: Piece, anchors: Anchors, now: int) -> int:
    """Steps 2 to 4.

    Returns:
        Unix second at which the first certificate ends.

    Raises:
        AttestationError: with the step's reason.
        MalformedError: the chain is no PEM.
    """
    chain = certificates(piece.chain.encode("ascii", "replace"), "issuer chain", CHAIN_LEN)
    if len(chain) != CHAIN_LEN:
        raise MalformedError(f"issuer chain: found {len(chain)} certificates, expected {CHAIN_LEN}")
    roots = anchors.among(chain[1:])
    if not roots:
        raise _refused("untrusted_root", "its issuer chain does not end in a pinned root")
    leaf, until = verify_chain(chain[0], (), roots, now)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused("chain_invalid", "its signing key is not on P-256")
    half = SIGNATURE_LEN // 2
    r, s = (int.from_bytes(part, "big") for part in _halves(statement.signature, half))
    try:
        key.verify(utils.encode_dss_signature(r, s), statement.raw, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise _refused("signature_invalid", "its signature does not verify") from None
    return until


def check_window(fields: dict[str, Any], now: int) -> int:
    """Step 6.

    Returns:
        Unix second of the next update.

    Raises:
        AttestationError: `collateral_expired` or `collateral_not_yet_valid`.
        MalformedError: a date is none.
    """
    issued, ends = _time(fields, "issueDate"), _time(fields, "nextUpdate")
    if issued > now + CLOCK_SKEW_S:
        raise _refused("collateral_not_yet_valid", f"issued {issued - now} s ahead of the clock")
    if ends <= now:
        raise _refused("collateral_expired", f"its next update was due {now - ends} s ago")
    return ends


def evaluation_number(fields: dict[str, Any]) -> int:
    """`tcbEvaluationDataNumber`, which never falls.

    Raises:
        MalformedError: it is none.
    """
    number = fields.get("tcbEvaluationDataNumber")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= SEQUENCE_MAX:
        raise MalformedError("tcbEvaluationDataNumber: expected a small number")
    return number


def _time(fields: dict[str, Any], name: str) -> int:
    text = fields.get(name)
    if not isinstance(text, str) or _TIME.fullmatch(text) is None:
        raise MalformedError(f"{name}: expected a time such as 2025-06-19T10:56:11Z")
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        raise MalformedError(f"{name}: expected a time that exists") from None


def _halves(signature: bytes, half: int) -> tuple[bytes, bytes]:
    return signature[:half], signature[half:]


def _refused(code: str, detail: str) -> AttestationError:
    return AttestationError(f"signed JSON: {detail}", reasons=(code,))

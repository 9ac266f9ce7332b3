"""`aws-nitro-document`: the attestation document of an AWS Nitro enclave.

Examination, in numbered steps with their reason codes:
 1 format      the document is exactly the format          evidence_malformed
 2 root        the bundle begins with a pinned root        untrusted_root
 3 chain       issued down the bundle, P-384 and SHA-384,  chain_invalid,
               every certificate valid now                 certificate_not_valid_at_time
 4 signature   ES384 by the document's certificate         signature_invalid
 5 nonce       carries the expected nonce                  nonce_mismatch
 6 user data   carries the expected bytes                  report_data_mismatch,
                                                           user_data_mismatch

Steps 5 and 6 run if the relying party expects something. A worker of ours puts its binding's
report data into `user_data`; other protocols put a key there (`Expected.user_data`).

The judgement's steps 7 to 12 stand in `rules.nitro`. Not checked: revocation, since AWS publishes
none; registers that no rule names.

The role `root` may be given for completeness and is not needed: the bundle brings the root, and
only the pinned fingerprint makes it one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation import anchors
from attestation.examined import FOREVER, Examined
from attestation.formats.nitro import NitroDocument, parse_document
from attestation.ledger import Ledger
from attestation.rules import nitro as rules
from attestation.scheme import Need, Scheme
from attestation.verify.nitro import (
    check_chain,
    check_equal,
    check_measurement,
    check_root,
    check_signature,
)
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.examined import Expected, Question

KIND: Final = "aws-nitro-document"
DOCUMENT: Final = "document"
ROOT: Final = "root"


def examine(question: Question) -> Examined:
    """Is this document AWS's, of now, and made for what is expected?"""
    ledger = Ledger()
    parsed: list[NitroDocument] = []
    expires: list[int] = []

    def parse() -> str:  # 1
        raw = question.evidence.get(DOCUMENT)
        if raw is None:
            raise MalformedError(f"{KIND}: found no {DOCUMENT}, expected one")
        parsed.append(parse_document(raw))
        return f"{len(parsed[0].pcrs)} registers, {len(parsed[0].cabundle)} certificates"

    if not ledger.run("nitro 1 format", parse, "evidence_malformed"):
        ledger.skip("nitro 2-6", "the document does not parse")
        return Examined(KIND, False, checks=tuple(ledger.checks), reasons=tuple(ledger.reasons))
    document = parsed[0]

    def chain() -> str:  # 3
        expires.append(check_chain(document, question.now)[1])
        return f"valid until {expires[0]}"

    ledger.run("nitro 2 root", lambda: check_root(document, question.anchors))
    ledger.run("nitro 3 chain", chain)
    ledger.run("nitro 4 signature", lambda: check_signature(document))
    bound = _run_expected(ledger, document, question.expected)
    return Examined(
        KIND,
        ledger.accepted,
        document.claims(),
        document,
        tuple(ledger.checks),
        tuple(ledger.reasons),
        expires[0] if expires else FOREVER,
        _identities(document),
        bound,
    )


def _run_expected(ledger: Ledger, document: NitroDocument, expected: Expected) -> bool:
    """Steps 5 and 6; whether anything was demanded and all of it found."""
    outcomes: list[bool] = []

    def demand(step: str, found: bytes | None, wanted: bytes | None, code: str) -> None:
        if wanted is not None:
            outcomes.append(ledger.run(step, lambda: check_equal(found, wanted, step, code)))

    demand("nitro 5 nonce", document.nonce, expected.nonce, "nonce_mismatch")
    demand("nitro 6 user data", document.user_data, expected.user_data, "user_data_mismatch")
    demand("nitro 6 report data", document.user_data, expected.report_data, "report_data_mismatch")
    return bool(outcomes) and all(outcomes)


def _identities(document: NitroDocument) -> tuple[str, ...]:
    """The keys of the document's certificate and of its issuers, for deny lists; not the root's."""
    found = []
    for der in (document.certificate, *document.cabundle[:0:-1]):
        try:
            key = load_certificate(der).public_key()
        except AttestationError:
            continue
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        found.append(f"key:{hashlib.sha256(spki).hexdigest()}")
    return tuple(found)


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Nothing: a document brings its certificates, and AWS publishes no revocation."""
    del evidence
    return ()


SCHEME: Final = Scheme(
    kind=KIND,
    trust="hardware",
    evidence=((DOCUMENT,), ()),
    collateral=(ROOT,),
    anchors=anchors.NITRO,
    examine=examine,
    needs=needs,
    rule=rules.parse,
    judge=rules.judge,
    carries=check_measurement,
    rule_keys=rules.KEYS,
    aged=True,
)

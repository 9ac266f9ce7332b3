"""`corim`: reference values that a vendor or a release pipeline publishes. Imported, never stored.

Evidence is one file: `corim` (signed or not) or `comid` (a lone module); its bytes say which. An
`unsigned` copy may come beside a signed one. `diag` is the same in words for human readers: it is
accepted and never read. The collateral `public_key` is the relying party's own, a JWK, a JWK set
or PEM obtained out of band; without it a certificate in the manifest counts up to a pinned `root`.

Examination, in numbered steps with their reason codes:
 1 format      a manifest or a module, exactly             evidence_malformed
 2 signer      the relying party's key, or one certified   unknown_signing_key, duplicate_kid,
               up to a pinned root; for a CoRIM            key_invalid, key_set_malformed,
                                                           untrusted_root, chain_invalid,
                                                           certificate_not_valid_at_time,
                                                           profile_violation
 3 signature   by that key                                 signature_invalid
 4 copy        the unsigned copy says the same             copy_mismatch
 5 expectation nothing was asked that it cannot say        nonce_mismatch, report_data_mismatch,
                                                           user_data_mismatch

An unsigned manifest has no notion of authenticity (`authentic` is None), unless a key was given to
verify it with: then it is not authentic (signature_missing). The judgement's steps stand in
`rules.corim`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.anchors import NONE
from attestation.examined import FOREVER, Examined
from attestation.formats import pem
from attestation.formats.corim import Manifest, Signing, parse_manifest
from attestation.formats.jwks import KeySet, parse_keys
from attestation.ledger import Ledger
from attestation.rules import corim as rules
from attestation.scheme import Need, Scheme
from attestation.verify.corim import (
    Signer,
    check_content_type,
    check_copy,
    check_signature,
    find_certified_key,
    find_key,
)
from attestation.verify.x509 import began
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.examined import Expected, Question

KIND: Final = "corim"
CORIM: Final = "corim"
COMID: Final = "comid"
UNSIGNED: Final = "unsigned"
DIAG: Final = "diag"
PUBLIC_KEY: Final = "public_key"
ROOT: Final = "root"


def examine(question: Question) -> Examined:
    """Who published this manifest? Its time and profile are the judgement's."""
    ledger = Ledger()
    parsed: list[Manifest] = []

    def parse() -> str:  # 1
        parsed.append(parse_manifest(_only_manifest(question.evidence)))
        return f"{len(parsed[0].comids)} modules, {len(parsed[0].unread)} parts not read"

    if not ledger.run("corim 1 format", parse, "evidence_malformed"):
        ledger.skip("corim 2-5", "the manifest does not parse")
        return Examined(KIND, False, checks=tuple(ledger.checks), reasons=tuple(ledger.reasons))
    manifest = parsed[0]
    not_after = FOREVER
    if manifest.signing is not None:
        not_after = _run_signature(ledger, manifest.signing, question)
    elif PUBLIC_KEY in question.collateral:
        ledger.run("corim 3 signature", _unsigned)
    copy = question.evidence.get(UNSIGNED)
    if copy is not None:
        ledger.run("corim 4 copy", lambda: check_copy(manifest, copy), "evidence_malformed")
    asked = _asked(question.expected)
    if asked:
        ledger.run("corim 5 expectation", lambda: _cannot_say(asked))
    authentic: bool | None = ledger.accepted and not ledger.reasons
    if authentic and manifest.signing is None:
        authentic = None  # well-formed, and nobody vouches for it
    return Examined(
        KIND,
        authentic,
        manifest.claims(),
        manifest,
        tuple(ledger.checks),
        tuple(ledger.reasons),
        not_after,
    )


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Nothing can be fetched: whose key counts, only the relying party knows."""
    del evidence
    return ()


def _run_signature(ledger: Ledger, signing: Signing, question: Question) -> int:
    """Steps 2 and 3; until when the signer's certificates last."""
    found: list[Signer] = []
    step = "corim 2 signer"

    def signer() -> str:  # 2
        check_content_type(signing)
        found.append(_signer(signing, question))
        return found[0].detail

    if PUBLIC_KEY not in question.collateral and not signing.x5chain:
        ledger.missing(step, "unknown_signing_key", "no key was given to verify with")
        ledger.skip("corim 3 signature", "no key to verify with")
        return FOREVER
    if not ledger.run(step, signer, "key_set_malformed"):
        ledger.skip("corim 3 signature", "no key to verify with")
        return FOREVER
    ledger.run("corim 3 signature", lambda: check_signature(signing, found[0]))
    end = found[0].not_after
    return FOREVER if end is None else end


def _signer(signing: Signing, question: Question) -> Signer:
    if PUBLIC_KEY in question.collateral:
        return find_key(signing, _keys(question.collateral[PUBLIC_KEY]))
    given = question.collateral.get(ROOT)
    listed = () if given is None else pem.certificates(given, "CoRIM root")
    roots = question.anchors.among((*listed, *signing.x5chain[1:]))
    return find_certified_key(signing, roots, question.now or began(signing.x5chain))


def _keys(raw: bytes) -> KeySet:
    keys = parse_keys(raw)
    if not keys.keys:
        raise MalformedError("key set: found no key, expected at least one")
    return keys


def _only_manifest(evidence: Mapping[str, bytes]) -> bytes:
    given = [evidence[role] for role in (CORIM, COMID) if role in evidence]
    if len(given) != 1:
        raise MalformedError(f"{KIND}: found {len(given)} manifests, expected one")
    return given[0]


def _asked(expected: Expected) -> str:
    """The reason code of what is expected and no manifest can say; "" if nothing is."""
    if expected.nonce is not None:
        return "nonce_mismatch"
    if expected.report_data is not None:
        return "report_data_mismatch"
    return "user_data_mismatch" if expected.user_data is not None else ""


def _cannot_say(code: str) -> str:  # 5
    raise AttestationError("CoRIM: a manifest is made for nobody in particular", reasons=(code,))


def _unsigned() -> str:  # 3
    raise AttestationError(
        "CoRIM: found no signature, expected one by the key given", reasons=("signature_missing",)
    )


SCHEME: Final = Scheme(
    kind=KIND,
    trust="software",
    evidence=((), (CORIM, COMID, UNSIGNED, DIAG)),
    collateral=(PUBLIC_KEY, ROOT),
    anchors=NONE,
    examine=examine,
    needs=needs,
    rule=rules.parse,
    judge=rules.judge,
    carries=None,
    rule_keys=rules.KEYS,
)

"""`ear-jwt`: another verifier's attestation result (EAR), signed as a JWT.

It proves who appraised, not what was appraised: the policy names the keys it takes a verdict from.
Steps:
 1. the token parses                         evidence_malformed
 2. its claims are an attestation result     profile_violation
 3. it is signed, with a known algorithm     alg_none, alg_not_accepted
 4. by a key obtained out of band            unknown_signing_key, duplicate_kid, key_invalid,
                                             key_set_malformed
 5. whose certificates hold, if it has any   chain_invalid, certificate_not_valid_at_time,
                                             untrusted_root
 6. the signature verifies                   signature_invalid
 7. the token holds now                      token_expired, token_not_yet_valid
 8. it carries the nonce asked for           nonce_mismatch
 9. nothing was asked that it cannot say     report_data_mismatch, user_data_mismatch,
                                             product_not_accepted

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attestation.anchors import NONE
from attestation.examined import FOREVER, NO_CLAIMS, Examined
from attestation.formats.ear import AttestationResult, parse_result
from attestation.formats.jose import Token, parse_token
from attestation.formats.jwks import RSA_ALGORITHMS
from attestation.ledger import Ledger
from attestation.rules import ear as rule
from attestation.scheme import Need, Scheme
from attestation.verify import jwt, signing_key
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.examined import Expected, Question

KIND: Final = "ear-jwt"
KEY_ROLES: Final = ("public_key", "jwks")
# All of them public-key signatures: no key can be mistaken for a shared secret.
ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", *RSA_ALGORITHMS)


def examine(question: Question) -> Examined:
    """Whether the verifier said this, now; see the module docstring for the steps."""
    ledger = Ledger()
    tokens: list[Token] = []
    results: list[AttestationResult] = []

    def parse() -> str:  # step 1
        tokens.append(parse_token(question.evidence.get("token", b"")))
        return f"{len(tokens[0].compact)} characters"

    if not ledger.run("ear 1 format", parse, "evidence_malformed"):
        ledger.skip("ear 2-9", "the token does not parse")
        return Examined(KIND, False, NO_CLAIMS, None, tuple(ledger.checks), tuple(ledger.reasons))
    token = tokens[0]

    def structure() -> str:  # step 2
        results.append(parse_result(token.claims))
        return f"{len(results[0].submods)} appraisals"

    ledger.run("ear 2 profile", structure, "profile_violation")
    keys: list[signing_key.SigningKey] = []
    ends: list[int] = [FOREVER]
    verified = _signature(ledger, token, question, keys, ends)

    def times() -> str:  # step 7
        end = jwt.check_times(token, question.now, expires=False, skew=question.skew)
        ends.append(end)
        return f"until {ends[-1]}"

    ledger.run("ear 7 time", times, "evidence_malformed")
    nonce = question.expected.nonce
    if nonce is not None:
        found = token.claims.get("eat_nonce")
        ledger.run("ear 8 nonce", lambda: jwt.check_nonce(found, nonce))
    asked = _unanswerable(question.expected)
    if asked:
        ledger.run("ear 9 binding", lambda: _cannot_say(asked))
    authentic = ledger.accepted and not ledger.reasons
    tag = f"sha256:{keys[0].fingerprint}" if verified else ""
    return Examined(
        kind=KIND,
        authentic=authentic,
        claims=dict(token.claims),
        facts=rule.EarFacts(token, results[0], tag) if results else None,
        checks=tuple(ledger.checks),
        reasons=tuple(ledger.reasons),
        not_after=min(ends),
        identities=tuple(f"key:{key.fingerprint}" for key in keys),
        bound=authentic and nonce is not None,
    )


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Nothing can be fetched: whose key it is, only the relying party knows."""
    del evidence
    return ()


def _signature(
    ledger: Ledger,
    token: Token,
    question: Question,
    keys: list[signing_key.SigningKey],
    ends: list[int],
) -> bool:
    """Steps 3 to 6; whether the signature verified."""

    def find() -> str:  # step 4
        key = signing_key.load_key(
            signing_key.find_key(token, signing_key.key_set(question.collateral, KEY_ROLES))
        )
        detail = signing_key.check_independent(token, key, question.anchors)
        keys.append(key)
        return detail

    def standing() -> str:  # step 5
        ends.append(signing_key.check_standing(keys[0], question.anchors, question.now))
        return f"until {ends[-1]}"

    if not ledger.run("ear 3 algorithm", lambda: jwt.check_algorithm(token, ALGORITHMS)):
        ledger.skip("ear 4-6 key and signature", "nobody signed it as an issuer does")
        return False
    if not ledger.run("ear 4 signing key", find, "key_set_malformed"):
        ledger.skip("ear 5-6 key and signature", "no key of an issuer to verify with")
        return False
    ledger.run("ear 5 key standing", standing)
    return ledger.run("ear 6 signature", lambda: jwt.verify_signature(token, keys[0], ALGORITHMS))


def _unanswerable(expected: Expected) -> str:
    """The reason code of the first thing asked that a result has no place for, or ""."""
    asked: tuple[tuple[Any, str], ...] = (
        (expected.report_data, "report_data_mismatch"),
        (expected.user_data, "user_data_mismatch"),
        (expected.arch, "product_not_accepted"),
    )
    return next((code for value, code in asked if value is not None), "")


def _cannot_say(code: str) -> str:  # step 9
    raise AttestationError("attestation result: it carries a nonce only", reasons=(code,))


SCHEME: Final = Scheme(
    kind=KIND,
    trust="software",  # a signed statement; what stands behind it is not for us to see
    evidence=(("token",), ()),
    collateral=KEY_ROLES,
    anchors=NONE,
    examine=examine,
    needs=needs,
    rule=rule.parse,
    judge=rule.judge,
    carries=None,  # it speaks of what another verifier saw, never of a worker of ours
    rule_keys=(rule.REQUIRED_KEYS, rule.OPTIONAL_KEYS),
)

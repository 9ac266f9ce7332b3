"""`nvidia-nras-eat`: NVIDIA's remote verifier's verdict on its devices, as a detached EAT.

A second opinion beside the devices' own reports, and worth what the service is. Several bundles in
a wrapper, as NVIDIA's Python SDK hands them out, must all hold; the wrapper says nothing.
Steps:
 1. the bundle parses                        evidence_malformed
 2. every token is signed with ES384         alg_none, alg_not_accepted
 3. by a key of the service's own key set,   unknown_signing_key, duplicate_kid, key_invalid,
    obtained out of band                     key_set_malformed
 4. whose certificates hold                  chain_invalid, certificate_not_valid_at_time,
                                             untrusted_root
 5. the signatures verify                    signature_invalid
 6. every token holds now                    token_expired, token_not_yet_valid, expiry_missing
 7. the issuer is NVIDIA's service           issuer_mismatch
 8. each overall token names exactly its     submods_digest_mismatch
    own device tokens
 9. one nonce in all, and the one asked for  nonce_mismatch
10. the architecture is the one asked for    product_not_accepted
11. nothing was asked that it cannot say     report_data_mismatch, user_data_mismatch

The key set comes from the service over TLS, through the collateral layer, never from the worker.

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.anchors import NONE
from attestation.collateral_key import jwks, named
from attestation.examined import FOREVER, NO_CLAIMS, Examined
from attestation.formats.detached_eat import Answer, DetachedEat, parse_bundle
from attestation.ledger import Ledger
from attestation.rules import nras as rule
from attestation.scheme import Need, Scheme
from attestation.verify import jwt, signing_key
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attestation.examined import Question
    from attestation.formats.jose import Token

KIND: Final = "nvidia-nras-eat"
ISSUER: Final = "https://nras.attestation.nvidia.com"
ALGORITHMS: Final = ("ES384",)
KEY_ROLES: Final = ("jwks", "public_key")

# `hwmodel` begins with the chip's name; an architecture this table lacks is refused.
_SWITCH: Final = "LS"
_CHIPS: Final = {"HOPPER": "GH", "BLACKWELL": "GB", "LS10": _SWITCH}


def examine(question: Question) -> Examined:
    """Whether NVIDIA's service said this, now, about our request; see the docstring's steps."""
    ledger = Ledger()
    parsed: list[DetachedEat] = []

    def parse() -> str:  # step 1
        parsed.append(parse_bundle(question.evidence.get("eat", b"")))
        return f"{len(parsed[0].devices)} devices"

    if not ledger.run("nras 1 format", parse, "evidence_malformed"):
        ledger.skip("nras 2-11", "the bundle does not parse")
        return Examined(KIND, False, NO_CLAIMS, None, tuple(ledger.checks), tuple(ledger.reasons))
    bundle = parsed[0]
    tokens = bundle.tokens
    signed = ledger.run(  # step 2
        "nras 2 algorithm", lambda: _each(tokens, lambda t: jwt.check_algorithm(t, ALGORITHMS))
    )
    ends: list[int] = [FOREVER]
    keys: dict[str | None, signing_key.SigningKey] = {}
    if signed:
        _keys(ledger, bundle, question, keys, ends)
    else:
        ledger.skip("nras 3-5 key and signature", "the tokens are not signed as the service signs")
    ledger.run("nras 6 time", lambda: _times(tokens, question, ends), "evidence_malformed")
    ledger.run("nras 7 issuer", lambda: _each(tokens, _issued), "evidence_malformed")
    ledger.run("nras 8 submodules", lambda: _submodules(bundle))
    ledger.run("nras 9 nonce", lambda: _nonce(bundle, question.expected.nonce))
    if question.expected.arch is not None:
        arch = question.expected.arch
        ledger.run("nras 10 architecture", lambda: _architecture(bundle, arch))
    if question.expected.report_data is not None or question.expected.user_data is not None:
        ledger.run("nras 11 binding", lambda: _cannot_bind(question))
    authentic = ledger.accepted and not ledger.reasons
    return Examined(
        kind=KIND,
        authentic=authentic,
        claims=bundle.claims(),
        facts=bundle,
        checks=tuple(ledger.checks),
        reasons=tuple(ledger.reasons),
        not_after=min(ends),
        identities=_identities(bundle, keys),
        bound=authentic and question.expected.nonce is not None,
    )


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """The service's key set; an unsigned bundle needs none, for none helps."""
    try:
        bundle = parse_bundle(evidence.get("eat", b""))
    except MalformedError:
        return ()
    if any(token.unsigned for token in bundle.overalls):
        return ()
    return (Need("jwks", *named(jwks("nvidia-nras"))),)


def _keys(
    ledger: Ledger,
    bundle: DetachedEat,
    question: Question,
    keys: dict[str | None, signing_key.SigningKey],
    ends: list[int],
) -> None:
    tokens = bundle.tokens

    def find() -> str:  # step 3
        known = signing_key.key_set(question.collateral, KEY_ROLES)
        for _, token in tokens:
            if token.kid not in keys:
                keys[token.kid] = signing_key.load_key(signing_key.find_key(token, known))
            signing_key.check_independent(token, keys[token.kid], question.anchors)
        return f"{len(keys)} keys of the issuer's set"

    def standing() -> str:  # step 4
        ends.extend(
            signing_key.check_standing(key, question.anchors, question.now) for key in keys.values()
        )
        return f"until {min(ends)}"

    def verify(token: Token) -> str:
        return jwt.verify_signature(token, keys[token.kid], ALGORITHMS)

    if not ledger.run("nras 3 signing key", find, "key_set_malformed"):
        ledger.skip("nras 4-5 key and signature", "no key of the issuer to verify with")
        return
    ledger.run("nras 4 key standing", standing)
    ledger.run("nras 5 signature", lambda: _each(tokens, verify))  # step 5


def _each(tokens: tuple[tuple[str, Token], ...], check: Callable[[Token], str]) -> str:
    for name, token in tokens:
        try:
            detail = check(token)
        except AttestationError as refusal:
            message = f"{name}: {refusal.message}"
            raise AttestationError(message, reasons=refusal.reasons) from None
    return f"{len(tokens)} tokens: {detail}"


def _times(  # step 6
    tokens: tuple[tuple[str, Token], ...], question: Question, ends: list[int]
) -> str:
    now, skew = question.now, question.skew
    found = [jwt.check_times(token, now, expires=True, skew=skew) for _, token in tokens]
    ends.extend(found)
    return f"until {min(found)}"


def _issued(token: Token) -> str:  # step 7
    return jwt.check_issuer(token, ISSUER)


def _submodules(bundle: DetachedEat) -> str:  # step 8
    if not bundle.digests_match():
        raise AttestationError(
            "submods: expected the SHA-256 of exactly the device tokens given, at least one",
            reasons=("submods_digest_mismatch",),
        )
    return f"{len(bundle.devices)} digests"


def _nonce(bundle: DetachedEat, nonce: bytes | None) -> str:  # step 9
    common = bundle.overalls[0].claims.get("eat_nonce")
    for _, token in bundle.tokens:
        found = token.claims.get("eat_nonce")
        if not isinstance(found, str) or found != common:
            raise AttestationError(
                "eat_nonce: expected one nonce in all tokens", reasons=("nonce_mismatch",)
            )
    return "one nonce in all; none asked for" if nonce is None else jwt.check_nonce(common, nonce)


def _architecture(bundle: DetachedEat, arch: str) -> str:  # step 10
    chip = _CHIPS.get(arch)
    answers = [_models(answer) for answer in bundle.answers.values()]
    # The service is asked for GPUs or for switches. What is expected of the ones says nothing of
    # the others in a bundle of their own; a bundle of both is one of GPUs, and refused.
    alike = [models for models in answers if _are_switches(models) is (chip == _SWITCH)]
    if chip is None or not alike or not all(m.startswith(chip) for found in alike for m in found):
        raise AttestationError(
            f"hwmodel: expected devices of architecture {arch}", reasons=("product_not_accepted",)
        )
    return arch


def _models(answer: Answer) -> list[str]:
    models = [token.claims.get("hwmodel") for token in answer.devices.values()]
    return [model if isinstance(model, str) else "" for model in models]


def _are_switches(models: list[str]) -> bool:
    return bool(models) and all(model.startswith(_SWITCH) for model in models)


def _cannot_bind(question: Question) -> str:  # step 11
    asked = "report_data" if question.expected.report_data is not None else "user_data"
    raise AttestationError(
        f"{asked}: this kind carries a nonce only", reasons=(f"{asked}_mismatch",)
    )


def _identities(
    bundle: DetachedEat, keys: dict[str | None, signing_key.SigningKey]
) -> tuple[str, ...]:
    ueids = [token.claims.get("ueid") for token in bundle.devices.values()]
    devices = [f"ueid:{ueid}" for ueid in ueids if isinstance(ueid, str) and len(ueid) <= 128]
    return (*devices, *(f"key:{key.fingerprint}" for key in keys.values()))


SCHEME: Final = Scheme(
    kind=KIND,
    trust="hardware",
    evidence=(("eat",), ()),
    collateral=KEY_ROLES,
    anchors=NONE,
    examine=examine,
    needs=needs,
    rule=rule.parse,
    judge=rule.judge,
    carries=None,  # it speaks of devices, never of a worker
    rule_keys=(rule.REQUIRED_KEYS, rule.OPTIONAL_KEYS),
)

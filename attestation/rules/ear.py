"""What a policy demands of another verifier's attestation result, and the judgement of it.

Steps, behind those of the examination (`schemes.ear`, 1 to 9):
10. the signing key is one the policy names     key_not_accepted
11. profile                                     profile_not_accepted
12. expiry and age                              expiry_missing, evidence_stale
13. issuer and audience                         issuer_mismatch, audience_mismatch
14. appraised under an accepted policy          policy_not_accepted
15. the appraisals demanded are there           submod_missing
16. each has an accepted status                 status_not_accepted
17. and the trust claims demanded               trust_claim_missing, trust_claim_not_accepted
18. debug                                       debug_enabled

Silence is no consent: a status "none", an absent trust claim, an absent expiry or an audience that
the rule does not name is refused unless the rule says "as_supplied". A debug status is never waived
where a token states one, of itself or of anything in it.

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attestation.formats.ear import (
    TIERS,
    TRUSTEE_PROFILE,
    VECTOR,
    VERAISON_PROFILE,
    AttestationResult,
    tier,
)
from attestation.formats.jose import time_claim
from attestation.verify.jwt import check_audience, check_issuer, stated_audience
from wire.errors import refused
from wire.excerpt import listed

if TYPE_CHECKING:
    from attestation.formats.jose import Token
    from attestation.ledger import Ledger
    from attestation.members import Members

_refused: Final = partial(refused, about="attestation result")
REQUIRED_KEYS: Final = ("keys",)
OPTIONAL_KEYS: Final = (
    "profiles", "expiry", "max_age_s", "issuer", "audience", "policies", "submods", "status",
    "vector", "debug",
)  # fmt: skip
LIST_MAX: Final = 64
AGE_MAX_S: Final = 24 * 3600
AS_SUPPLIED: Final = "as_supplied"

_PROFILES = (VERAISON_PROFILE, TRUSTEE_PROFILE)
_DEBUG_OFF = (
    "disabled", "disabled-since-boot", "disabled-permanently", "disabled-fully-and-permanently",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EarFacts:
    """What the judge takes: a parsed token, its result, and the key that verified it.

    Attributes:
        token: the token.
        result: its structure.
        key: "sha256:" tag of the signing key's SubjectPublicKeyInfo; "" if none verified it.
    """

    token: Token
    result: AttestationResult
    key: str


@dataclass(frozen=True, slots=True)
class EarRule:
    """Demands on a result. None means "as_supplied": taken as information.

    Attributes:
        keys: "sha256:" tags of accepted signing keys.
        profiles: accepted profiles.
        expires: whether `exp` must be there.
        max_age_s: oldest `iat` accepted; None leaves it to `exp`.
        issuer: exact `iss`; None demands none.
        audience: one of `aud`; None accepts none, AS_SUPPLIED whichever there is.
        policies: accepted appraisal policy ids.
        submods: appraisals that must be there; empty: at least one, and all of them judged.
        status: worst accepted status.
        vector: trust claim to its worst accepted tier.
    """

    keys: tuple[str, ...] | None
    profiles: tuple[str, ...] | None = _PROFILES
    expires: bool = True
    max_age_s: int | None = None
    issuer: str | None = None
    audience: str | None = None
    policies: tuple[str, ...] | None = None
    submods: tuple[str, ...] = ()
    status: str | None = "affirming"
    vector: tuple[tuple[str, str], ...] = ()


def parse(members: Members) -> EarRule:
    """The rule in a policy's members.

    Raises:
        PolicyError: a value of another type or range, or debug asked for.
    """
    if members.flag("debug", default=False):
        raise members.fail("debug", "false: what can be debugged keeps no secret")
    return EarRule(
        keys=None if _waived(members, "keys") else members.digests("keys", LIST_MAX, 1),
        profiles=_texts(members, "profiles", _PROFILES),
        expires=not _waived(members, "expiry", "required"),
        max_age_s=members.integer("max_age_s", 1, AGE_MAX_S) if "max_age_s" in members else None,
        issuer=members.text("issuer") if "issuer" in members else None,
        audience=members.text("audience") if "audience" in members else None,
        policies=_texts(members, "policies", None),
        submods=members.texts("submods", LIST_MAX),
        status=_status(members),
        vector=_vector(members),
    )


def judge(ledger: Ledger, facts: EarFacts, rule: EarRule, now: int) -> None:
    """Judge the result; see the module docstring for the steps."""
    ledger.run("ear 10 key", lambda: _key(facts, rule))
    ledger.run("ear 11 profile", lambda: _profile(facts.result, rule))
    ledger.run("ear 12 age", lambda: _age(facts.token, rule, now), "evidence_malformed")
    ledger.run("ear 13 issuer", lambda: _issuer(facts.token, rule), "evidence_malformed")
    ledger.run("ear 14 policy", lambda: _policy(facts.result, rule))
    ledger.run("ear 15 appraisals", lambda: _submods(facts.result, rule))
    ledger.run("ear 16 status", lambda: _statuses(facts.result, rule))
    ledger.run("ear 17 trust vector", lambda: _claims(facts.result, rule))
    ledger.run("ear 18 debug", lambda: _debug(facts.token))


def _key(facts: EarFacts, rule: EarRule) -> str:
    if rule.keys is not None and facts.key not in rule.keys:
        raise _refused("key_not_accepted", f"signing key: expected {listed(rule.keys)}")
    return facts.key or "no key verified it"


def _profile(result: AttestationResult, rule: EarRule) -> str:
    if rule.profiles is not None and result.profile not in rule.profiles:
        raise _refused("profile_not_accepted", f"eat_profile: expected {listed(rule.profiles)}")
    return "accepted"


def _age(token: Token, rule: EarRule, now: int) -> str:
    if rule.expires and time_claim(token.claims, "exp") is None:
        raise _refused("expiry_missing", "exp: found none, expected one")
    made = time_claim(token.claims, "iat")
    if rule.max_age_s is not None and (made is None or made < now - rule.max_age_s):
        raise _refused("evidence_stale", f"iat: expected ≥ {now - rule.max_age_s}")
    return f"made at {made}"


def _issuer(token: Token, rule: EarRule) -> str:
    if rule.issuer is not None:
        check_issuer(token, rule.issuer)
    if rule.audience == AS_SUPPLIED:
        return stated_audience(token.claims)
    return check_audience(token.claims, rule.audience)


def _policy(result: AttestationResult, rule: EarRule) -> str:
    if rule.policies is not None:
        for submod in result.submods.values():
            if submod.policy not in rule.policies:
                raise _refused(
                    "policy_not_accepted", f"appraisal policy: expected {listed(rule.policies)}"
                )
    return f"{len(result.submods)} appraisals"


def _submods(result: AttestationResult, rule: EarRule) -> str:
    for name in rule.submods:
        if name not in result.submods:
            raise _refused("submod_missing", f"appraisals: expected {listed(rule.submods)}")
    return f"{len(result.submods)} appraisals"


def _statuses(result: AttestationResult, rule: EarRule) -> str:
    if rule.status is None:
        return "as supplied"
    for submod in result.submods.values():
        if _worse(submod.status, rule.status):
            raise _refused(
                "status_not_accepted", f"status: found {submod.status}, expected {rule.status}"
            )
    return rule.status


def _claims(result: AttestationResult, rule: EarRule) -> str:
    for submod in result.submods.values():
        for name, worst in rule.vector:
            value = submod.vector.get(name)
            if value is None:
                raise _refused("trust_claim_missing", f"{name}: found none, expected {worst}")
            if _worse(tier(value), worst):
                raise _refused(
                    "trust_claim_not_accepted", f"{name}: found {value}, expected {worst}"
                )
    return f"{len(rule.vector)} trust claims demanded"


def _debug(token: Token) -> str:
    # A submodule states its own, at whatever depth the verifier put it.
    found, rest = [], [token.claims]
    while rest:
        item: Any = rest.pop()
        if isinstance(item, Mapping):
            found += [item["dbgstat"]] if "dbgstat" in item else []
            rest += item.values()
        elif isinstance(item, list):
            rest += item
    if any(stated not in _DEBUG_OFF for stated in found):
        raise _refused("debug_enabled", "dbgstat: expected disabled")
    return "disabled" if found else "not stated"


def _worse(found: str, worst: str) -> bool:
    ranks: tuple[str, ...] = TIERS
    return ranks.index(found) > ranks.index(worst)


def _waived(members: Members, key: str, otherwise: str | None = None) -> bool:
    """Whether `key` says "as_supplied"; a text other than that and `otherwise` is an error."""
    value: Any = members.value(key)
    if value == AS_SUPPLIED:
        return True
    if isinstance(value, str) and value != otherwise:
        raise members.fail(key, f'"{AS_SUPPLIED}" or what the rule documents')
    if otherwise is not None and key in members and value != otherwise:
        raise members.fail(key, f'"{otherwise}" or "{AS_SUPPLIED}"')
    return False


def _texts(members: Members, key: str, default: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if key not in members:
        return default
    return None if _waived(members, key) else members.texts(key, LIST_MAX, 1)


def _status(members: Members) -> str | None:
    if "status" not in members:
        return TIERS[0]
    value = members.text("status")
    if value == AS_SUPPLIED:
        return None
    if value not in TIERS[:2]:  # accepting "contraindicated" by name would accept a refusal
        raise members.fail("status", f'{" or ".join(TIERS[:2])} or "{AS_SUPPLIED}"')
    return value


def _vector(members: Members) -> tuple[tuple[str, str], ...]:
    obj: Any = members.value("vector") if "vector" in members else {}
    if not isinstance(obj, dict):
        raise members.fail("vector", "an object of trust claims")
    for name, worst in obj.items():
        if name not in VECTOR or worst not in TIERS[:2]:
            raise members.fail("vector", f"trust claims of AR4SI, each {' or '.join(TIERS[:2])}")
    return tuple(sorted(obj.items()))

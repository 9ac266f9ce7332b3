"""Steps 0 to 8 of an appraisal: the policy's window and what the binding alone decides.

Step numbers and reason codes are those of `attestation.appraise`.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from wire.errors import refused
from wire.excerpt import SHOWN_MAX, listed
from wire.limits import CLOCK_SKEW_S
from wire.suites import SUITES, strongest

from .binding import BINDING_LIFE_MAX_S, ROLE_WORKER

if TYPE_CHECKING:
    from .binding import Binding
    from .ledger import Ledger
    from .policy import Policy


def policy_window(policy: Policy, now: int) -> str:
    """Step 0: the policy's own validity holds `now`."""
    if now < policy.not_before:
        raise refused(
            "policy_not_yet_valid", f"policy: found time {now}, expected ≥ {policy.not_before}"
        )
    if now >= policy.expires:
        raise refused("policy_expired", f"policy: found time {now}, expected < {policy.expires}")
    return f"{policy.id} number {policy.seq}"


def version_and_role(binding: Binding, policy: Policy) -> str:
    """Step 1: format version and role are accepted."""
    if binding.v < policy.min_version:
        raise refused(
            "version_not_accepted", f"version: found {binding.v}, expected ≥ {policy.min_version}"
        )
    if binding.role != ROLE_WORKER:
        raise refused("role_not_accepted", f'role: found "{binding.role}", expected "worker"')
    return f"worker {binding.wid}, epoch {binding.epoch}"


def audience(binding: Binding, policy: Policy) -> str:
    """Step 2: the worker serves our deployment."""
    if binding.aud != policy.aud:
        raise refused("audience_mismatch", f'aud: found "{binding.aud}", expected "{policy.aud}"')
    return binding.aud


def end_of(binding: Binding, *, grace: bool) -> int:
    """When a binding ends: as it is offered, or as long as its keys open what waited for them."""
    return binding.opens_until if grace else binding.exp


def validity(binding: Binding, now: int, end: int) -> str:
    """Step 3: the binding holds at `now`, before `end`, and not for longer than a binding may."""
    if now + CLOCK_SKEW_S < binding.nbf:
        raise refused(
            "binding_not_yet_valid", f"nbf: found {binding.nbf}, expected ≤ {now + CLOCK_SKEW_S}"
        )
    if now >= end:
        raise refused("binding_expired", f"exp: found {end}, expected > {now}")
    life = binding.exp - binding.nbf
    if life > BINDING_LIFE_MAX_S:
        raise refused(
            "binding_life_too_long", f"life: found {life} s, expected ≤ {BINDING_LIFE_MAX_S} s"
        )
    return f"{binding.nbf} to {binding.exp}"


def denied(binding: Binding, policy: Policy) -> str:
    """Step 4: neither the binding, a key in it nor its image is denied."""
    if binding.bh in policy.deny.bh:
        raise refused("denied", "binding: its hash is on the policy's deny list")
    if not policy.deny.kids.isdisjoint(binding.kids().values()):
        raise refused("denied", "binding: one of its key ids is on the policy's deny list")
    if binding.image in policy.deny.measurements:
        raise refused("denied", "binding: its image is on the policy's deny list")
    return "neither binding nor keys are denied"


def suites(binding: Binding, policy: Policy) -> str:
    """Step 5: it has a key of a suite the policy uses."""
    suite = strongest(binding.kids(), allow_x25519=not policy.require_pq)
    if suite is None:
        wanted = [s.name for s in SUITES.values() if s.post_quantum or not policy.require_pq]
        raise refused(
            "suite_not_accepted",
            f"kems: found {', '.join(sorted(binding.kids()))}, expected {' or '.join(wanted)}",
        )
    return suite


def service_policy(binding: Binding, policy: Policy) -> str:
    """Step 6: the service policy the worker loaded is one the tenant accepted."""
    if binding.policy not in policy.service_policies:
        raise refused(
            "service_policy_not_accepted",
            f"policy: found {binding.policy}, expected {listed(policy.service_policies)}",
        )
    return binding.policy


def models(binding: Binding, policy: Policy) -> str:
    """Step 7: an accepted model is served, and none under its name with other weights."""
    served = {model.name: model.digest for model in binding.models}
    wanted: dict[str, set[str | None]] = {}
    for rule in policy.models:
        wanted.setdefault(rule.name, set()).add(rule.digest)
    shared = served.keys() & wanted.keys()
    if not shared:
        raise refused(
            "model_missing",
            f"models: found {listed(served, limit=SHOWN_MAX)}, "
            f"expected {listed(wanted, limit=SHOWN_MAX)}",
        )
    for name in sorted(shared):
        if None not in wanted[name] and served[name] not in wanted[name]:
            raise refused(
                "model_digest_mismatch",
                f'model "{name}": found {served[name]}, '
                f"expected {listed(digest for digest in wanted[name] if digest is not None)}",
            )
    return ", ".join(sorted(shared))


def freshness(
    ledger: Ledger,
    binding: Binding,
    policy: Policy,
    now: int,
    nonce: bytes | None,
    beacon_time: int | None,
) -> None:
    """Step 8: it answers our nonce, or its beacon is recent enough."""
    step, beacon = "8 freshness", binding.beacon
    if nonce is None and beacon is not None and beacon_time is None:
        ledger.missing(step, "beacon_unverified", "the time of the binding's beacon is not known")
        return

    def check() -> str:
        if nonce is not None:
            if binding.nonce is None or not hmac.compare_digest(binding.nonce, nonce):
                raise refused("nonce_mismatch", "nonce: the binding does not hold our challenge")
            return "answers our nonce"
        if beacon is None or beacon_time is None:
            if policy.require_beacon:
                raise refused("beacon_missing", "beacon: found none, expected a log checkpoint")
            return "no beacon demanded; the binding's own validity bounds its age"
        age = binding.nbf - beacon_time
        if age > policy.beacon_max_age_s or beacon_time > now + CLOCK_SKEW_S:
            raise refused(
                "beacon_stale",
                f"beacon: found {age} s before nbf, expected ≤ {policy.beacon_max_age_s} s",
            )
        return f"beacon at size {beacon.size}, {age} s before nbf"

    ledger.run(step, check)

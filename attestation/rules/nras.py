"""What a policy demands of NVIDIA's own verdict on its devices, and the judgement of it.

Steps, behind those of the examination (`schemes.nras`, 1 to 11):
12. claims version            version_not_accepted
13. overall result, of all    overall_result_failed
14. devices: number, each     device_count_mismatch, device_repeated
    one once
15. debug                     debug_enabled
16. secure boot               secure_boot_off
17. measurements              measurement_mismatch
18. the service's own checks  device_check_failed, device_check_missing, certificate_status,
                              attestation_warning
19. product and versions      product_not_accepted, driver_not_accepted, vbios_not_accepted
20. age                       evidence_stale
21. audience                  audience_mismatch

A check the service did not state is a check that was not made: it is refused like a failed one.
`results: "as_supplied"` takes steps 12, 13, 16, 17 and 18 as information; debug is never waived.
The service names no audience: a token for somebody is refused unless the rule names it, or says
`audience: "as_supplied"`.

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attestation.formats.jose import time_claim
from attestation.verify.jwt import check_audience, stated_audience
from wire.errors import refused
from wire.excerpt import cut, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from attestation.formats.detached_eat import DetachedEat
    from attestation.formats.jose import Token
    from attestation.ledger import Ledger
    from attestation.members import Members

_refused: Final = partial(refused, about="NVIDIA devices")
REQUIRED_KEYS: Final = ()
OPTIONAL_KEYS: Final = (
    "debug", "results", "models", "drivers", "vbioses", "count", "max_age_s", "audience",
)  # fmt: skip
LIST_MAX: Final = 64
AGE_MAX_S: Final = 24 * 3600
AS_SUPPLIED: Final = "as_supplied"

_VERSIONS = ("2.0", "3.0")
_PREFIXES = {"gpu": "x-nvidia-gpu-", "nvswitch": "x-nvidia-switch-"}
_REPORT_CHECKS = (
    "arch-check",
    "attestation-report-parsed",
    "attestation-report-nonce-match",
    "attestation-report-signature-verified",
)
_RIMS = {"gpu": ("driver-rim", "vbios-rim"), "nvswitch": ("bios-rim",)}
_RIM_CHECKS = ("fetched", "signature-verified", "measurements-available")
_CHAINS = {
    "gpu": ("attestation-report", "driver-rim", "vbios-rim"),
    "nvswitch": ("attestation-report", "bios-rim"),
}


@dataclass(frozen=True, slots=True)
class NrasRule:
    """Demands on a detached EAT.

    Attributes:
        results: "required": every result and check must be good; "as_supplied": information.
        models: accepted prefixes of `hwmodel`, such as "GH100"; empty accepts any.
        drivers, vbioses: accepted versions; empty accepts any.
        count: exact number of devices; None accepts any but none.
        max_age_s: oldest `iat` accepted; None leaves it to `exp`.
        audience: one of `aud` in every token; None accepts none, "as_supplied" whichever there is.
    """

    results: str = "required"
    models: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    vbioses: tuple[str, ...] = ()
    count: int | None = None
    max_age_s: int | None = None
    audience: str | None = None


def parse(members: Members) -> NrasRule:
    """The rule in a policy's members.

    Raises:
        PolicyError: a value of another type or range, or debug devices asked for.
    """
    if members.flag("debug", default=False):
        raise members.fail("debug", "false: a debug device keeps no secret")
    results = members.text("results") if "results" in members else "required"
    if results not in ("required", AS_SUPPLIED):
        raise members.fail("results", '"required" or "as_supplied"')
    return NrasRule(
        results=results,
        models=members.texts("models", LIST_MAX),
        drivers=members.texts("drivers", LIST_MAX),
        vbioses=members.texts("vbioses", LIST_MAX),
        count=members.integer("count", 1, LIST_MAX) if "count" in members else None,
        max_age_s=members.integer("max_age_s", 1, AGE_MAX_S) if "max_age_s" in members else None,
        audience=members.text("audience") if "audience" in members else None,
    )


def judge(ledger: Ledger, facts: DetachedEat, rule: NrasRule, now: int) -> None:
    """Judge the devices' state; see the module docstring for the steps."""
    overalls, devices = [token.claims for token in facts.overalls], facts.devices
    if rule.results == "required":
        ledger.run("nras 12 claims version", lambda: _every(overalls, _version))
        ledger.run("nras 13 overall result", lambda: _every(overalls, _overall))
    ledger.run("nras 14 devices", lambda: _devices(devices, rule))
    ledger.run("nras 15 debug", lambda: _each(devices, _debug))
    if rule.results == "required":
        ledger.run("nras 16 secure boot", lambda: _each(devices, _secure_boot))
        ledger.run("nras 17 measurements", lambda: _each(devices, _measurements))
        ledger.run("nras 18 checks", lambda: _each(devices, _checks))
    ledger.run("nras 19 product", lambda: _each(devices, lambda claims: _product(claims, rule)))
    if rule.max_age_s is not None:
        aged = partial(_age, oldest=now - rule.max_age_s)
        ledger.run("nras 20 age", lambda: _every(overalls, aged), "evidence_malformed")
    ledger.run("nras 21 audience", lambda: _audience(facts, rule.audience))


def _every(overalls: Sequence[Mapping[str, Any]], check: Callable[[Mapping[str, Any]], str]) -> str:
    """Each bundle's overall token, and what was found in them."""
    return ", ".join(dict.fromkeys(map(check, overalls)))


def _version(overall: Mapping[str, Any]) -> str:
    version = overall.get("x-nvidia-ver")
    if version not in _VERSIONS:
        raise _refused("version_not_accepted", f"claims version: expected {' or '.join(_VERSIONS)}")
    return str(version)


def _overall(overall: Mapping[str, Any]) -> str:
    if overall.get("x-nvidia-overall-att-result") is not True:
        raise _refused("overall_result_failed", "overall result: expected true")
    return "true"


def _devices(devices: Mapping[str, Token], rule: NrasRule) -> str:
    if not devices or (rule.count is not None and len(devices) != rule.count):
        wanted = "≥ 1" if rule.count is None else str(rule.count)
        raise _refused("device_count_mismatch", f"found {len(devices)} devices, expected {wanted}")
    ueids = [token.claims.get("ueid") for token in devices.values()]
    if any(not isinstance(ueid, str) or not ueid for ueid in ueids):
        raise _refused("device_check_missing", "a device has no ueid")
    if len(set(ueids)) != len(ueids):
        raise _refused("device_repeated", "found one device twice under two names")
    return f"{len(devices)} devices"


def _each(devices: Mapping[str, Token], check: Callable[[Mapping[str, Any]], None]) -> str:
    if not devices:
        raise _refused("device_count_mismatch", "found no device to check")
    for token in devices.values():
        check(token.claims)
    return f"{len(devices)} devices"


def _debug(claims: Mapping[str, Any]) -> None:
    if claims.get("dbgstat") != "disabled":
        raise _refused("debug_enabled", 'dbgstat: expected "disabled"')


def _secure_boot(claims: Mapping[str, Any]) -> None:
    if claims.get("secboot") is not True:
        raise _refused("secure_boot_off", "secboot: expected true")


def _measurements(claims: Mapping[str, Any]) -> None:
    if claims.get("measres") != "success":
        raise _refused("measurement_mismatch", 'measres: expected "success"')


def _kind(claims: Mapping[str, Any]) -> str:
    """The device's kind: what it says itself, or, before claims said so, whose checks it has."""
    stated = claims.get("x-nvidia-device-type")
    if stated is None:
        found = [kind for kind, prefix in _PREFIXES.items() if f"{prefix}arch-check" in claims]
        if len(found) == 1:
            return found[0]
    elif stated in _PREFIXES:
        return str(stated)
    raise _refused("product_not_accepted", "found a device of an unknown kind")


def _checks(claims: Mapping[str, Any]) -> None:
    kind = _kind(claims)
    prefix = _PREFIXES[kind]
    wanted = [f"{prefix}{name}" for name in _REPORT_CHECKS]
    wanted += [f"{prefix}{rim}-{name}" for rim in _RIMS[kind] for name in _RIM_CHECKS]
    for name in wanted:
        if name not in claims:
            raise _refused("device_check_missing", f"{name}: found nothing, expected true")
    for name, value in claims.items():
        # Whatever a newer service checks: a false answer is a failure under any name.
        failed = value is False or (name in wanted and value is not True)
        if failed and name.startswith("x-nvidia-"):
            raise _refused("device_check_failed", f"{cut(name, 80)}: expected true")
    for part in _CHAINS[kind]:
        _chain(claims, f"{prefix}{part}")
    if claims.get("x-nvidia-attestation-warning") is not None:
        raise _refused("attestation_warning", "found a warning, expected none")
    if claims.get("x-nvidia-mismatch-measurement-records"):
        raise _refused("measurement_mismatch", "found mismatched measurements, expected none")


def _chain(claims: Mapping[str, Any], name: str) -> None:
    """One certificate chain as the service judged it: version 3 says more than version 2."""
    detail = claims.get(f"{name}-cert-chain")
    if detail is None:
        plain = (f"{name}-cert-chain-validated", f"{name}-cert-validated")
        if any(claims.get(key) is True for key in plain):
            return
        raise _refused("device_check_missing", f"{name}: found no word on its certificates")
    good = isinstance(detail, dict) and (
        detail.get("x-nvidia-cert-status") == "valid"
        and detail.get("x-nvidia-cert-ocsp-status") == "good"
        and detail.get("x-nvidia-cert-revocation-reason") is None
        and all(value is not False for value in detail.values())
    )
    if not good:
        raise _refused("certificate_status", f'{name}: expected "valid" and "good", not revoked')


def _product(claims: Mapping[str, Any], rule: NrasRule) -> None:
    model = claims.get("hwmodel")
    if rule.models and not (
        isinstance(model, str) and any(model.split(" ")[0] == name for name in rule.models)
    ):
        raise _refused("product_not_accepted", f"hwmodel: expected {listed(rule.models)}")
    driver = claims.get("x-nvidia-gpu-driver-version")
    if rule.drivers and driver not in rule.drivers:
        raise _refused("driver_not_accepted", f"driver: expected {listed(rule.drivers)}")
    vbios = claims.get("x-nvidia-gpu-vbios-version", claims.get("x-nvidia-switch-bios-version"))
    if rule.vbioses and vbios not in rule.vbioses:
        raise _refused("vbios_not_accepted", f"VBIOS: expected {listed(rule.vbioses)}")


def _age(overall: Mapping[str, Any], oldest: int) -> str:
    made = time_claim(overall, "iat")
    if made is None or made < oldest:
        raise _refused("evidence_stale", f"iat: expected ≥ {oldest}")
    return f"made at {made}"


def _audience(facts: DetachedEat, audience: str | None) -> str:
    for _, token in facts.tokens:
        if audience == AS_SUPPLIED:
            stated_audience(token.claims)
        else:
            check_audience(token.claims, audience)
    return "for no particular audience" if audience is None else audience

"""What a policy demands of NVIDIA devices, and the steps that judge them.

    {"architectures": ["HOPPER"], "models": ["GH100"] | "any",
     "driver_in": ["550.90.07"] | "any", "vbios_in": ["96.00.9F.00.01"] | "any",
     "modes": ["spt"] | "any", "rim": "required" | "not_checked",
     "ocsp": "required" | "not_checked", "count": 8 | "any",
     "ocsp_hold": "refuse" | "accept", "rim_ocsp": "required" | "not_checked",
     "unknown_fields": "refuse" | "accept"}

A switch has no `driver_in` and `modes`; only the list has `count`. The list may be one of switches,
of which `driver_in` and `modes` say nothing; a worker's GPUs may not (`NvidiaRule.unsaid`).
`ocsp_hold` and `unknown_fields` default to "refuse"; `rim_ocsp` (whether the manifests' signers
must have OCSP responses too) must be stated exactly where `rim` is "required". Steps and reason
codes:

10. each device is of an accepted architecture    product_not_accepted
11. and model                                     product_not_accepted
12. with an accepted driver (GPUs)                driver_not_accepted
13. and firmware                                  vbios_not_accepted
14. none is in a debug state                      debug_enabled
15. GPUs run in an accepted mode, stated alike    mode_not_accepted
16. the reports hold no field unknown to us       profile_violation
17. no certificate is revoked or on hold          revocation_not_checked, certificate_on_hold
18. the measurements are those NVIDIA published   the codes of `verify.rim`, rim_not_available
19. as many devices as demanded, none of them     gpu_count, gpu_repeated
    twice (list)

What evidence cannot tell: a GPU in developer mode reports like any other but for its
measurements, so only "rim": "required" excludes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from attestation.examined import FOREVER
from attestation.formats.nvidia_chain import DEBUG_FLAGS
from attestation.formats.spdm import FEATURE_FLAG, KNOWN_FIELDS, PROTECTED_PCIE
from attestation.verify.device import DEVICES_MAX
from attestation.verify.fleet import check_distinct
from attestation.verify.spdm import ARCHITECTURES, GPUS, SWITCHES
from wire.errors import refused
from wire.excerpt import listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.ledger import Ledger
    from attestation.members import Members
    from attestation.verify.fleet import Fleet
    from attestation.verify.spdm import Device

    _Check = Callable[[Device, "NvidiaRule"], str]

_refused: Final = partial(refused, about="NVIDIA")
LIST_MAX: Final = 256
ANY: Final = "any"
REQUIRED: Final = "required"
NOT_CHECKED: Final = "not_checked"
REFUSE: Final = "refuse"
ACCEPT: Final = "accept"
MODES: Final = ("mpt", "spt", "ppcie", "unstated")
OPTIONAL_KEYS: Final = ("ocsp_hold", "rim_ocsp", "unknown_fields")
SWITCH_KEYS: Final = ("architectures", "models", "vbios_in", "rim", "ocsp")
GPU_KEYS: Final = (*SWITCH_KEYS, "driver_in", "modes")
GPU_LIST_KEYS: Final = (*GPU_KEYS, "count")

_PPCIE_ON: Final = 0xAA


@dataclass(frozen=True, slots=True)
class NvidiaRule:
    """The demands; None stands for the policy's explicit "any".

    Attributes:
        architectures: accepted ones.
        models: accepted chips, or lines of chips as certificates name them ("GB20X").
        drivers, vbios: accepted versions.
        modes: accepted modes; "ppcie" leaves links between GPUs in clear text.
        rim, ocsp, rim_ocsp: whether manifests, revocation, and the manifests' revocation must have
            been checked.
        accept_hold: whether a certificate on hold is accepted.
        accept_unknown: whether report fields that this version does not know are accepted.
        count: how many devices, where the kind is a list.
    """

    architectures: frozenset[str]
    models: frozenset[str] | None
    drivers: frozenset[str] | None
    vbios: frozenset[str] | None
    modes: frozenset[str] | None
    rim: bool
    ocsp: bool
    rim_ocsp: bool
    accept_hold: bool
    accept_unknown: bool
    count: int | None

    @property
    def unsaid(self) -> str:
        """What a rule for workers must say and this leaves open, as a sentence; "" if nothing.

        A switch computes nothing: where GPUs are demanded it must not stand in for one.
        """
        if self.architectures <= set(GPUS):
            return ""
        return f"architectures: found one that is no GPU's, expected only {listed(GPUS)}"


def parse_gpu(members: Members) -> NvidiaRule:
    """The rule for one GPU.

    Raises:
        PolicyError: a value that is unknown, missing or of another type.
    """
    return _parse(members, GPUS, gpu=True)


def parse_switch(members: Members) -> NvidiaRule:
    """The rule for one switch; raises as `parse_gpu`."""
    return _parse(members, SWITCHES, gpu=False)


def parse_list(members: Members) -> NvidiaRule:
    """The rule for the devices of a node; raises as `parse_gpu`."""
    return _parse(members, ARCHITECTURES, gpu=True)


def judge(ledger: Ledger, fleet: Fleet, rule: NvidiaRule, now: int) -> int:
    """Steps 10 to 19, all of them.

    Returns:
        Unix second at which what step 18 rests on ends, which examination does not read.
    """
    ends = [FOREVER]

    def manifests() -> str:
        detail, end = _manifests(fleet, rule, now)
        ends.append(end)
        return detail

    for step, check in (
        ("nvidia 10 architecture", _architecture),
        ("nvidia 11 model", _model),
        ("nvidia 12 driver", _driver),
        ("nvidia 13 firmware", _vbios),
        ("nvidia 14 debug", _debug),
        ("nvidia 15 mode", _mode),
        ("nvidia 16 fields", _fields),
    ):

        def over_all(check: _Check = check) -> str:
            return ", ".join(sorted({check(device, rule) for device in fleet.devices}))

        ledger.run(step, over_all)
    ledger.run("nvidia 17 revocation", lambda: _revocation(fleet, rule))
    ledger.run("nvidia 18 reference measurements", manifests)
    ledger.run("nvidia 19 count", lambda: _count(fleet, rule))
    return min(ends)


def mode_of(device: Device) -> str:
    """The mode a GPU's report states: how links and tenants are separated."""
    opaque = device.report.opaque
    # Older firmware has only this byte.
    ppcie = int.from_bytes(opaque.get(PROTECTED_PCIE, b""), "little") == _PPCIE_ON
    if FEATURE_FLAG in opaque:
        flag = int.from_bytes(opaque[FEATURE_FLAG], "little")
        found = MODES[flag] if flag < MODES.index("unstated") else "unknown"
        return "unknown" if ppcie and found != "ppcie" else found  # two words for it disagree
    return "ppcie" if ppcie else "unstated"


def _parse(members: Members, architectures: tuple[str, ...], *, gpu: bool) -> NvidiaRule:
    named = members.texts("architectures", len(architectures), 1)
    for name in named:
        if name not in architectures:
            raise members.fail_item("architectures", name, f"only {listed(architectures)}")
    rim = _word(members, "rim", REQUIRED, NOT_CHECKED)
    if rim is not ("rim_ocsp" in members):
        raise members.fail("rim_ocsp", 'a value exactly where "rim" is "required"')
    modes = _any_of(members, "modes") if gpu else None
    for mode in modes or ():
        if mode not in MODES:
            raise members.fail_item("modes", mode, f"only {listed(MODES)}")
    count = members.value("count") if "count" in members else ANY
    return NvidiaRule(
        architectures=frozenset(named),
        models=_any_of(members, "models"),
        drivers=_any_of(members, "driver_in") if gpu else None,
        vbios=_any_of(members, "vbios_in"),
        modes=modes,
        rim=rim,
        ocsp=_word(members, "ocsp", REQUIRED, NOT_CHECKED),
        rim_ocsp=rim and _word(members, "rim_ocsp", REQUIRED, NOT_CHECKED),
        accept_hold=_option(members, "ocsp_hold"),
        accept_unknown=_option(members, "unknown_fields"),
        count=None if count == ANY else members.integer("count", 1, DEVICES_MAX),
    )


def _any_of(members: Members, key: str) -> frozenset[str] | None:
    return None if members.value(key) == ANY else frozenset(members.texts(key, LIST_MAX, 1))


def _word(members: Members, key: str, yes: str, no: str) -> bool:
    value = members.value(key)
    if value not in (yes, no):
        raise members.fail(key, f'"{yes}" or "{no}"')
    return bool(value == yes)


def _option(members: Members, key: str) -> bool:
    return key in members and _word(members, key, ACCEPT, REFUSE)


def _architecture(device: Device, rule: NvidiaRule) -> str:  # step 10
    found = device.family.architecture if device.family else "an unknown product"
    return _among(found, rule.architectures, "product_not_accepted", "architecture")


def _model(device: Device, rule: NvidiaRule) -> str:  # step 11
    family, product = device.family, device.product
    if family is None:
        return _among("an unknown product", rule.models, "product_not_accepted", "model")
    # A certificate of a line leaves it to the report, which is signed too, which chip it is.
    if family.is_line and rule.models is not None and family.chip not in rule.models:
        return _among(product or family.chip, rule.models, "product_not_accepted", "model")
    found = _among(family.chip, rule.models, "product_not_accepted", "model")
    if family.is_line or product in ("", family.chip):
        return found
    return _among(product, rule.models, "product_not_accepted", "model")


def _driver(device: Device, rule: NvidiaRule) -> str:  # step 12
    if device.family is not None and device.family.architecture in SWITCHES:
        return "a switch has no driver"
    return _among(device.report.driver_version, rule.drivers, "driver_not_accepted", "driver")


def _vbios(device: Device, rule: NvidiaRule) -> str:  # step 13
    return _among(device.report.vbios_version, rule.vbios, "vbios_not_accepted", "firmware")


def _debug(device: Device, _: NvidiaRule) -> str:  # step 14
    if device.chain.flags & DEBUG_FLAGS:
        raise _refused("debug_enabled", "the device's certificate says not secure or debug")
    return "no flag of a debug state"


def _mode(device: Device, rule: NvidiaRule) -> str:  # step 15
    if device.family is not None and device.family.architecture in SWITCHES:
        return "a switch states none"
    found = mode_of(device)
    if found not in MODES:  # not even under "any": what it means is not known
        raise _refused("mode_not_accepted", "mode: found an unknown one")
    return _among(found, rule.modes, "mode_not_accepted", "mode")


def _fields(device: Device, rule: NvidiaRule) -> str:  # step 16
    unknown = [str(kind) for kind in device.report.opaque if kind not in KNOWN_FIELDS]
    if unknown and not rule.accept_unknown:
        raise _refused("profile_violation", f"found unknown report fields {listed(unknown)}")
    return f"unknown fields accepted by the policy: {listed(unknown)}" if unknown else "all known"


def _revocation(fleet: Fleet, rule: NvidiaRule) -> str:  # step 17
    status = fleet.revocation
    if status is not None and status.held and not rule.accept_hold:
        raise _refused("certificate_on_hold", f"found {status.held} certificates on hold")
    if status is not None and status.complete:
        held = f", {status.held} on hold as the policy accepts" if status.held else ""
        return f"{status.covered} of {status.expected} certificates have a response{held}"
    if rule.ocsp:
        found = "none that verify" if status is None else f"{status.covered} of {status.expected}"
        raise _refused("revocation_not_checked", f"OCSP: found {found}, expected all")
    return "not checked: the policy says so"


def _manifests(fleet: Fleet, rule: NvidiaRule, now: int) -> tuple[str, int]:  # step 18
    if not rule.rim:
        return "not checked: the policy says so", FOREVER
    try:
        # Signatures in XML need a library that verifiers of all other kinds do without.
        from attestation.verify.rim import check_fleet
    except ImportError:
        raise _refused("rim_not_available", "reference manifests need the extra 'rim'") from None
    return check_fleet(fleet, now, revocation=rule.rim_ocsp, accept_hold=rule.accept_hold)


def _count(fleet: Fleet, rule: NvidiaRule) -> str:  # step 19
    found = len(fleet.devices)
    # Over no device at all every demand would hold.
    if found == 0 or (rule.count is not None and found != rule.count):
        expected = "one or more" if rule.count is None else rule.count
        raise _refused("gpu_count", f"found {found} devices, expected {expected}")
    return f"{found} devices" if rule.count is None else check_distinct(fleet)


def _among(found: str, accepted: frozenset[str] | None, code: str, what: str) -> str:
    if accepted is None:
        return f"{found}: any accepted by the policy"
    if found not in accepted:
        raise _refused(code, f"{what}: found {found}, expected {listed(sorted(accepted))}")
    return found

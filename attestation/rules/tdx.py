"""What a policy demands of an Intel TDX trust domain.

    tcb, platform: as `rules.intel`
    td: {debug: false, sept_ve_disable: true, migratable: false, pks: false, kl: false,
         perfmon: false, attributes_eq: hex 8, xfam_allow_mask: hex 8,
         mr_seam: [hex 48], and what `td_extension` names: service_td …}
    image: {any_of: [{mr_td, rt_mr0, rt_mr1, rt_mr2: hex 48, and optionally rt_mr3,
                      mr_config_id, mr_owner, mr_owner_config: hex 48}]}

`image` must be stated; "any" is for the conformance index only. RTMR1 must be a measurement: it is
where firmware measures the code that it starts, and firmware that measures none leaves it zero, or
with separators alone. RTMR 0 and 2 do not say so: 0 is the firmware's configuration, 2 is extended
by what was started, which can give it any value that public events give. Under a paravisor all may
be zero, because it measures into its virtual TPM instead, where the rule then looks.

What is written for `td` is the default; `true` for migratable, pks, kl or perfmon allows it,
`false` for sept_ve_disable does not demand it, and `debug` has one value. `attributes_eq` demands
all 64 bits instead and cannot allow a debugger. Bytes are in the order they stand in the report.

Steps after `rules.intel`'s t1 to t4 (4, 7 and 8 are those of `td_extension`):
 1. no debugger: no bit of the TD attributes' first byte is set;
 2. attributes: as demanded; a bit this version does not know is refused;
 3. XFAM: only extended features of the mask;
 4. service TD: none is or was bound, but those named;
 5. module: MRSEAM is one of those named;
 6. image: one whole set of the list equals the report's; MRTD is not all zero;
 7. extension: nothing in it but what is named;
 8. origin: the TD began on this platform, or on one named and not denied.

Reason codes: those of `rules.intel`, `debug_enabled` (1), `sept_ve_disable_off`, `td_migratable`,
`pks_enabled`, `kl_enabled`, `perfmon_enabled`, `td_attributes_not_accepted` (2),
`xfam_not_accepted` (3), `service_td_present` (4), `mr_seam_not_accepted` (5), `measurement_zero`,
`image_not_accepted` (6), `td_extension_not_accepted` (7), `td_origin_not_accepted`,
`platform_denied` (8).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.formats import dcap_bodies as bits
from attestation.members import Members
from wire.errors import PolicyError, refused

from . import intel, td_extension
from .demands import IMAGE_NEEDED
from .intel import hex_set, hex_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.formats.dcap_bodies import TdReport
    from attestation.ledger import Ledger

KEYS: Final = (("image",), ("tcb", "td", "platform"))
IMAGES_MAX: Final = 256

# Extended features with a meaning: x87 SSE AVX AVX-512(3) PT PKRU CET(2) UINTR LBR AMX(2) APX.
XFAM_KNOWN: Final = sum(1 << bit for bit in (0, 1, 2, 5, 6, 7, 8, 9, 11, 12, 14, 15, 17, 18, 19))

_IMAGE: Final = ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2")
SEPARATORS_MAX: Final = 8  # firmware closes each TPM register that it maps here with one of its own
_IMAGE_OPTIONAL: Final = ("rt_mr3", "mr_config_id", "mr_owner", "mr_owner_config")
CLEAR: Final = (  # bit, the rule's key that allows it, reason code
    (bits.MIGRATABLE, "migratable", "td_migratable"),
    (bits.PKS, "pks", "pks_enabled"),
    (bits.KL, "kl", "kl_enabled"),
    (bits.PERFMON, "perfmon", "perfmon_enabled"),
)
# Other bits are refused but where a rule states all of them.
ATTRIBUTES_KNOWN: Final = (
    bits.TUD_MASK
    | bits.ICSSD
    | bits.LASS
    | bits.SEPT_VE_DISABLE
    | bits.MIGRATABLE
    | bits.PKS
    | bits.KL
    | bits.PERFMON
)


@dataclass(frozen=True, slots=True)
class TdxRule:
    """Demands on a trust domain.

    Attributes:
        tcb, platform: on what it runs on.
        sept_ve_disable: whether it must be set.
        allowed: keys of the attribute bits that may be set.
        attributes: all 64 bits, or None for the demands above.
        xfam_mask: the extended features that may be on.
        service_tds: accepted service TD hashes; empty for none.
        extension: on what only some reports have.
        mr_seam: accepted modules, or None for any that Intel's statements know.
        images: accepted sets, register name to value; None for any, stated as such.
    """

    tcb: intel.TcbRule
    platform: intel.PlatformRule
    sept_ve_disable: bool
    allowed: frozenset[str]
    attributes: int | None
    xfam_mask: int
    service_tds: frozenset[bytes]
    extension: td_extension.ExtensionRule
    mr_seam: frozenset[bytes] | None
    images: tuple[Mapping[str, bytes], ...] | None

    @property
    def unsaid(self) -> str:
        """Which images, and how new Intel's statements must be."""
        if self.images is None:
            return f'image: found "any", expected {{"any_of": [{{"mr_td": …}}]}} {IMAGE_NEEDED}'
        return self.tcb.unsaid


def parse(members: Members, *, paravisor: bool = False) -> TdxRule:
    """The demands in an `accept` item.

    Args:
        members: of the item.
        paravisor: whether a virtual TPM holds what else stands in RTMR 0 to 2.

    Raises:
        PolicyError: anything unknown, missing or of another type.
    """
    td = Members(
        members.value("td") if "td" in members else {},
        "policy.accept.td",
        optional=(
            "debug", "sept_ve_disable", *(key for _, key, _ in CLEAR), "attributes_eq",
            "xfam_allow_mask", "mr_seam", *td_extension.KEYS,
        ),
        error=PolicyError,
    )  # fmt: skip
    if td.flag("debug", default=False):
        raise td.fail("debug", "false: a debugger reads all that the TD holds")
    return TdxRule(
        tcb=intel.parse_tcb(members),
        platform=intel.parse_platform(members),
        sept_ve_disable=td.flag("sept_ve_disable", default=True),
        allowed=frozenset(key for _, key, _ in CLEAR if td.flag(key, default=False)),
        attributes=_attributes(td),
        xfam_mask=_number(td, "xfam_allow_mask") if "xfam_allow_mask" in td else XFAM_KNOWN,
        service_tds=td_extension.parse_service_td(td),
        extension=td_extension.parse(td),
        mr_seam=hex_set(td, "mr_seam", 48) if "mr_seam" in td else None,
        images=_images(members, paravisor),
    )


def judge(ledger: Ledger, facts: Any, rule: TdxRule, now: int) -> int | None:
    """Steps t1 to t4 and 1 to 8; returns the end of a grace that they rest on."""
    td: TdReport = facts.quote.body
    end = intel.judge_tcb(ledger, "tdx", facts.tcb, rule.tcb, now)
    intel.judge_platform(ledger, "tdx", facts.pck, rule.platform)
    ledger.run("tdx judge 1 debug", lambda: check_debug(td))
    for step in _attribute_steps(rule):
        ledger.run("tdx judge 2 attributes", lambda step=step: step(td))  # type: ignore[misc]
    ledger.run("tdx judge 3 xfam", lambda: _xfam(td, rule))
    ledger.run(
        "tdx judge 4 service td",
        lambda: td_extension.check_service_td(td, rule.service_tds, rule.extension),
    )
    ledger.run("tdx judge 5 module", lambda: _module(td, rule))
    ledger.run("tdx judge 6 image", lambda: _image(td, rule))
    td_extension.judge(ledger, td, facts.pck, rule.extension, rule.platform.fmspc_deny)
    return end


def _attributes(td: Members) -> int | None:
    if "attributes_eq" not in td:
        return None
    value = _number(td, "attributes_eq")
    if value & bits.TUD_MASK:
        raise td.fail("attributes_eq", "a first byte of zero: its bits allow a debugger")
    return value


def _number(td: Members, key: str) -> int:
    return int.from_bytes(hex_value(td, key, 8), "little")


def _images(members: Members, paravisor: bool) -> tuple[Mapping[str, bytes], ...] | None:
    if members.value("image") == "any":
        return None
    image = Members(
        members.value("image"), "policy.accept.image", required=("any_of",), error=PolicyError
    )
    return tuple(_registers(item, paravisor) for item in image.array("any_of", IMAGES_MAX, 1))


def _registers(item: object, paravisor: bool) -> Mapping[str, bytes]:
    members = Members(
        item,
        "policy.accept.image.any_of",
        required=_IMAGE,
        optional=_IMAGE_OPTIONAL,
        error=PolicyError,
    )
    found = {
        name: hex_value(members, name, 48)
        for name in (*_IMAGE, *_IMAGE_OPTIONAL)
        if name in members
    }
    if not any(found["mr_td"]):
        raise members.fail("mr_td", "a measurement; all zeros measure nothing")
    if not paravisor and found["rt_mr1"] in _NOTHING:
        raise members.fail(
            "rt_mr1", "a measurement of the code started; zeros or separators alone measure none"
        )
    return found


def _nothing() -> frozenset[bytes]:
    """What RTMR1 holds that no code was measured into: reset, or separators alone."""
    values = {bytes(48), b"\xff" * 48}
    for mark in (b"\0", b"\xff"):  # of a good boot, and of a failed one
        value, event = bytes(48), hashlib.sha384(mark * 4).digest()
        for _ in range(SEPARATORS_MAX):
            value = hashlib.sha384(value + event).digest()
            values.add(value)
    return frozenset(values)


_NOTHING: Final = _nothing()


def check_debug(td: TdReport) -> str:
    """No debugger reads what the TD holds (step 1).

    Raises:
        AttestationError: `debug_enabled`.
    """
    if td.attribute_bits & bits.TUD_MASK:
        raise refused("debug_enabled", "TD: found a debug attribute, expected none")
    return "no debugger"


def _attribute_steps(rule: TdxRule) -> list[Any]:  # step 2
    """One check a bit, so that all that is wrong is known."""
    if rule.attributes is not None:
        return [lambda td: _exact(td, rule.attributes)]

    def sept_ve(td: TdReport) -> str:
        if rule.sept_ve_disable and not td.attribute_bits & bits.SEPT_VE_DISABLE:
            raise refused("sept_ve_disable_off", "TD: the host can raise #VE at any page access")
        return "SEPT_VE_DISABLE as demanded"

    def clear(bit: int, key: str, code: str) -> Any:
        def check(td: TdReport) -> str:
            if td.attribute_bits & bit and key not in rule.allowed:
                raise refused(code, f"TD: found {key} set, expected it clear")
            return f"{key} as demanded"

        return check

    def known(td: TdReport) -> str:
        if td.attribute_bits & ~ATTRIBUTES_KNOWN:
            raise refused("td_attributes_not_accepted", "TD: found attribute bits of no known use")
        return "no unknown bit"

    return [sept_ve, *(clear(*item) for item in CLEAR), known]


def _exact(td: TdReport, expected: int | None) -> str:
    if td.attribute_bits != expected:
        raise refused(
            "td_attributes_not_accepted", "TD: found other attributes than those demanded"
        )
    return "exactly those demanded"


def _xfam(td: TdReport, rule: TdxRule) -> str:  # step 3
    unknown = int.from_bytes(td.xfam, "little") & ~rule.xfam_mask
    if unknown:
        raise refused("xfam_not_accepted", f"TD: found extended features {unknown:#x} beyond it")
    return "only features of the mask"


def _module(td: TdReport, rule: TdxRule) -> str:  # step 5
    if rule.mr_seam is not None and td.mr_seam not in rule.mr_seam:
        raise refused("mr_seam_not_accepted", "TD: MRSEAM is not on the list")
    return f"MRSEAM {td.mr_seam.hex()[:16]}"


def _image(td: TdReport, rule: TdxRule) -> str:  # step 6
    if not any(td.mr_td):
        raise refused("measurement_zero", "TD: found an MRTD of zeros, expected a measurement")
    if rule.images is None:
        return "any, as stated"
    for number, image in enumerate(rule.images):
        if all(getattr(td, name) == value for name, value in image.items()):
            return f"set {number}"
    raise refused("image_not_accepted", f"TD: equals none of {len(rule.images)} accepted images")

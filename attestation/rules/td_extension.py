"""What a policy demands of the members that only a TD report 1.5 or its extension has.

Members of `td`, beside those of `tdx`, each a list of values as they stand in the report:

    service_td: "none" | [hex 48], service_td_attributes: [hex 8], vmid: [hex 1],
    dev_info: [hex 48], origin: [hex 44]

Zeros mean that there is none, and need no naming; nothing else passes unless it is named. So no
list may hold zeros: they would name what is absent. `td_id` is a number by chance; it has no state.

Steps:
 4. service TD: MRSERVICETD, the hash of the one bound now and of the one bound first are each zero
    or one of `service_td`; what is stated of its attributes is zero or one of
    `service_td_attributes`. The other TD saw all of this one, so each of them counts;
 7. extension: VMID and the measurement of assigned devices are zero or named;
 8. origin: where the TD began is this platform, or one of `origin`: INIT_CPU_SVN, INIT_TEE_TCB_SVN
    and INIT_TEE_FMSPC in one. This platform's are no lower components than its certificate has, the
    TEE_TCB_SVN of launch, and its CPU's model. Zeros pass where SERVTD_EXT is off, because only
    that attribute gives the three a meaning; where it is on, a report without them is refused;
    and no processor model that `platform.fmspc_deny` names is the origin's, named or not. A model
    that cannot be read is taken for one of those.

INIT_TEE_FMSPC is no FMSPC: it is three words, of which the second is CPUID leaf 1's EAX. An FMSPC
has family and models of it in its second and third byte, and these are compared. What else the
words can hold is not published, so other values are another platform's.

Reason codes: `service_td_present` (4), `td_extension_not_accepted` (7), `td_origin_not_accepted`,
`platform_denied` (8).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from attestation.formats.dcap_bodies import SERVTD_EXT
from wire.errors import refused

from .intel import hex_set

if TYPE_CHECKING:
    from attestation.formats.dcap_bodies import TdReport
    from attestation.formats.pck import Pck
    from attestation.ledger import Ledger
    from attestation.members import Members

KEYS: Final = ("service_td", "service_td_attributes", "vmid", "dev_info", "origin")
ORIGIN_LEN: Final = 44
_WORDS: Final = struct.Struct("<3I")  # of INIT_TEE_FMSPC
_LAST: Final = 1 << 31
_EAX_KNOWN: Final = 0xFFFFF  # above is the extended family, which no published FMSPC has


@dataclass(frozen=True, slots=True)
class ExtensionRule:
    """Values accepted besides zeros; see the module.

    Attributes:
        service_td_attributes, vmids, devices: of these members; empty accepts zeros only.
        origins: where the TD may have begun besides this platform.
    """

    service_td_attributes: frozenset[bytes]
    vmids: frozenset[bytes]
    devices: frozenset[bytes]
    origins: frozenset[bytes]


def parse(td: Members) -> ExtensionRule:
    """The members of `td` that this module names, but `service_td`.

    Raises:
        PolicyError: of another type or length, or zeros.
    """
    return ExtensionRule(
        service_td_attributes=_named(td, "service_td_attributes", 8),
        vmids=_named(td, "vmid", 1),
        devices=_named(td, "dev_info", 48),
        origins=_named(td, "origin", ORIGIN_LEN),
    )


def parse_service_td(td: Members) -> frozenset[bytes]:
    """The accepted service TD hashes; empty for none.

    Raises:
        PolicyError: neither "none" nor a list of hashes, or zeros.
    """
    if "service_td" in td and td.value("service_td") == "none":
        return frozenset()
    return _named(td, "service_td", 48)


def check_service_td(td: TdReport, hashes: frozenset[bytes], rule: ExtensionRule) -> str:  # step 4
    """Only service TDs of the list had or have this TD.

    Raises:
        AttestationError: `service_td_present`.
    """
    found = [td.mr_service_td, td.init_service_td_hash, td.cur_service_td_hash]
    attributes = [td.init_service_td_attributes, td.cur_service_td_attributes]
    if not any(map(any, found + attributes)):
        return "none is bound"  # a TDX 1.0 report has no place for one
    if any(any(value) and value not in hashes for value in found):
        raise refused("service_td_present", "TD: found a bound service TD, expected none")
    if any(any(value) and value not in rule.service_td_attributes for value in attributes):
        raise refused("service_td_present", "TD: found a service TD with attributes not named")
    return "one of those named"


def judge(
    ledger: Ledger, td: TdReport, pck: Pck | None, rule: ExtensionRule, denied: frozenset[bytes]
) -> None:
    """Steps 7 and 8.

    Args:
        ledger: of the judgement.
        td: the report.
        pck: the certificate of the platform that it was made on.
        rule: the demands.
        denied: FMSPCs of denied platforms.
    """
    ledger.run("tdx judge 7 extension", lambda: _extension(td, rule))
    ledger.run("tdx judge 8 origin", lambda: _origin(td, pck, rule))
    ledger.run("tdx judge 8 origin", lambda: _denied(td, denied))


def _named(td: Members, key: str, length: int) -> frozenset[bytes]:
    found = hex_set(td, key, length) if key in td else frozenset()
    if bytes(length) in found:
        raise td.fail_item(key, bytes(length).hex(), "values other than zero")
    return found


def _extension(td: TdReport, rule: ExtensionRule) -> str:  # step 7
    if not td.td_id:
        return "the report has none"
    for name, value, accepted in (
        ("VMID", td.vmid, rule.vmids),
        ("DEV_INFO", td.dev_info, rule.devices),
    ):
        if any(value) and value not in accepted:
            raise refused("td_extension_not_accepted", f"TD: found a {name} that is not named")
    return "no VMID and no device but those named"


def _origin(td: TdReport, pck: Pck | None, rule: ExtensionRule) -> str:  # step 8
    meant = bool(td.attribute_bits & SERVTD_EXT)
    origin = td.init_cpu_svn + td.init_tee_tcb_svn + td.init_tee_fmspc
    if not any(origin) and not meant:
        return "not stated"
    if origin in rule.origins:
        return "one of those named"
    if (
        pck is not None
        and origin
        and all(map(int.__ge__, td.init_cpu_svn, pck.components))
        and td.init_tee_tcb_svn == td.tee_tcb_svn
        and _model(td.init_tee_fmspc) == pck.fmspc[1:3]
    ):
        return "this platform"
    raise refused("td_origin_not_accepted", "TD: it began on another platform, or says not where")


def _denied(td: TdReport, denied: frozenset[bytes]) -> str:  # step 8
    if any(td.init_tee_fmspc):
        model = _model(td.init_tee_fmspc)
        if any(model in (b"", fmspc[1:3]) for fmspc in denied):
            raise refused("platform_denied", "TD: it began on a processor of a denied model")
    return "none that is denied"


def _model(stated: bytes) -> bytes:
    """Family and models of a processor as an FMSPC has them; empty where that is not known."""
    words: tuple[int, int, int] = _WORDS.unpack(stated)
    first, eax, last = words
    if first or last != _LAST or eax > _EAX_KNOWN:
        return b""
    return (eax >> 4).to_bytes(2, "big")

"""What an Intel quote speaks about: an SGX enclave report or a TD report. Parse only.

Sources: Intel SGX ECDSA QuoteLibReference (quote v3), Intel TDX DCAP Quoting Library API (v4, v5),
Intel TDX Module Base Specification (TD attributes). All integers are little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from wire.errors import MalformedError

ENCLAVE_REPORT_LEN: Final = 384
TD10_LEN: Final = 584
TD15_LEN: Final = 648
TD15EX_LEN: Final = 885

# TD attributes, bit numbers. Bits 0 to 7 (TUD) each mean that the TD is under someone's debugger.
TUD_MASK: Final = 0xFF
DEBUG: Final = 1 << 0
SEPT_VE_DISABLE: Final = 1 << 28
MIGRATABLE: Final = 1 << 29
PKS: Final = 1 << 30
KL: Final = 1 << 31
PERFMON: Final = 1 << 63
SERVTD_EXT: Final = 1 << 17  # the module keeps account of service TDs and of where the TD began
ICSSD: Final = 1 << 16  # a check of the interrupt controller's state; no weakness
LASS: Final = 1 << 27  # linear address space separation in the TD; no weakness

SGX_INIT, SGX_DEBUG, SGX_MODE64 = 1 << 0, 1 << 1, 1 << 2

# An enclave report's fields in order; "" is reserved and must be zero.
_ENCLAVE: Final = (
    ("cpusvn", 16), ("miscselect", 4), ("", 12), ("isv_ext_prod_id", 16), ("attributes", 16),
    ("mrenclave", 32), ("", 32), ("mrsigner", 32), ("", 32), ("config_id", 64), ("isvprodid", 2),
    ("isvsvn", 2), ("config_svn", 2), ("", 42), ("isv_family_id", 16), ("report_data", 64),
)  # fmt: skip
_TD10: Final = (
    ("tee_tcb_svn", 16), ("mr_seam", 48), ("mr_signer_seam", 48), ("seam_attributes", 8),
    ("td_attributes", 8), ("xfam", 8), ("mr_td", 48), ("mr_config_id", 48), ("mr_owner", 48),
    ("mr_owner_config", 48), ("rt_mr0", 48), ("rt_mr1", 48), ("rt_mr2", 48), ("rt_mr3", 48),
    ("report_data", 64),
)  # fmt: skip
_TD15: Final = (*_TD10, ("tee_tcb_svn2", 16), ("mr_service_td", 48))
_TD15EX: Final = (
    *_TD15, ("vmid", 1), ("td_id", 32), ("dev_info", 48), ("init_service_td_hash", 48),
    ("init_service_td_attributes", 8), ("init_cpu_svn", 16), ("init_tee_tcb_svn", 16),
    ("init_tee_fmspc", 12), ("cur_service_td_hash", 48), ("cur_service_td_attributes", 8),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EnclaveReport:
    """An SGX REPORT body, 384 bytes: of the quoted enclave, or of a quoting enclave."""

    raw: bytes
    cpusvn: bytes
    miscselect: bytes
    isv_ext_prod_id: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    config_id: bytes
    isvprodid: int
    isvsvn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes

    @property
    def flags(self) -> int:
        """The attribute flags, bits 0 to 63."""
        return int.from_bytes(self.attributes[:8], "little")

    def claims(self) -> dict[str, Any]:
        """Values by their public names; bytes as hex in the order they stand in the report."""
        return {
            "cpusvn": self.cpusvn.hex(),
            "miscselect": self.miscselect.hex(),
            "attributes": self.attributes.hex(),
            "mrenclave": self.mrenclave.hex(),
            "mrsigner": self.mrsigner.hex(),
            "isvprodid": self.isvprodid,
            "isvsvn": self.isvsvn,
            "report_data": self.report_data.hex(),
            "debug": bool(self.flags & SGX_DEBUG),
        }


@dataclass(frozen=True, slots=True)
class TdReport:
    """A TD report body: 584 bytes for TDX 1.0, 648 for 1.5, 885 for 1.5 with its extension.

    Attributes:
        tee_tcb_svn2, mr_service_td: empty in a 1.0 body, which has no place for them.
        vmid: number of the quoted VM in a partitioned TD; this and what follows is empty in a body
            without the extension.
        td_id: of this TD, for as long as it lives.
        dev_info: measurement of the devices assigned to it.
        init_service_td_hash, init_service_td_attributes: the service TD that brought it here first.
        init_cpu_svn, init_tee_tcb_svn, init_tee_fmspc: the platform it began on; the last is three
            words that name the processor, no FMSPC.
        cur_service_td_hash, cur_service_td_attributes: the service TD bound to it now.
    """

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rt_mr0: bytes
    rt_mr1: bytes
    rt_mr2: bytes
    rt_mr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes = b""
    mr_service_td: bytes = b""
    vmid: bytes = b""
    td_id: bytes = b""
    dev_info: bytes = b""
    init_service_td_hash: bytes = b""
    init_service_td_attributes: bytes = b""
    init_cpu_svn: bytes = b""
    init_tee_tcb_svn: bytes = b""
    init_tee_fmspc: bytes = b""
    cur_service_td_hash: bytes = b""
    cur_service_td_attributes: bytes = b""

    @property
    def attribute_bits(self) -> int:
        """TD attributes as a number, bit 0 the lowest."""
        return int.from_bytes(self.td_attributes, "little")

    def claims(self) -> dict[str, Any]:
        """Values by their public names; bytes as hex in the order they stand in the report."""
        fields = {name: getattr(self, name).hex() for name, _ in _TD15EX}
        number = {"vmid": self.vmid[0]} if self.vmid else {}
        bits = self.attribute_bits
        return (
            {name: value for name, value in fields.items() if value}
            | number
            | {
                "debug": bool(bits & DEBUG),
                "sept_ve_disable": bool(bits & SEPT_VE_DISABLE),
                "migratable": bool(bits & MIGRATABLE),
                "pks": bool(bits & PKS),
                "kl": bool(bits & KL),
                "perfmon": bool(bits & PERFMON),
            }
        )


def parse_enclave_report(raw: bytes, what: str) -> EnclaveReport:
    """An enclave report.

    Raises:
        MalformedError: another length, or a reserved byte that is not zero.
    """
    fields = _fields(raw, _ENCLAVE, ENCLAVE_REPORT_LEN, what)
    return EnclaveReport(
        raw=raw,
        cpusvn=fields["cpusvn"],
        miscselect=fields["miscselect"],
        isv_ext_prod_id=fields["isv_ext_prod_id"],
        attributes=fields["attributes"],
        mrenclave=fields["mrenclave"],
        mrsigner=fields["mrsigner"],
        config_id=fields["config_id"],
        isvprodid=int.from_bytes(fields["isvprodid"], "little"),
        isvsvn=int.from_bytes(fields["isvsvn"], "little"),
        config_svn=int.from_bytes(fields["config_svn"], "little"),
        isv_family_id=fields["isv_family_id"],
        report_data=fields["report_data"],
    )


def parse_td_report(raw: bytes) -> TdReport:
    """A TD report of the version its length says.

    Raises:
        MalformedError: a length of neither version.
    """
    if len(raw) == TD15EX_LEN:
        return TdReport(**_fields(raw, _TD15EX, TD15EX_LEN, "TD report"))
    if len(raw) == TD15_LEN:
        return TdReport(**_fields(raw, _TD15, TD15_LEN, "TD report"))
    return TdReport(**_fields(raw, _TD10, TD10_LEN, "TD report"))


def _fields(
    raw: bytes, layout: tuple[tuple[str, int], ...], total: int, what: str
) -> dict[str, bytes]:
    if len(raw) != total:
        raise MalformedError(f"{what}: found {len(raw)} bytes, expected {total}")
    found: dict[str, bytes] = {}
    at = 0
    for name, length in layout:
        value = raw[at : at + length]
        if name:
            found[name] = value
        elif any(value):
            # A meaning given to these bytes later could be a weakness this version cannot judge.
            raise MalformedError(f"{what}: found reserved bytes set at {at}, expected zeros")
        at += length
    return found

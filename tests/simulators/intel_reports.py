"""Reports of TDs and enclaves as Intel's simulator writes them: their fields, in order, honest."""

from __future__ import annotations

import hashlib

TD10 = (
    ("tee_tcb_svn", 16), ("mr_seam", 48), ("mr_signer_seam", 48), ("seam_attributes", 8),
    ("td_attributes", 8), ("xfam", 8), ("mr_td", 48), ("mr_config_id", 48), ("mr_owner", 48),
    ("mr_owner_config", 48), ("rt_mr0", 48), ("rt_mr1", 48), ("rt_mr2", 48), ("rt_mr3", 48),
    ("report_data", 64),
)  # fmt: skip
TD15 = (*TD10, ("tee_tcb_svn2", 16), ("mr_service_td", 48))
EXTENSION = (
    ("vmid", 1), ("td_id", 32), ("dev_info", 48), ("init_service_td_hash", 48),
    ("init_service_td_attributes", 8), ("init_cpu_svn", 16), ("init_tee_tcb_svn", 16),
    ("init_tee_fmspc", 12), ("cur_service_td_hash", 48), ("cur_service_td_attributes", 8),
)  # fmt: skip
ENCLAVE = (
    ("cpusvn", 16), ("miscselect", 4), ("reserved1", 12), ("isv_ext_prod_id", 16),
    ("attributes", 16), ("mrenclave", 32), ("reserved2", 32), ("mrsigner", 32), ("reserved3", 32),
    ("config_id", 64), ("isvprodid", 2), ("isvsvn", 2), ("config_svn", 2), ("reserved4", 42),
    ("isv_family_id", 16), ("report_data", 64),
)  # fmt: skip


def td(version: int) -> dict[str, bytes]:
    """A TD report's fields: an honest guest, not in debug; without its extension."""
    body = {field: bytes(size) for field, size in (TD10 if version == 4 else TD15)}
    body["tee_tcb_svn"] = bytes([11, 1, 4]) + bytes(13)
    if version == 5:
        body["tee_tcb_svn2"] = body["tee_tcb_svn"]
    body["mr_seam"] = hashlib.sha384(b"module").digest()
    body["td_attributes"] = (1 << 28).to_bytes(8, "little")
    body["xfam"] = bytes.fromhex("e702060000000000")
    for register in ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2"):
        body[register] = hashlib.sha384(register.encode()).digest()
    body["report_data"] = hashlib.sha512(b"asked for").digest()
    return body


def enclave(**fields: bytes | int) -> dict[str, bytes]:
    """An enclave report's fields: 64-bit, initialised, not in debug."""
    report = {field: bytes(size) for field, size in ENCLAVE}
    report["cpusvn"] = bytes([11, 11, 26, 24]) + bytes(12)
    report["attributes"] = bytes.fromhex("1500000000000000e700000000000000")
    report["mrenclave"] = hashlib.sha256(b"enclave").digest()
    report["mrsigner"] = hashlib.sha256(b"signer").digest()
    if not fields:
        report["attributes"] = bytes.fromhex("0500000000000000e700000000000000")
        report["report_data"] = hashlib.sha512(b"asked for").digest()
    for changed, value in fields.items():
        report[changed] = value.to_bytes(2, "little") if isinstance(value, int) else value
    return report


def processor(fmspc: bytes) -> bytes:
    """INIT_TEE_FMSPC of a platform: three words, CPUID leaf 1's EAX (of stepping 0) between."""
    eax = int.from_bytes(fmspc[1:3], "big") << 4
    return bytes(4) + eax.to_bytes(4, "little") + (1 << 31).to_bytes(4, "little")

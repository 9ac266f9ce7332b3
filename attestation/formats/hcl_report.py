"""Azure's HCL report: what the paravisor writes about its VM into the virtual TPM. Parse only.

    header 32: "HCLA" | u32 version | u32 size | u32 request | u32 status | 12 reserved
    report 1184: the SNP report, or the TD report with zeros after it
    data 20: u32 size | u32 version | u32 report type | u32 hash | u32 length
             (version 2: | u32 capabilities)
    variable data: JSON of that length, then zeros to the end of the TPM's index

All little-endian. Only two things in it are vouched for: the report, by its vendor, and the
variable data, whose hash the report carries. Header and data fields are neither, and choose only
between readings that the report must confirm.

Source: OpenHCL `openhcl_attestation_protocol`, module `igvm_attest`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric import rsa

from attestation.members import Members
from wire.canonical import parse_strict
from wire.errors import MalformedError

from .tpm_structures import RSA_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

REPORT_MAX: Final = 32 * 1024  # the TPM's index holds 2600 bytes
VARIABLE_MAX: Final = 16 * 1024
REPORT_AT: Final = 32
REPORT_AREA: Final = 1184
DATA_AT: Final = REPORT_AT + REPORT_AREA
DATA_LEN: Final = 20
CAPABILITIES_LEN: Final = 4  # what the paravisor asked of the host; says nothing of the VM
TD_REPORT_LEN: Final = 1024
SIGNATURE: Final = b"HCLA"
VERSIONS: Final = (1, 2)
REQUEST_AK_CERT: Final = 2  # the request this report is written for; others hold other keys
HASHES: Final[Mapping[int, str]] = MappingProxyType({1: "sha256", 2: "sha384", 3: "sha512"})
TEES: Final[Mapping[int, Literal["SEV-SNP", "TDX"]]] = MappingProxyType({2: "SEV-SNP", 4: "TDX"})

AK_KID: Final = "HCLAkPub"
KEYS_MAX: Final = 4  # attestation and endorsement key
EXPONENT_MAX: Final = 8
# The attestation key signs. Early paravisors wrote "encrypt" beside this very key all the same; the
# name is what it is known by.
AK_OPERATIONS: Final = (["sign"], ["encrypt"])

# Within a TD report (TDX Module Base Specification, TDREPORT_STRUCT).
_TD_REPORT_DATA = slice(128, 192)
_TD_MR_TD = slice(528, 576)


@dataclass(frozen=True, slots=True)
class HclReport:
    """A parsed HCL report; unverified.

    Attributes:
        tee: whose report is in it.
        report: the SNP report, or the TD report; a TD report is no evidence outside its machine.
        hash_name: the hash of the variable data that the report carries.
        variable: the variable data, exactly the bytes that are hashed.
        ak: the virtual TPM's attestation key.
        vm_configuration: what the paravisor says of the VM.
        user_data: what the guest asked the paravisor to put there, as text; None if nothing.
    """

    tee: Literal["SEV-SNP", "TDX"]
    report: bytes
    hash_name: str
    variable: bytes
    ak: rsa.RSAPublicKey
    vm_configuration: Mapping[str, Any]
    user_data: str | None

    @property
    def td_report_data(self) -> bytes:
        """REPORTDATA of the TD report."""
        return self.report[_TD_REPORT_DATA]

    @property
    def td_mr_td(self) -> bytes:
        """MRTD of the TD report."""
        return self.report[_TD_MR_TD]

    def claims(self) -> dict[str, Any]:
        """Values by their public names."""
        return {
            "tee": self.tee,
            "runtime_user_data": self.user_data,
            "vm_configuration": dict(self.vm_configuration),
        }


def parse_hcl_report(raw: bytes) -> HclReport:
    """The report in `raw`.

    Raises:
        MalformedError: any deviation from the format.
    """
    if not DATA_AT + DATA_LEN <= len(raw) <= REPORT_MAX:
        raise _malformed(f"{len(raw)} bytes", f"{DATA_AT + DATA_LEN} to {REPORT_MAX}")
    if raw[:4] != SIGNATURE:
        raise _malformed("another signature", "HCLA")
    version, size, request, status = _numbers(raw, 4, 4)
    if version not in VERSIONS or request != REQUEST_AK_CERT:
        raise _malformed(f"version {version}, request {request}", "1 or 2, and request 2")
    if status or any(raw[20:REPORT_AT]):
        raise _malformed(f"status {status} or reserved bytes set", "zeros")
    data_size, data_version, kind, hash_type, length = _numbers(raw, DATA_AT, 5)
    head = DATA_LEN + (CAPABILITIES_LEN if data_version == VERSIONS[1] else 0)
    if data_version not in VERSIONS or kind not in TEES or hash_type not in HASHES:
        raise _malformed(
            f"data version {data_version}, report type {kind}, hash {hash_type}", "known ones"
        )
    end = DATA_AT + head + length
    if not 0 < length <= VARIABLE_MAX or data_size != head + length or size != end:
        raise _malformed(f"sizes {size}, {data_size}, {length}", "sizes that agree")
    if end > len(raw) or any(raw[end:]):
        raise _malformed("other bytes after the variable data", "zeros")
    report = raw[REPORT_AT:DATA_AT]
    if TEES[kind] == "TDX":
        if any(report[TD_REPORT_LEN:]):
            raise _malformed("bytes after the TD report", "zeros")
        report = report[:TD_REPORT_LEN]
    return _with_variable(report, TEES[kind], HASHES[hash_type], raw[DATA_AT + head : end])


def _with_variable(
    report: bytes, tee: Literal["SEV-SNP", "TDX"], hash_name: str, variable: bytes
) -> HclReport:
    members = Members(
        parse_strict(variable, max_bytes=VARIABLE_MAX),
        "variable data",
        required=("keys",),
        optional=("vm-configuration", "user-data"),
    )
    configuration = members.value("vm-configuration") if "vm-configuration" in members else {}
    if not isinstance(configuration, dict):
        raise members.fail("vm-configuration", "an object")
    user_data = members.value("user-data")
    if "user-data" in members and not isinstance(user_data, str):
        raise members.fail("user-data", "a text")
    return HclReport(
        tee=tee,
        report=report,
        hash_name=hash_name,
        variable=variable,
        ak=_attestation_key(members),
        vm_configuration=MappingProxyType(configuration),
        user_data=user_data,
    )


def _attestation_key(members: Members) -> rsa.RSAPublicKey:
    """The key named HCLAkPub; one, so that no reader can take another."""
    found: list[rsa.RSAPublicKey] = []
    kids: set[str] = set()
    for item in members.array("keys", KEYS_MAX, 1):
        key = Members(item, "variable data.keys", required=("kid", "key_ops", "kty", "e", "n"))
        kid = key.text("kid")
        if kid in kids:
            raise key.fail("kid", "distinct names")
        kids.add(kid)
        if kid == AK_KID:
            found.append(_rsa(key))
    if not found:
        raise _malformed(f"no key named {AK_KID}", "one")
    return found[0]


def _rsa(key: Members) -> rsa.RSAPublicKey:
    if key.text("kty") != "RSA" or key.value("key_ops") not in AK_OPERATIONS:
        raise key.fail("key_ops", "an RSA key that signs")
    exponent = int.from_bytes(key.blob("e", EXPONENT_MAX), "big")
    modulus = key.blob("n", max(RSA_BITS) // 8)
    if len(modulus) * 8 not in RSA_BITS or modulus[0] < 0x80:
        raise _malformed(f"a modulus of {len(modulus)} bytes", f"{RSA_BITS} bits")
    try:
        return rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "big")).public_key()
    except ValueError:
        raise _malformed("an RSA key that is not usable", "a usable one") from None


def _numbers(raw: bytes, at: int, count: int) -> tuple[int, ...]:
    return tuple(
        int.from_bytes(raw[start : start + 4], "little") for start in range(at, at + 4 * count, 4)
    )


def _malformed(found: str, expected: str) -> MalformedError:
    return MalformedError(f"HCL report: found {found}, expected {expected}")

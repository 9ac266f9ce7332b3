"""A programmable Azure paravisor: an HCL report about a CPU's report and a virtual TPM's key.

    vm = Paravisor(chip.report)                        # chip: `simulators.amd.Chip`
    vm.tpm.measure(11, measurement)
    evidence = vm.evidence(nonce)                      # {"hcl_report": …, "quote_msg": …, …}

`report` is any function from 64 bytes of report data to a signed CPU report: `report_data=` is how
it is called. To lie in one fact, change one role, or name it: `vm.hcl_report(kind=4)`,
`vm.variable["keys"][0]["kid"] = …`, `vm.evidence(nonce, report_data=…)`. The CPU's report is
signed after the lie.

Source: OpenHCL `openhcl_attestation_protocol`, module `igvm_attest`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from .vtpm import NONCE, Vtpm, VtpmMaker, rsa_key

if TYPE_CHECKING:
    from collections.abc import Callable

AREA, INDEX_LEN = 1184, 2600


class Paravisor:
    """A confidential VM with its virtual TPM.

    Attributes:
        report: makes the CPU's report for report data.
        tpm: the virtual TPM; its attestation key is RSA, as Azure's are.
        variable: the variable data, before it is written as JSON.
    """

    def __init__(self, report: Callable[..., bytes], key: Any = None) -> None:
        self.report = report
        self.tpm = Vtpm(VtpmMaker(), key or rsa_key("azure attestation"))
        self.variable: dict[str, Any] = {
            "keys": [
                jwk("HCLAkPub", "sign", self.tpm.key),
                jwk("HCLEkPub", "encrypt", rsa_key("azure endorsement")),
            ],
            "vm-configuration": {
                "console-enabled": False,
                "secure-boot": True,
                "tpm-enabled": True,
                "vmUniqueId": "00000000-0000-4000-8000-000000000000",
            },
            "user-data": "00" * 64,
        }

    def variable_data(self) -> bytes:
        """The bytes that the CPU's report carries the hash of."""
        return json.dumps(self.variable, separators=(",", ":")).encode()

    def hcl_report(
        self,
        report: bytes | None = None,
        *,
        report_data: bytes | None = None,
        variable: bytes | None = None,
        signature: bytes = b"HCLA",
        version: int = 1,
        request: int = 2,
        status: int = 0,
        kind: int = 2,
        hash_type: int = 1,
        data_version: int = 1,
        extra: bytes = b"",
        size_error: int = 0,
        length_error: int = 0,
        tail: bytes = b"",
    ) -> bytes:
        """The contents of the virtual TPM's index."""
        data = self.variable_data() if variable is None else variable
        name = {1: "sha256", 2: "sha384", 3: "sha512"}.get(hash_type, "sha256")
        if report_data is None:
            report_data = hashlib.new(name, data).digest().ljust(64, b"\0")
        if report is None:
            report = self.report(report_data=report_data)
        head = 20 + len(extra)
        size = 32 + AREA + head + len(data) + size_error
        header = signature + _u32(version, size, request, status) + bytes(12)
        about = _u32(
            head + len(data) + length_error, data_version, kind, hash_type, len(data) + length_error
        )
        body = header + report.ljust(AREA, b"\0") + about + extra + data
        return body.ljust(INDEX_LEN, b"\0") + tail

    def evidence(self, nonce: bytes = NONCE, **lies: Any) -> dict[str, bytes]:
        """Role to bytes, as a worker sends it; the signature is plain, as Azure's tools have it."""
        message, signature = self.tpm.quote(nonce)
        return {
            "hcl_report": self.hcl_report(**lies),
            "quote_msg": message,
            "quote_sig": signature[6:],
            "pcrs": self.tpm.pcrs(),
        }


def jwk(kid: str, operation: str, key: Any) -> dict[str, Any]:
    """An RSA key as the variable data names it."""
    numbers = key.public_key().public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    return {
        "kid": kid,
        "key_ops": [operation],
        "kty": "RSA",
        "e": _b64u(numbers.e.to_bytes(3, "big")),
        "n": _b64u(numbers.n.to_bytes(size, "big")),
    }


def _u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def _b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def td_report(report_data: bytes, mr_td: bytes) -> bytes:
    """A TD report as the paravisor writes it; only its own machine could check its MAC."""
    raw = bytearray(1024)
    raw[0], raw[128:192], raw[528:576] = 0x81, report_data, mr_td
    return bytes(raw)

"""Workers on simulated hardware: a whole showing each, with the vendor's real cryptography.

    tee = SnpTee()
    tee.appraise()                        # accepted, trust "simulated": the rule names its root
    tee.lies["vmpl"] = 3                  # one fact of the report, signed after the lie
    tee.carried = sha256_tag(b"other")  # what stands in the register instead
    tee.statements["crl"] = …             # one piece of collateral

`SnpTee`, `TdxTee`, `NitroTee`, `AzureSnpTee`, `AzureTdxTee` and `QuoteTee`; with GPUs, see
`simulators.gpu_tee`.
Everything of one vendor and one time shares that vendor's root, so that one policy accepts many
workers; each has a platform of its own. Evidence is made once for a binding, as a worker makes it:
a signature by ECDSA is another one each time. Change facts before.

`serve` puts the vendor's statements where a `simulators.vendor_services.VendorServices` hands them
out. A rule without "roots" trusts the real vendor, and refuses all of this.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.binding import report32, report_data
from attestation.evidence import Evidence
from attestation.formats.container import encode_container
from attestation.measurement import digest_bytes
from attestation.registers import NITRO_PCR, host_data_value, nitro_pcr_event, rtmr_value
from attestation.rules.registers import BOOT_PCR

from .amd import Amd, Chip
from .hcl import Paravisor, td_report
from .intel import Intel
from .nitro import NitroEnclave, NitroVendor
from .tee import AUD, NOW, Tee
from .vendor_services import PCS, ROOT_CRL, Answer
from .vtpm import Vtpm, VtpmMaker, rsa_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attestation.examined import CollateralSet

    from .vendor_services import VendorServices

BOOT_CODE = hashlib.sha256(b"boot loader and kernel").digest()
SNP, TDX, NITRO, AZURE_SNP, AZURE_TDX, QUOTE = (
    "amd-sev-snp-report", "intel-tdx-quote", "aws-nitro-document", "azure-vtpm-snp",
    "azure-vtpm-tdx", "tpm2-quote",
)  # fmt: skip


class HardwareTee(Tee):
    """What all of them have; a subclass says what its hardware signs.

    Attributes:
        carried: the measurement in the register, a "sha256:" tag; the honest one by default.
        shown_parts: parts in the container, None for the honest ones.
        roles: evidence roles that differ; None leaves one out.
        statements: collateral roles that differ; None leaves one out.
    """

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.seed = seed
        self.carried = self.measurement()
        self.shown_parts: dict[str, str] | None = None
        self.roles: dict[str, bytes | None] = {}
        self.statements: dict[str, bytes | None] = {}
        self._made: dict[bytes, Evidence] = {}
        self.demands["allow_simulated"] = True

    def signed(self, binding_raw: bytes) -> Mapping[str, bytes]:
        """Role to bytes: what the hardware signs for a binding."""
        raise RuntimeError("a kind of hardware says what it signs")

    def vouched(self) -> Mapping[str, bytes]:
        """Role to bytes: what the vendor states about this platform."""
        return {}

    def serve(self, served: VendorServices) -> None:
        """Hand out the same statements over HTTP."""

    def evidence(self, binding_raw: bytes) -> Evidence:
        if binding_raw not in self._made:
            roles = _without_none({**self.signed(binding_raw), **self.roles})
            parts = self.parts if self.shown_parts is None else self.shown_parts
            self._made[binding_raw] = Evidence(self.kind, encode_container(roles, parts))
        return self._made[binding_raw]

    def collateral(self) -> CollateralSet:
        return {self.kind: _without_none({**self.vouched(), **self.statements})}


class SnpTee(HardwareTee):
    """A worker in an SEV-SNP guest on a Genoa.

    Attributes:
        amd: the vendor.
        chip: the platform; its `facts` are the report's.
        lies: fields of the report that differ.
        revoked: serial numbers on AMD's list.
        crl: arguments of `Amd.crl`.
    """

    kind = SNP

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.amd = amd_of(now)
        self.chip = chip_of(seed, now)
        self.lies: dict[str, Any] = {}
        self.crl: dict[str, Any] = {}
        self.revoked: list[int] = []
        self.rule |= snp_rule(self.amd)

    def signed(self, binding_raw: bytes) -> Mapping[str, bytes]:
        facts = {
            "report_data": report_data(binding_raw),
            "host_data": host_data_value(digest_bytes(self.carried)),
        }
        return {"report": self.chip.report(**{**facts, **self.lies})}

    def vouched(self) -> Mapping[str, bytes]:
        listed = self.amd.crl(self.revoked, **self.crl)
        return self.amd.collateral(endorsement_cert=self.chip.cert, crl=listed)

    def serve(self, served: VendorServices) -> None:
        base = f"/vcek/v1/{self.amd.product}"
        chain = "".join(map(pem, (self.amd.ask, self.amd.root)))
        hwid = self.chip.facts.chip_id.hex()
        names = ("blSPL", "teeSPL", "snpSPL", "ucodeSPL")
        raw = self.chip.facts.reported_tcb
        levels = (raw[0], raw[1], raw[6], raw[7])
        query = "&".join(f"{n}={v:02}" for n, v in zip(names, levels, strict=True))
        served.answers |= {
            f"{base}/cert_chain": Answer(chain.encode()),
            f"{base}/crl": Answer(self.amd.crl(self.revoked, **self.crl)),
            f"{base}/{hwid}?{query}": Answer(self.chip.cert),
        }


def booted(report: Callable[..., bytes], seed: str, measurement: str) -> Paravisor:
    """An Azure confidential VM whose registers hold its boot code and the worker's measurement."""
    vm = Paravisor(report, rsa_key(f"attestation of {seed}"))
    vm.tpm.measure(BOOT_PCR, BOOT_CODE)
    vm.tpm.measure(11, digest_bytes(measurement))
    return vm


class AzureSnpTee(SnpTee):
    """A worker in an Azure confidential VM on SEV-SNP.

    Attributes:
        vm: its paravisor and virtual TPM; register 4 holds the boot code, 11 the measurement.
        quoted: bytes quoted as nonce, None for the binding's.
    """

    kind = AZURE_SNP

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.vm = booted(self._report, seed, self.carried)
        self.quoted: bytes | None = None
        self.rule |= {"pcrs": boot_registers(self.vm.tpm)}

    def signed(self, binding_raw: bytes) -> Mapping[str, bytes]:
        return self.vm.evidence(report32(binding_raw) if self.quoted is None else self.quoted)

    def vouched(self) -> Mapping[str, bytes]:
        roles = dict(super().vouched())
        return {"vcek": roles.pop("endorsement_cert"), **roles}

    def _report(self, **facts: Any) -> bytes:
        return self.chip.report(**{**facts, **self.lies})


class QuoteTee(HardwareTee):
    """A worker in a VM whose maker certifies its TPM; it sends the links of its own chain.

    Attributes:
        tpm: it; register 4 holds the boot code, 11 the measurement.
    """

    kind = QUOTE

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.maker = VtpmMaker(now=now)
        self.put(Vtpm(self.maker))
        self.rule |= {
            "roots": [pem(self.maker.root)],
            "simulated": False,
            "pcrs": boot_registers(self.tpm),
            "revocation": "as_supplied",
        }
        del self.demands["allow_simulated"]

    def put(self, tpm: Vtpm) -> None:
        """Another TPM in its place."""
        self.tpm = tpm
        tpm.measure(BOOT_PCR, BOOT_CODE)
        tpm.measure(11, digest_bytes(self.carried))

    def signed(self, binding_raw: bytes) -> Mapping[str, bytes]:
        return {**self.tpm.evidence(report32(binding_raw)), "ak_chain": self.maker.issuer}


class TdxTee(HardwareTee):
    """A worker in a trust domain.

    Attributes:
        intel: the vendor and this worker's platform, whose facts may be changed.
        body: fields of the TD report that differ.
    """

    kind = TDX

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.intel = platform_of(intel_of(now), seed)
        self.body: dict[str, bytes] = {}
        honest = self.intel.body
        image = {name: honest[name].hex() for name in ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2")}
        self.rule |= {
            "roots": [pem(self.intel.root_der())],
            "tcb": {"min_eval_number": 18},
            "image": {"any_of": [image]},
        }

    def signed(self, binding_raw: bytes) -> Mapping[str, bytes]:
        self.intel.body |= {
            "report_data": report_data(binding_raw),
            "rt_mr3": rtmr_value(digest_bytes(self.carried)),
            **self.body,
        }
        return {"quote": self.intel.quote()}

    def vouched(self) -> Mapping[str, bytes]:
        return {"collateral": self.intel.collateral()}

    def serve(self, served: VendorServices) -> None:
        roles = self.intel.roles()
        issuers, above = quote(roles["tcb_sign_chain"]), quote(roles["pck_sign_chain"])
        tcb = f"/tdx/{PCS}/tcb?fmspc={self.intel.fmspc.hex()}&update=standard"
        pck_crl = f"/sgx/{PCS}/pckcrl?ca=platform&encoding=der"
        served.answers |= {
            tcb: Answer(roles["tcb_info"], {"TCB-Info-Issuer-Chain": issuers}),
            f"/tdx/{PCS}/qe/identity?update=standard": Answer(
                roles["qe_identity"], {"SGX-Enclave-Identity-Issuer-Chain": issuers}
            ),
            pck_crl: Answer(roles["pck_crl"], {"SGX-PCK-CRL-Issuer-Chain": above}),
            ROOT_CRL: Answer(roles["root_crl"]),
        }


class AzureTdxTee(TdxTee):
    """A worker in an Azure confidential VM on TDX.

    Attributes:
        vm: its paravisor and virtual TPM; register 4 holds the boot code, 11 the measurement.
        quoted: bytes quoted as nonce, None for the binding's.
    """

    kind = AZURE_TDX

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.vm = booted(self._report, seed, self.carried)
        self.quoted: bytes | None = None
        self.rule |= {"pcrs": boot_registers(self.vm.tpm)}

    def signed(self, binding_raw: bytes) -> Mapping[str, bytes]:
        nonce = report32(binding_raw) if self.quoted is None else self.quoted
        roles = self.vm.evidence(nonce, kind=4)
        return {**roles, "td_quote": self.intel.quote()}

    def _report(self, report_data: bytes) -> bytes:
        """The TD report in the HCL report; the quote is made of the same."""
        self.intel.body |= {"report_data": report_data, **self.body}
        return td_report(report_data, self.intel.body["mr_td"])


class NitroTee(HardwareTee):
    """A worker in a Nitro enclave.

    Attributes:
        enclave: it; register 16 holds the measurement, locked. Its nonce and user data are the
            binding's, unless `asked` names others.
    """

    kind = NITRO

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.asked: dict[str, bytes | None] = {}
        self.on(aws_of(now))

    def on(self, vendor: NitroVendor) -> None:
        """Start the enclave at this vendor's, and trust its root."""
        self.enclave = NitroEnclave(vendor)
        self.enclave.extend(NITRO_PCR, nitro_pcr_event(digest_bytes(self.carried)))
        self.enclave.lock(NITRO_PCR)
        image = {f"pcr{number}": self.enclave.pcrs[number].hex() for number in range(3)}
        self.rule |= {"roots": [pem(vendor.root)], "image": {"any_of": [image]}}

    def signed(self, binding_raw: bytes) -> Mapping[str, bytes]:
        honest = {"nonce": report32(binding_raw), "user_data": report_data(binding_raw)}
        for name, value in {**honest, **self.asked}.items():
            setattr(self.enclave, name, value)
        return {"document": self.enclave.document()}


#: Vendors' hardware, one of each; for `QuoteTee` a cloud vouches instead.
KINDS: Final[list[type[HardwareTee]]] = [SnpTee, TdxTee, NitroTee, AzureSnpTee, AzureTdxTee]


def snp_rule(amd: Amd) -> dict[str, Any]:
    """Demands that `Amd.chip` meets."""
    return {
        "roots": [pem(amd.root)],
        "min_tcb": {"Genoa": {"bl": 10, "snp": 23, "ucode": 84}, "Turin": {}},
        "image": {"measurement_in": [hashlib.sha384(b"image").hexdigest()]},
    }


def boot_registers(tpm: Vtpm) -> dict[str, list[str]]:
    """The least that a rule demands of a virtual TPM: what its firmware started."""
    return {str(BOOT_PCR): [tpm.registers["sha256"][BOOT_PCR].hex()]}


@cache
def amd_of(now: int) -> Amd:
    """The AMD of all workers at this time."""
    return Amd("Genoa", now)


@cache
def chip_of(seed: str, now: int) -> Chip:
    """The chip under the worker of this name."""
    own = hashlib.sha512(f"chip of {seed}".encode()).digest()
    chip = amd_of(now).chip(hwid=own)
    return replace(chip, facts=replace(chip.facts, chip_id=own))


@cache
def intel_of(now: int) -> Intel:
    """The Intel of all workers at this time."""
    intel = Intel(now=now)
    intel.members()  # signs the certificates that all platforms then share
    return intel


def platform_of(intel: Intel, seed: str) -> Intel:
    """Another platform of the same Intel: changing its facts changes no other's."""
    made = copy.copy(intel)
    for name, value in vars(intel).items():
        if isinstance(value, dict | list) and not name.startswith("_"):
            setattr(made, name, copy.deepcopy(value))
    made.pck = replace(intel.pck, sgx=None)
    made.ppid = hashlib.sha256(f"platform of {seed}".encode()).digest()[:16]
    return made


@cache
def aws_of(now: int) -> NitroVendor:
    """The AWS of all workers at this time."""
    return NitroVendor(now)


def pem(der: bytes) -> str:
    """A certificate as policies and chains have it."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode("ascii")


def _without_none(roles: Mapping[str, bytes | None]) -> dict[str, bytes]:
    return {role: data for role, data in roles.items() if data is not None}

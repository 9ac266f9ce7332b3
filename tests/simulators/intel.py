"""A programmable Intel: CAs, platforms, quoting enclaves, TDs and enclaves, with real keys.

It signs what Intel signs (certificates with the SGX extension, CRLs, TCB info v3, QE identity v2)
and what a platform signs (QE reports, quotes v3, v4 and v5), under a root of its own. A verifier
sees what hardware would send it; a test changes one fact and expects one refusal:

    intel = Intel()                               # an up-to-date TDX platform, quote v4
    intel.body["report_data"] = bytes(64)         # before signing
    intel.revoked_pck.append(intel.pck.serial)    # on the next CRL
    question = intel.question()                   # evidence, collateral and pins, for `examine`

Facts are public attributes; `edits` change bytes after signing. Nothing here is random except keys,
and no clock is read: `now` is given. The root is pinned by `Anchors(…, simulated=True)`, so a
verdict that rests on it never says "hardware". Real vendor samples keep this simulator honest.
"""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.anchors import Anchors
from attestation.examined import Expected, Question

from .intel_parts import (
    DAY,
    Certificate,
    integer,
    key,
    name,
    octets,
    packed,
    pair,
    pem,
    point,
    raw_sign,
    sized,
    stamp,
    svns,
    tlv,
    wrapped,
)
from .intel_reports import ENCLAVE, EXTENSION, TD10, TD15, enclave, processor, td

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NOW = 1_750_000_000
ROOT, PLATFORM, PROCESSOR = (
    f"Intel SGX {name} CA" for name in ("Root", "PCK Platform", "PCK Processor")
)
SIGNER, PCK = "Intel SGX TCB Signing", "Intel SGX PCK Certificate"
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
# Who signed Intel's quoting enclaves, by TEE, and which product each is. These are Intel's own
# values: a verifier without collateral knows a quoting enclave by nothing else.
QUOTING_ENCLAVES = {
    "tdx": ("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5", 2),
    "sgx": ("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff", 1),
}


class Intel:
    """One platform and the Intel behind it.

    Attributes:
        root, platform_ca, tcb_signer, pck: certificates, leaf facts changeable.
        fmspc, pceid, ppid, components, pcesvn, configuration: what the PCK certificate says.
        revoked_pck, revoked_root: serials on the two CRLs; `crl_window`: (from, until) from now.
        version, tee: of the quote: 4 or 5 "tdx", 3 "sgx". header: its fields.
        body: name to bytes of the TD or enclave report; changed values are signed.
        qe_report: the quoting enclave's own report, without the key's hash.
        tcb_info, qe_identity: the objects Intel signs.
        attestation_key: signs quotes; `vouched_key`: what the QE report names, None for the same.
        edits: name to a function on bytes after signing: "quote", "tcb_info", "qe_identity",
            "tcb_info_signature", "qe_identity_signature", "pck_crl", "root_ca_crl", "cert_data".
        trailing: bytes after the quote.
    """

    def __init__(self, tee: str = "tdx", version: int | None = None, now: int = NOW) -> None:
        self.now, self.tee = now, tee
        self.version = version or (4 if tee == "tdx" else 3)
        self.root = Certificate(ROOT, key(), serial=11, end=9000 * DAY)
        self.platform_ca = Certificate(PLATFORM, key(), self.root, serial=12, path_length=0)
        self.tcb_signer = Certificate(SIGNER, key(), self.root, ca=False, serial=13)
        self.pck = Certificate(PCK, key(), self.platform_ca, ca=False, serial=14)
        self.fmspc, self.pceid = bytes.fromhex("90c06f000000"), bytes(2)
        self.ppid = hashlib.sha256(b"platform").digest()[:16]
        self.components, self.pcesvn = [4, 4, 2, 2, 4, 1, 0, 5, *[0] * 8], 13
        self.configuration: tuple[bool, bool, bool] | None = (True, True, True)
        self.pck_fields: dict[str, bytes] = {}
        self.revoked_pck: list[int] = []
        self.revoked_root: list[int] = []
        self.crl_window = (-DAY, 30 * DAY)
        self.crl_key: Any = None
        self.attestation_key = key()
        self.vouched_key: Any = None
        self.qe_auth = bytes(range(32))
        self.header: dict[str, int | bytes] = {
            "version": self.version, "key_type": 2, "tee": 0x81 if tee == "tdx" else 0,
            "qe_svn": 8, "pce_svn": 13, "vendor": VENDOR, "user_data": bytes(20),
        }  # fmt: skip
        signer, product = QUOTING_ENCLAVES[tee]
        self.qe_report = enclave(mrsigner=bytes.fromhex(signer), isvprodid=product, isvsvn=8)
        self.body = td(self.version) if tee == "tdx" else enclave()
        self.tcb_info = self._tcb_info()
        self.qe_identity = self._qe_identity()
        self.edits: dict[str, Callable[[bytes], bytes]] = {}
        self.trailing = b""

    # ---- what a verifier is given

    def question(self, expected: Expected | None = None, **roles: bytes) -> Question:
        """Everything `examine` takes; `roles` replace collateral."""
        return Question(
            evidence={"quote": self.quote()},
            anchors=self.anchors(),
            now=self.now,
            collateral={"collateral": self.collateral(), **roles},
            expected=expected or Expected(),
        )

    def anchors(self) -> Anchors:
        """The pin of this simulator's root."""
        return Anchors(frozenset({hashlib.sha256(self.root_der()).digest()}), simulated=True)

    def root_der(self) -> bytes:
        """The root certificate as it stands in every chain."""
        return self._once("root", self.root)

    def quote(self) -> bytes:
        """The signed quote."""
        signed = self.signed()
        named = point(self.vouched_key or self.attestation_key)
        report = {**self.qe_report}
        if "report_data" not in self.qe_report or not any(self.qe_report["report_data"]):
            report["report_data"] = hashlib.sha256(named + self.qe_auth).digest() + bytes(32)
        qe = packed(report, ENCLAVE)
        certified = (
            qe
            + raw_sign(self.pck.key, qe)
            + len(self.qe_auth).to_bytes(2, "little")
            + self.qe_auth
            + sized(5, self._edited("cert_data", self.pck_chain()))
        )
        if self.version != 3:
            certified = sized(6, certified)
        section = raw_sign(self.attestation_key, signed) + point(self.attestation_key) + certified
        quote = signed + len(section).to_bytes(4, "little") + section
        return self._edited("quote", quote) + self.trailing

    def signed(self) -> bytes:
        """Header and body, which the attestation key signs."""
        fields = self.header
        widths = (("version", 2), ("key_type", 2), ("tee", 4), ("qe_svn", 2), ("pce_svn", 2))
        raw = b"".join(int(fields[field]).to_bytes(width, "little") for field, width in widths)
        raw += bytes(fields["vendor"]) + bytes(fields["user_data"])  # type: ignore[arg-type]
        if self.tee != "tdx":
            body, kind = packed(self.body, ENCLAVE), 1
        elif "td_id" in self.body:
            body, kind = packed(self.body, (*TD15, *EXTENSION)), 4
        elif "mr_service_td" in self.body:
            body, kind = packed(self.body, TD15), 3
        else:
            body, kind = packed(self.body, TD10), 2
        return raw + (sized(kind, body) if self.version == 5 else body)

    def pck_chain(self) -> bytes:
        """The PCK chain in PEM with its closing NUL, as quoting enclaves embed it."""
        self.pck.sgx = self.pck.sgx or self.sgx_extension()
        chain = (self._once("pck", self.pck), self._once("ca", self.platform_ca), self.root_der())
        return pem(*chain) + b"\0"

    def members(self) -> dict[str, str]:
        """The nine members of the collateral."""
        issuers = self.statement_chain()
        tcb_info, tcb_signature = self.statement("tcb_info", self.tcb_info)
        identity, identity_signature = self.statement("qe_identity", self.qe_identity)
        ca, root = self.platform_ca, self.root
        return {
            "pck_crl_issuer_chain": pem(self._once("ca", ca), self.root_der()).decode(),
            "root_ca_crl": self._edited("root_ca_crl", self.crl(root, self.revoked_root)).hex(),
            "pck_crl": self._edited("pck_crl", self.crl(ca, self.revoked_pck)).hex(),
            "tcb_info_issuer_chain": issuers,
            "tcb_info": tcb_info.decode(),
            "tcb_info_signature": tcb_signature.hex(),
            "qe_identity_issuer_chain": issuers,
            "qe_identity": identity.decode(),
            "qe_identity_signature": identity_signature.hex(),
        }

    def statement_chain(self) -> str:
        """The issuer chain of the two statements, PEM."""
        return pem(self._once("signer", self.tcb_signer), self.root_der()).decode()

    def collateral(self, **members: str) -> bytes:
        """The collateral as one JSON document; `members` replace some."""
        return json.dumps({**self.members(), **members}).encode()

    def roles(self) -> dict[str, bytes]:
        """The same collateral as Intel's service sends it, one role a part."""
        held = self.members()
        return {
            "tcb_info": wrapped("tcbInfo", held["tcb_info"], held["tcb_info_signature"]),
            "qe_identity": wrapped(
                "enclaveIdentity", held["qe_identity"], held["qe_identity_signature"]
            ),
            "tcb_sign_chain": held["tcb_info_issuer_chain"].encode(),
            "pck_sign_chain": held["pck_crl_issuer_chain"].encode(),
            "pck_crl": bytes.fromhex(held["pck_crl"]),
            "root_crl": bytes.fromhex(held["root_ca_crl"]),
        }

    def statement(self, edit: str, obj: dict[str, Any]) -> tuple[bytes, bytes]:
        """A signed JSON text and its signature."""
        text = json.dumps(obj, separators=(",", ":")).encode()
        signature = raw_sign(self.tcb_signer.key, text)
        return self._edited(edit, text), self._edited(f"{edit}_signature", signature)

    def crl(
        self,
        issuer: Certificate,
        serials: Iterable[int],
        *more: tuple[x509.ExtensionType, bool],
        entry: tuple[tuple[x509.ExtensionType, bool], ...] = (),
        hashed: hashes.HashAlgorithm | None = None,
    ) -> bytes:
        """A CRL of one issuer, DER; `more` and `entry` are extensions of it and of its entries."""
        begin, end = self.crl_window
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name(issuer.cn))
            .last_update(datetime.fromtimestamp(self.now + begin, UTC))
            .next_update(datetime.fromtimestamp(self.now + end, UTC))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
                critical=False,
            )
        )
        for extension, critical in more:
            builder = builder.add_extension(extension, critical=critical)
        for serial in serials:
            revoked = (
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(datetime.fromtimestamp(self.now + begin, UTC))
            )
            for extension, critical in entry:
                revoked = revoked.add_extension(extension, critical=critical)
            builder = builder.add_revoked_certificate(revoked.build())
        signed = builder.sign(self.crl_key or issuer.key, hashed or hashes.SHA256())
        return signed.public_bytes(Encoding.DER)

    def sgx_extension(self) -> bytes:
        """The PCK certificate's SGX extension, DER; `pck_fields` replace values by OID tail."""
        tcb = b"".join(
            pair(f"2.{index}", integer(value))
            for index, value in enumerate([*self.components, self.pcesvn], 1)
        ) + pair("2.18", octets(bytes(self.components)))
        values = {
            "1": octets(self.ppid),
            "2": tlv(0x30, tcb),
            "3": octets(self.pceid),
            "4": octets(self.fmspc),
            "5": tlv(0x0A, b"\x01"),
        }
        if self.configuration is not None:
            flags = b"".join(
                pair(f"7.{index}", tlv(0x01, b"\xff" if flag else b"\x00"))
                for index, flag in enumerate(self.configuration, 1)
            )
            values |= {"6": octets(bytes(16)), "7": tlv(0x30, flags)}
        values |= self.pck_fields
        return tlv(0x30, b"".join(pair(tail, value) for tail, value in values.items()))

    def processor(self) -> Intel:
        """The platform's certificate comes from the processor CA instead, without configuration."""
        self.platform_ca.cn, self.configuration = PROCESSOR, None
        return self

    def extended(self) -> Intel:
        """The TD's module writes extended reports: no service TD, begun on this platform."""
        self.body |= {field: bytes(size) for field, size in EXTENSION}
        self.body["td_id"] = hashlib.sha256(b"this TD").digest()
        self.body["init_cpu_svn"] = bytes(self.components)
        self.body["init_tee_tcb_svn"] = self.body["tee_tcb_svn"]
        self.body["init_tee_fmspc"] = processor(self.fmspc)
        return self

    # ---- honest facts

    def _tcb_info(self) -> dict[str, Any]:
        newest = {
            "tcb": {"sgxtcbcomponents": svns(self.components), "pcesvn": self.pcesvn},
            "tcbDate": "2024-11-13T00:00:00Z",
            "tcbStatus": "UpToDate",
        }
        older = deepcopy(newest)
        older["tcb"] = {"sgxtcbcomponents": svns([3, 3, *self.components[2:]]), "pcesvn": 11}
        older |= {
            "tcbDate": "2023-08-09T00:00:00Z",
            "tcbStatus": "OutOfDate",
            "advisoryIDs": ["INTEL-SA-00960"],
        }
        info: dict[str, Any] = {
            "id": self.tee.upper(),
            "version": 3,
            "issueDate": stamp(self.now - DAY),
            "nextUpdate": stamp(self.now + 29 * DAY),
            "fmspc": self.fmspc.hex(),
            "pceId": self.pceid.hex(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": 18,
            "tcbLevels": [newest, older],
        }
        if self.tee == "tdx":
            newest["tcb"]["tdxtcbcomponents"] = svns([11, 0, 4, *[0] * 13])
            older["tcb"]["tdxtcbcomponents"] = svns([3, 0, 3, *[0] * 13])
            base = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            levels = [
                {"tcb": {"isvsvn": 11}, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": "UpToDate"},
                {"tcb": {"isvsvn": 3}, "tcbDate": "2023-08-09T00:00:00Z", "tcbStatus": "OutOfDate"},
            ]
            info["tdxModule"] = base
            info["tdxModuleIdentities"] = [{"id": "TDX_01", **base, "tcbLevels": levels}]
        return info

    def _qe_identity(self) -> dict[str, Any]:
        return {
            "id": "TD_QE" if self.tee == "tdx" else "QE",
            "version": 2,
            "issueDate": stamp(self.now - DAY),
            "nextUpdate": stamp(self.now + 29 * DAY),
            "tcbEvaluationDataNumber": 18,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": QUOTING_ENCLAVES[self.tee][0].upper(),
            "isvprodid": QUOTING_ENCLAVES[self.tee][1],
            "tcbLevels": [
                {"tcb": {"isvsvn": 8}, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": "UpToDate"},
                {
                    "tcb": {"isvsvn": 6},
                    "tcbDate": "2021-11-10T00:00:00Z",
                    "tcbStatus": "OutOfDate",
                    "advisoryIDs": ["INTEL-SA-00615"],
                },
            ],
        }

    def _edited(self, edit: str, data: bytes) -> bytes:
        return self.edits.get(edit, bytes)(data)

    def _once(self, role: str, certificate: Certificate) -> bytes:
        """ECDSA is randomised: a certificate stays one until a fact of it changes."""
        facts = (role, repr(certificate.__dict__))
        held: dict[Any, bytes] = self.__dict__.setdefault("_certificates", {})
        if facts not in held:
            held[facts] = certificate.der(self.now)
        return held[facts]

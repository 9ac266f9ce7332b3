"""What a signature does not stop: simulated vendors sign the mutated statement.

A broken firmware, or an attacker inside a vendor, signs nonsense; and a change that no signature
catches reaches the checks behind it. Every other step is honest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from simulators import intel, intel_parts, nitro, nras, vtpm
from simulators.corim import CorimPublisher
from simulators.hcl import Paravisor
from simulators.tokens import Issuer
from simulators.tpm import sign_quote

from attestation.anchors import NONE
from attestation.examined import Expected, Question
from fuzz.seeds import EAR_CLAIMS, NONCE, Seed, amd_chip, nvidia_vendor, simulated
from wire.ids import b64u, unb64u

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from simulators.nvidia_device import Device


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement and how a question is made of it.

    Attributes:
        seed: the honest statement.
        question: the examination of a mutated one.
    """

    seed: Seed
    question: Callable[[Mapping[str, bytes]], Question]


def _snp() -> Signed:
    honest, chip = simulated("amd-sev-snp-report")[0], amd_chip()

    def question(roles: Mapping[str, bytes]) -> Question:
        raw = roles.get("", b"")[:672].ljust(672, b"\0")
        return replace(honest, evidence={**honest.evidence, "report": chip.sign(raw)})

    return Signed(_seed(honest.evidence["report"][:672]), question)


def _seed(raw: bytes) -> Seed:
    return Seed({"": raw})


def _tdx(version: int, extended: bool = False) -> Signed:
    vendor = intel.Intel("tdx", version)
    if extended:
        vendor.extended()
    honest, signed = vendor.question(), vendor.signed()
    rest = honest.evidence["quote"][len(signed) + 68 :]
    length = honest.evidence["quote"][len(signed) : len(signed) + 4]

    def question(roles: Mapping[str, bytes]) -> Question:
        raw = roles.get("", b"")
        signature = intel_parts.raw_sign(vendor.attestation_key, raw)
        return replace(honest, evidence={"quote": raw + length + signature + rest})

    return Signed(_seed(signed), question)


def _tcb(role: str, member: str) -> Signed:
    vendor = intel.Intel()
    roles, quote = vendor.roles(), vendor.quote()
    honest = Question({"quote": quote}, vendor.anchors(), vendor.now, roles)

    def question(changed: Mapping[str, bytes]) -> Question:
        text = changed.get("", b"")
        signature = intel_parts.raw_sign(vendor.tcb_signer.key, text).hex().encode()
        made = b'{"%s":%s,"signature":"%s"}' % (member.encode(), text, signature)
        return replace(honest, collateral={**roles, role: made})

    return Signed(_seed(vendor.members()[role].encode()), question)


def _pck() -> Signed:
    vendor = intel.Intel()

    def question(roles: Mapping[str, bytes]) -> Question:
        vendor.pck.sgx = roles.get("", b"")
        vendor.__dict__.pop("_certificates", None)  # each certificate is made once, and kept
        return vendor.question()

    return Signed(_seed(vendor.sgx_extension()), question)


def _nitro() -> Signed:
    vendor = nitro.NitroVendor(1_790_000_000)
    enclave = nitro.NitroEnclave(vendor, nonce=NONCE, user_data=bytes(64))
    payload = enclave.encode(enclave.payload())

    def question(roles: Mapping[str, bytes]) -> Question:
        protected, raw = roles.get("protected", b""), roles.get("payload", b"")
        document = enclave.envelope(protected, raw, enclave.sign(protected, raw))
        return Question({"document": document}, vendor.anchors, vendor.now)

    seed = Seed({"payload": payload, "protected": b"\xa1\x01\x38\x22"})
    return Signed(seed, question)


def _gpu() -> Signed:
    vendor = nvidia_vendor()
    device: Device = vendor.gpu()
    honest, chain = device.exchange(NONCE), device.chain()
    expected = Expected(nonce=NONCE, arch="HOPPER")

    def question(roles: Mapping[str, bytes]) -> Question:
        device.edit = lambda _: roles.get("", b"")
        evidence = {"evidence": device.report(NONCE), "cert_chain": chain}
        return Question(evidence, vendor.anchors, vendor.now, expected=expected)

    return Signed(_seed(honest), question)


def _token() -> Signed:
    issuer = Issuer("ES256")
    keys = {"jwks": issuer.jwks()}

    def question(roles: Mapping[str, bytes]) -> Question:
        token = _compact(issuer, roles.get("header", b""), roles.get("claims", b""))
        return Question({"token": token}, NONE, 1_790_000_001, keys)

    seed = Seed(
        {
            "header": json.dumps(issuer.header()).encode(),
            "claims": json.dumps(dict(EAR_CLAIMS)).encode(),
        }
    )
    return Signed(seed, question)


def _bundle() -> Signed:
    service = nras.NrasService()
    keys = {"jwks": service.jwks()}
    device = service.device_tokens(NONCE)
    overall = service.overall_token(NONCE, device)

    def question(roles: Mapping[str, bytes]) -> Question:
        header = json.dumps(service.issuer.header()).encode()
        tokens = {
            name: _compact(service.issuer, header, roles.get("device", b"")).decode()
            for name in device
        }
        claims = roles.get("overall", b"")
        for name, token in tokens.items():  # signatures differ each time, and digests with them
            claims = claims.replace(_digest(device[name]), _digest(token))
        signed = _compact(service.issuer, header, claims).decode()
        raw = json.dumps([["JWT", signed], tokens]).encode()
        return Question({"eat": raw}, NONE, service.now + 1, keys)

    claims = {"overall": _claims(overall), "device": _claims(next(iter(device.values())))}
    return Signed(Seed(claims), question)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).hexdigest().encode()


def _claims(token: str) -> bytes:
    return unb64u(token.split(".")[1])


def _compact(issuer: Issuer, header: bytes, claims: bytes) -> bytes:
    head = f"{b64u(header)}.{b64u(claims)}"
    return f"{head}.{b64u(issuer.raw_signature(head.encode()))}".encode()


def _corim() -> Signed:
    publisher = CorimPublisher()
    honest = simulated("corim")[0]
    keys = {"public_key": publisher.public_key}

    def question(roles: Mapping[str, bytes]) -> Question:
        return Question({"corim": publisher.signed(roles.get("", b""))}, NONE, honest.now, keys)

    return Signed(_seed(publisher.unsigned()), question)


def _quote() -> Signed:
    maker = vtpm.VtpmMaker()
    tpm = vtpm.Vtpm(maker)
    honest = tpm.evidence()

    def question(roles: Mapping[str, bytes]) -> Question:
        raw = roles.get("quote_msg", b"")
        changed = {**honest, **roles, "quote_msg": raw, "quote_sig": sign_quote(tpm.key, raw)}
        return maker.question(changed)

    seed = Seed({"quote_msg": honest["quote_msg"], "pcrs": honest["pcrs"]})
    return Signed(seed, question)


def _hcl() -> Signed:
    honest, chip = simulated("azure-vtpm-snp")[0], amd_chip()
    raw = honest.evidence["hcl_report"]

    def question(roles: Mapping[str, bytes]) -> Question:
        """The processor's report names whatever variable data there are."""
        vm = Paravisor(chip.report)
        changed = vm.hcl_report(variable=roles.get("", b"")[:1300])
        return replace(honest, evidence={**honest.evidence, "hcl_report": changed})

    end = raw.index(b"\0", 32 + 1184 + 20)
    return Signed(_seed(raw[32 + 1184 + 20 : end]), question)


#: Evidence kind and what is signed.
SIGNED: Final[Mapping[tuple[str, str], Callable[[], Signed]]] = {
    ("amd-sev-snp-report", "report"): _snp,
    ("intel-tdx-quote", "quote v4"): lambda: _tdx(4),
    ("intel-tdx-quote", "quote v5"): lambda: _tdx(5),
    ("intel-tdx-quote", "quote extended"): lambda: _tdx(5, extended=True),
    ("intel-tdx-quote", "tcb info"): lambda: _tcb("tcb_info", "tcbInfo"),
    ("intel-tdx-quote", "qe identity"): lambda: _tcb("qe_identity", "enclaveIdentity"),
    ("intel-tdx-quote", "pck extension"): _pck,
    ("aws-nitro-document", "payload"): _nitro,
    ("nvidia-gpu-spdm", "report"): _gpu,
    ("ear-jwt", "token"): _token,
    ("nvidia-nras-eat", "tokens"): _bundle,
    ("corim", "manifest"): _corim,
    ("tpm2-quote", "quote"): _quote,
    ("azure-vtpm-snp", "variable data"): _hcl,
}

"""The parsers of evidence and of what vendors sign, each on its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from simulators import intel, nvidia_device, snp_report
from simulators.tokens import Issuer

from attestation.formats import (
    amd_certificate,
    azure,
    cc_event_log,
    certificate_table,
    corim,
    cose,
    dcap_bodies,
    dcap_quote,
    detached_eat,
    ear,
    gpu_list,
    hcl_report,
    intel_collateral,
    intel_statements,
    jose,
    jwks,
    nitro,
    nvidia_chain,
    pck,
    pem,
    rim,
    snp,
    spdm,
    tcg_event_log,
    tpm_attestation,
    tpm_quote,
    tpm_registers,
    tpm_structures,
)
from attestation.formats.cbor import Dialect, decode
from attestation.reference_values import reference_values
from attestation.replay import replay_all, replay_rtmrs
from attestation.verify.crl import check_crl, load_crl
from attestation.verify.ocsp import check_paths, load_response
from attestation.verify.rim import verify_manifest
from attestation.verify.signing_key import load_key
from attestation.verify.x509 import load_certificate, verify_chain
from fuzz.seeds import (
    EAR_CLAIMS,
    Seed,
    amd_chip,
    amd_vendor,
    boot_log,
    cc_log,
    nvidia_vendor,
    pieces,
    questions,
)
from fuzz.target import Target
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TWO = (MalformedError, AttestationError)
_ONE = (MalformedError,)
_CBOR = Dialect("fuzz", 64 * 1024, 8, 1024, frozenset({1, 18, 32}), indefinite_maps=True)
_CERTIFICATES: Final = (
    "endorsement_cert", "ca", "root", "vcek", "intermediate", "ak_cert", "pck_cert",
)  # fmt: skip


def _one(
    name: str,
    seeds: Callable[[], Sequence[Seed]],
    read: Callable[[bytes], object],
    errors: tuple[type[Exception], ...] = _ONE,
    words: tuple[bytes, ...] = (),
) -> Target:
    def run(roles: Mapping[str, bytes], context: Any) -> bool:
        del context
        read(roles[""])
        return True

    return Target(name, seeds, run, errors, words)


def _roles(
    name: str, kind: str, read: Callable[[Mapping[str, bytes]], object], side: str = "evidence"
) -> Target:
    def run(roles: Mapping[str, bytes], context: Any) -> bool:
        del context
        read(roles)
        return True

    return Target(
        name, lambda: [Seed(dict(getattr(question, side))) for question in questions(kind)], run,
        _ONE,
    )  # fmt: skip


def _from(*roles: str) -> Callable[[], Sequence[Seed]]:
    return lambda: [seed for role in roles for seed in pieces(role)]


def _made(*makers: Callable[[], bytes]) -> Callable[[], Sequence[Seed]]:
    return lambda: [Seed({"": make()}) for make in makers]


def _certificates() -> list[Seed]:
    """DER of certificates of every vendor; PEM ones are taken apart."""
    found: dict[bytes, None] = {}
    for seed in _from(*_CERTIFICATES, "cert_chain")():
        for der in pem.certificates(seed.roles[""].rstrip(b"\0"), "seed"):
            found.setdefault(der)
    vendor = intel.Intel()
    for der in pem.certificates(vendor.pck_chain().rstrip(b"\0"), "seed"):
        found.setdefault(der)
    for question in questions("aws-nitro-document"):
        document = nitro.parse_document(question.evidence["document"])
        found.setdefault(document.certificate)
        found.update(dict.fromkeys(document.cabundle))
    return [Seed({"": der}) for der in found]


def _chains() -> list[Seed]:
    amd = amd_vendor()
    return [
        Seed({"leaf": ders[0], "issuer": ders[1], "root": ders[2]}, nvidia_vendor().now)
        for seed in _from("cert_chain")()
        if len(ders := pem.certificates(seed.roles[""].rstrip(b"\0"), "seed")) > 2
    ] + [Seed({"leaf": amd_chip().cert, "issuer": amd.ask, "root": amd.root}, amd.now)]


def _verify_chain(roles: Mapping[str, bytes], context: Any) -> bool:
    parts = [roles.get(role, b"") for role in ("leaf", "issuer", "root")]
    verify_chain(parts[0], [parts[1]], [parts[2]], context)
    return True


def _with_crl() -> list[Seed]:
    vendor = intel.Intel()
    vendor.revoked_pck.extend((5, 6, 7))
    roles = vendor.roles()
    ca = load_certificate(pem.certificates(roles["pck_sign_chain"], "seed")[0])
    root = load_certificate(vendor.root_der())
    amd = amd_vendor()
    ark = load_certificate(amd.root)
    seeds = [
        Seed({"": roles["pck_crl"]}, (ca, vendor.now)),
        Seed({"": roles["root_crl"]}, (root, vendor.now)),
        Seed({"": amd.crl((1, 2), reason=x509.ReasonFlags.key_compromise)}, (ark, amd.now)),
    ]
    return seeds + [Seed(s.roles, (ark, amd.now)) for s in _from("crl", "root_crl", "pck_crl")()]


def _crl(roles: Mapping[str, bytes], context: Any) -> bool:
    issuer, now = context
    load_crl(roles[""])
    check_crl(roles[""], issuer, [issuer], now)
    return True


def _with_ocsp() -> list[Seed]:
    vendor = nvidia_vendor()
    device = vendor.gpu()
    path = [authority.certificate for authority in device.certificates()]
    responder = vendor.responder(vendor.icas[device.chip])
    answers = [*vendor.revocation(device), *vendor.revocation(device, bytes(32))]
    answers.append(
        vendor.ocsp(device.brom, vendor.icas[device.chip], delegated=responder, by_name=True)
    )
    return [Seed({"": answer}, (path, vendor.now)) for answer in answers]


def _ocsp(roles: Mapping[str, bytes], context: Any) -> bool:
    path, now = context
    response = load_response(roles[""])
    check_paths([response], [path], now)
    check_paths([response], [path], now, bytes(32))
    return True


def _manifests() -> list[Seed]:
    vendor = nvidia_vendor()
    device = vendor.gpu(blocks=8)
    return [Seed({"": vendor.manifest(device, what)}) for what in ("driver", "vbios")]


def _manifest(roles: Mapping[str, bytes], context: Any) -> bool:
    del context
    vendor = nvidia_vendor()
    verify_manifest(roles[""], vendor.anchors, vendor.now)
    return True


def _endorsement(der: bytes) -> None:
    key = amd_certificate.parse_endorsement(load_certificate(der))
    key.claims()
    _ = key.product


def _report(raw: bytes) -> None:
    report = snp.parse_report(raw)
    for product in snp.PRODUCTS:
        report.claims(product)
        snp.decode_tcb(raw[384:392], product)


def _tokens() -> list[Seed]:
    found: list[bytes] = [seed.roles[""] for seed in _from("token")()]
    found += [Issuer(alg).sign(dict(EAR_CLAIMS)).encode() for alg in ("RS256", "ES512")]
    return [Seed({"": token}) for token in found]


def _token(raw: bytes) -> None:
    token = jose.parse_token(raw)
    for name in ("exp", "nbf", "iat"):
        jose.time_claim(token.claims, name)
    jose.text_claim(token.claims, "iss")


def _results() -> list[Seed]:
    return [Seed({"": json.dumps(EAR_CLAIMS).encode()})]


def _result(raw: bytes) -> None:
    try:
        claims = json.loads(raw)
    except (ValueError, RecursionError):
        return
    if isinstance(claims, dict):
        ear.parse_result(claims)


def _keys(raw: bytes) -> None:
    found = jwks.parse_keys(raw)
    for key in found.keys:
        load_key(key)


def _key_seeds() -> list[Seed]:
    algorithms = ("ES256", "ES384", "ES512", "EdDSA", "PS384")
    made = [Seed({"": Issuer(algorithm).jwks()}) for algorithm in algorithms]
    return [*made, *_from("jwks")()]


def _corim(raw: bytes) -> None:
    manifest = corim.parse_manifest(raw)
    try:
        reference_values(manifest)
    except AttestationError:
        return


def _cbor(raw: bytes) -> None:
    cose.parse_sign1(decode(raw, _CBOR), _CBOR)


def _log(raw: bytes) -> None:
    replay_all(tcg_event_log.parse_event_log(raw))


def _cc(raw: bytes) -> None:
    replay_rtmrs(cc_event_log.parse_cc_event_log(raw))


def _quotes() -> list[Seed]:
    quotes = [s for s in _from("quote_msg")() if s.roles[""][:1] == b"\xff"]
    return quotes + list(_from("quote_sha1", "quote_sha256")())


def _messages() -> list[Seed]:
    """Serialised attestations exist among samples only; else a hand-made one."""
    found = list(pieces("attestation_pb", "tpm2-quote"))
    quote, sig = (pieces(role, "tpm2-quote")[0].roles[""] for role in ("quote_msg", "quote_sig"))
    registers = b"\x08\x0b" + protobuf_field(2, protobuf_field(2, bytes(32)))
    made = protobuf_field(1, bytes(64)) + protobuf_field(
        2, protobuf_field(1, quote) + protobuf_field(2, sig) + protobuf_field(3, registers)
    )
    made += protobuf_field(3, boot_log().encode())
    return [*found, Seed({"": made})]


def protobuf_field(number: int, data: bytes) -> bytes:
    """A protocol buffer's field of bytes."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _enclaves() -> list[Seed]:
    quotes = pieces("quote", "intel-sgx-quote")
    return [Seed({"": seed.roles[""][48:432]}) for seed in quotes]


def _trust_domains() -> list[Seed]:
    """Reports of every version; a quote of version 5 says before its report how long that is."""
    found: list[Seed] = []
    for seed in pieces("quote", "intel-tdx-quote"):
        quote = seed.roles[""]
        end = 54 + int.from_bytes(quote[50:54], "little")
        found.append(Seed({"": quote[54:end] if quote[0] == 5 else quote[48:632]}))
    return found


def _table() -> bytes:
    amd = amd_vendor()
    ders = (amd_chip().cert, amd.ask, amd.root)
    entries = dict(zip(("vcek", "ask", "ark"), ders, strict=True))
    return snp_report.table(entries)


def _intel_parts(role: str, member: str) -> Callable[[], Sequence[Seed]]:
    def found() -> list[Seed]:
        texts = [json.loads(seed.roles[""])[member].encode() for seed in _from("collateral")()]
        return [Seed({"": text}) for text in texts]

    del role
    return found


PARSERS: Final = (
    _one("pem", _from(*_CERTIFICATES, "cert_chain", "pck_sign_chain"),
         lambda raw: pem.certificates(raw, "fuzz")),
    _one("certificate", _certificates, load_certificate, (AttestationError,)),
    Target("certificate chain", _chains, _verify_chain, (AttestationError,)),
    Target("crl", _with_crl, _crl, (AttestationError,)),
    Target("ocsp", _with_ocsp, _ocsp, (AttestationError,)),
    Target("rim signed", _manifests, _manifest, _TWO),
    _one("rim document", _manifests, rim.parse_document),
    _one("rim manifest", _manifests, rim.parse_manifest),
    _one("amd certificate", _from("endorsement_cert", "vcek"), _endorsement, _TWO),
    _one("amd certificate table", _made(_table), certificate_table.parse_table),
    _one("snp report", _from("report"), _report),
    _one("dcap quote", lambda: pieces("quote", "intel-tdx-quote", "intel-sgx-quote"),
         dcap_quote.parse_quote),
    _one("sgx enclave report", _enclaves, lambda raw: dcap_bodies.parse_enclave_report(raw, "f")),
    _one("tdx td report", _trust_domains, dcap_bodies.parse_td_report),
    _one("pck chain", _made(lambda: intel.Intel().pck_chain()),
         lambda raw: pck.parse_chain(raw, "fuzz")),
    _one("pck certificate", lambda: [s for s in _certificates() if b"SGX" in s.roles[""]],
         lambda raw: pck.parse_pck(raw).claims()),
    _roles("intel collateral", "intel-tdx-quote", intel_collateral.parse_collateral, "collateral"),
    _one("intel tcb info", _intel_parts("collateral", "tcb_info"),
         intel_statements.parse_tcb_info),
    _one("intel qe identity", _intel_parts("collateral", "qe_identity"),
         intel_statements.parse_qe_identity),
    _one("nitro document", _from("document"), nitro.parse_document),
    _one("cbor", lambda: [*pieces("document"), *pieces("corim")], _cbor),
    _one("corim", _from("corim", "comid"), _corim),
    _one("spdm report", lambda: pieces("evidence", "nvidia-gpu-spdm", "nvidia-nvswitch-spdm"),
         spdm.parse_report),
    _one("nvidia chain", _from("cert_chain"), nvidia_chain.parse_chain),
    _one("nvidia list",
         lambda: [*pieces("evidence_list"),
                  Seed({"": nvidia_device.listing([nvidia_vendor().gpu()], bytes(32))})],
         gpu_list.parse_list),
    _one("hcl report", _from("hcl_report"), lambda raw: hcl_report.parse_hcl_report(raw).claims()),
    _roles("azure snp", "azure-vtpm-snp", lambda roles: azure.parse_azure(roles, "SEV-SNP")),
    _roles("azure tdx", "azure-vtpm-tdx", lambda roles: azure.parse_azure(roles, "TDX")),
    _roles("tpm quotes", "tpm2-quote", tpm_quote.parse_tpm_quotes),
    _one("tpm quote", _quotes, tpm_structures.parse_quote),
    _one("tpm signature", _from("quote_sig", "sig_sha256"), tpm_structures.parse_any_signature),
    _one("tpm public", _from("ak_public"), tpm_structures.parse_public_area),
    _one("tpm registers", _from("pcrs"), tpm_registers.parse_registers),
    _one("tpm attestation message", _messages, tpm_attestation.parse_attestation),
    _one("tcg event log", lambda: [*pieces("event_log", "tcg-event-log", "tpm2-quote"),
                                   Seed({"": boot_log().encode()})], _log),
    _one("cc event log", lambda: [*pieces("event_log", "cc-event-log"),
                                  Seed({"": cc_log().encode()})], _cc),
    _one("jwt", _tokens, _token),
    _one("jwks", _key_seeds, _keys, _TWO, words=(b"kty", b"RSA", b"EC", b"OKP", b"P-521", b"x5c")),
    _one("detached eat", _from("eat"), detached_eat.parse_bundle),
    _one("ear result", _results, _result),
)  # fmt: skip

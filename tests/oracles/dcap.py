"""A slow, independent DCAP quote verification, on `cryptography` and `struct` alone.

It shares no code with the library or with `dcap-qvl`, and exists to disagree with them. It says
whether a quote is genuine (`Rejected` if not) and the converged TCB status; state is not judged.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtensionOID

SGX = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
SKEW = timedelta(seconds=120)
UNDERSTOOD = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE}
PARTIAL = {ExtensionOID.DELTA_CRL_INDICATOR, ExtensionOID.ISSUING_DISTRIBUTION_POINT}
RESERVED = ((20, 32), (96, 128), (160, 192), (262, 304))
OLD = ("OutOfDate", "OutOfDateConfigurationNeeded")
ORDER = (
    "UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
    "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded", *OLD, "Revoked",
)  # fmt: skip

STATUSES = {status for status in ORDER if "Relaunch" not in status}
QE_STATUSES = {status for status in STATUSES if "Hardening" not in status}


class Rejected(Exception):  # noqa: N818 -- it names a verdict
    """The quote is not genuine, or its platform has no level."""


@dataclass
class Verdict:
    """A genuine quote's TCB."""

    status: str
    platform: str
    module: str | None
    qe: str
    advisories: set[str]


def verify(quote: bytes, collateral: dict[str, str], root: bytes, now: int) -> Verdict:
    """The verdict on a quote under one root (DER) at one time."""
    try:
        return _verify(quote, collateral, x509.load_der_x509_certificate(root), now)
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        StopIteration,
        struct.error,
        InvalidSignature,
        UnsupportedAlgorithm,
        x509.ExtensionNotFound,
    ) as cause:
        raise Rejected(f"{type(cause).__name__}: {cause}") from cause


def _verify(quote: bytes, collateral: dict[str, str], root: x509.Certificate, now: int) -> Verdict:
    at = datetime.fromtimestamp(now, UTC)
    version, key_type, tee, _, _, vendor = struct.unpack_from("<HHIHH16s", quote)
    _need(key_type == 2 and vendor.hex() == "939a7233f79c4ca9940a0db3957f0607", "header")
    start, size = 48, 384
    if version == 5:
        kind, size = struct.unpack_from("<HI", quote, 48)
        _need((kind, size) in ((2, 584), (3, 648), (4, 885)) and tee == 0x81, "body")
        start = 54
    elif version == 4:
        _need(tee == 0x81, "tee")
        size = 584
    else:
        _need(version == 3 and tee == 0, "version")
    body, end = quote[start : start + size], start + size
    (length,) = struct.unpack_from("<I", quote, end)
    section, rest = quote[end + 4 : end + 4 + length], quote[end + 4 + length :]
    _need(len(section) == length and not any(rest), "section")
    signature, attestation_key, certified = section[:64], section[64:128], section[128:]
    if version > 3:
        kind, length = struct.unpack_from("<HI", certified)
        _need(kind == 6 and len(certified) == 6 + length, "type 6")
        certified = certified[6:]
    report, report_signature = certified[:384], certified[384:448]
    (auth_length,) = struct.unpack_from("<H", certified, 448)
    auth = certified[450 : 450 + auth_length]
    kind, length = struct.unpack_from("<HI", certified, 450 + auth_length)
    pem = certified[456 + auth_length :]
    _need(kind == 5 and len(pem) == length, "type 5")

    text = pem.rstrip(b"\0").decode("ascii")
    between = re.split(r"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----", text)
    _need(not "".join(between).strip(), "text around certificates")
    pck, ca, *above = x509.load_pem_x509_certificates(text.encode())
    _need(above in ([], [root]), "root")
    named = x509.load_pem_x509_certificates(collateral["pck_crl_issuer_chain"].encode())
    _need(named in ([ca], [ca, root]), "PCK CRL issuer")
    lists = [bytes.fromhex(collateral[name]) for name in ("root_ca_crl", "pck_crl")]
    root_crl, pck_crl = (x509.load_der_x509_crl(crl) for crl in lists)
    for crl, issuer in ((root_crl, root), (pck_crl, ca)):
        _need(crl.issuer == issuer.subject and crl.is_signature_valid(_key(issuer)), "crl")
        _need(issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign, "crl sign")
        until = crl.next_update_utc
        _need(until is not None and crl.last_update_utc - SKEW <= at < until, "crl window")
        _need(isinstance(crl.signature_hash_algorithm, hashes.SHA256), "crl hash")
        found = {extension.oid for extension in crl.extensions}
        _need(not found & PARTIAL, "part of a crl")
        marked = [item.critical for entry in crl for item in entry.extensions]
        _need(not any(marked + [item.critical for item in crl.extensions]), "crl condition")
    _chain(pck, ca, at, 0)
    _chain(ca, root, at, 1)
    _understood(root)
    _need(root.not_valid_before_utc <= at <= root.not_valid_after_utc, "root window")
    _need(_listed(root_crl, ca) is None and _listed(pck_crl, pck) is None, "revoked")
    _need(_listed(root_crl, root) is None, "root revoked")

    statements = []
    for name, chain in (
        ("tcb_info", "tcb_info_issuer_chain"),
        ("qe_identity", "qe_identity_issuer_chain"),
    ):
        signer, *issuers = x509.load_pem_x509_certificates(collateral[chain].encode())
        _need(issuers == [root], "statement issuer")
        _chain(signer, root, at, 0)
        _need(_listed(root_crl, signer) is None, "signer revoked")
        _need(signer.subject.rfc4514_string().endswith("CN=Intel SGX TCB Signing"), "signer")
        _check(_key(signer), bytes.fromhex(collateral[f"{name}_signature"]), collateral[name])
        found = json.loads(collateral[name])
        issued, ends = _time(found["issueDate"]), _time(found["nextUpdate"])
        _need(issued - SKEW <= at <= ends, "statement window")
        known = STATUSES if name == "tcb_info" else QE_STATUSES
        _need(all(level["tcbStatus"] in known for level in found["tcbLevels"]), "status")
        statements.append(found)
    info, identity = statements

    _check(_key(pck), report_signature, report)
    _need(not any(report[i] for start, end in RESERVED for i in range(start, end)), "reserved")
    _need(report[320:384] == hashlib.sha256(attestation_key + auth).digest() + bytes(32), "key")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + attestation_key)
    _check(public, signature, quote[:end])

    components, pcesvn, fmspc, pceid = _platform(pck)
    _need(info["version"] == 3 and info["id"] == ("TDX" if tee else "SGX"), "tee of TCB info")
    _need(info["fmspc"].lower() == fmspc and info["pceId"].lower() == pceid, "fmspc")
    _need(identity["version"] == 2 and identity["id"] == ("TD_QE" if tee else "QE"), "QE id")
    return _converged(info, identity, (components, pcesvn), report, body if tee else b"")


def _converged(
    info: dict[str, Any],
    identity: dict[str, Any],
    platform: tuple[bytes, int],
    report: bytes,
    td: bytes,
) -> Verdict:
    qe = _enclave(identity, report)
    enclave = qe["tcbStatus"]
    if enclave not in ("UpToDate", "Revoked"):
        enclave = "OutOfDate"
    level = _level(info, platform, td[:16])
    levels, status, module = [level], level["tcbStatus"], None
    if td:
        module = _module(info, td, td[:16])
        if module:
            levels.append(module)
            status = _worst(status, module["tcbStatus"])
        if len(td) >= 648:
            running = [_level(info, platform, td[584:600])]
            if now := _module(info, td, td[584:600]):
                running.append(now)
            levels += running
            current = running[0]["tcbStatus"]
            for found in running[1:]:
                current = _worst(current, found["tcbStatus"])
            _need(current != "Revoked", "current revoked")
            if status not in OLD or current in OLD:
                status = _worst(status, current)
            elif enclave == "UpToDate":
                configuration = "Configuration" in status + current
                status = "TDRelaunchAdvised" + ("ConfigurationNeeded" if configuration else "")
    status = _worst(status, enclave)
    _need(status != "Revoked", "revoked")
    advisories = {name for found in [*levels, qe] for name in found.get("advisoryIDs", [])}
    return Verdict(
        status,
        level["tcbStatus"],
        module["tcbStatus"] if module else None,
        qe["tcbStatus"],
        advisories,
    )


def _level(info: dict[str, Any], platform: tuple[bytes, int], tdx: bytes) -> dict[str, Any]:
    components, pcesvn = platform
    for level in info["tcbLevels"]:
        least = [item["svn"] for item in level["tcb"]["sgxtcbcomponents"]]
        met = pcesvn >= level["tcb"]["pcesvn"]
        met &= all(components[i] >= least[i] for i in range(16))
        if tdx:
            least = [item["svn"] for item in level["tcb"]["tdxtcbcomponents"]]
            met &= all(tdx[i] >= least[i] for i in range(2 if tdx[1] else 0, 16))
        if met:
            found: dict[str, Any] = level
            return found
    raise Rejected("no level")


def _module(info: dict[str, Any], td: bytes, tdx: bytes) -> dict[str, Any] | None:
    module = info["tdxModule"]
    if tdx[1]:
        wanted = f"TDX_{tdx[1]:02X}"
        module = next(
            item for item in [*info["tdxModuleIdentities"], {}] if item.get("id") in (wanted, None)
        )
    _need(td[64:112].hex() == module["mrsigner"].lower(), "module signer")
    mask, attributes = bytes.fromhex(module["attributesMask"]), td[112:120]
    expected = bytes.fromhex(module["attributes"])
    for have, want, bits in zip(attributes, expected, mask, strict=True):
        _need(have & bits == want & bits and not have & ~bits, "module attributes")
    if not tdx[1]:
        return None
    for level in module["tcbLevels"]:
        if tdx[0] >= level["tcb"]["isvsvn"]:
            found: dict[str, Any] = level
            return found
    raise Rejected("no module level")


def _enclave(identity: dict[str, Any], report: bytes) -> dict[str, Any]:
    _need(report[128:160].hex() == identity["mrsigner"].lower(), "QE signer")
    product, version = struct.unpack_from("<HH", report, 256)
    _need(product == identity["isvprodid"], "QE product")
    for value, field in ((report[16:20][::-1], "miscselect"), (report[48:64], "attributes")):
        mask = bytes.fromhex(identity[f"{field}Mask"])
        wanted = bytes.fromhex(identity[field])
        for have, want, bits in zip(value, wanted, mask, strict=True):
            _need(have & bits == want & bits, f"QE {field}")
    for level in identity["tcbLevels"]:
        if version >= level["tcb"]["isvsvn"]:
            found: dict[str, Any] = level
            return found
    raise Rejected("no QE level")


def _worst(one: str, other: str) -> str:
    pair = (one, other)
    if "OutOfDate" in pair and any("Configuration" in status for status in pair):
        return "OutOfDateConfigurationNeeded"
    return max(pair, key=ORDER.index)


def _understood(certificate: x509.Certificate) -> None:
    critical = {extension.oid for extension in certificate.extensions if extension.critical}
    _need(critical <= UNDERSTOOD, "condition")


def _chain(below: x509.Certificate, issuer: x509.Certificate, at: datetime, depth: int) -> None:
    below.verify_directly_issued_by(issuer)
    _understood(below)
    oids = {extension.oid for extension in below.extensions}
    _need(ExtensionOID.EXTENDED_KEY_USAGE not in oids, "use")
    for certificate in (below, issuer):
        _need(isinstance(_key(certificate).curve, ec.SECP256R1), "curve")
    constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    most = constraints.path_length
    _need(most is None or depth <= most, "path length")
    own = below.extensions.get_extension_for_class(x509.BasicConstraints).value
    _need(own.ca is (depth > 0), "leaf")
    _need(below.not_valid_before_utc <= at <= below.not_valid_after_utc, "window")
    _need(isinstance(below.signature_hash_algorithm, hashes.SHA256), "hash")
    _need(issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca, "ca")
    _need(issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign, "usage")


def _platform(pck: x509.Certificate) -> tuple[bytes, int, str, str]:
    """(16 components, PCESVN, FMSPC, PCEID) by search for the encoded identifiers."""
    extension = pck.extensions.get_extension_for_oid(SGX).value
    assert isinstance(extension, x509.UnrecognizedExtension)
    raw = extension.value

    def value(*tail: int) -> bytes:
        oid = bytes.fromhex("2a864886f84d010d01") + bytes(tail)
        at = raw.index(bytes([6, len(oid)]) + oid) + 2 + len(oid)
        return raw[at + 2 : at + 2 + raw[at + 1]]

    components = bytes(int.from_bytes(value(2, index), "big") for index in range(1, 17))
    return components, int.from_bytes(value(2, 17), "big"), value(4).hex(), value(3).hex()


def _listed(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> Any:
    return crl.get_revoked_certificate_by_serial_number(certificate.serial_number)


def _key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Rejected("key")
    return key


def _check(key: ec.EllipticCurvePublicKey, raw: bytes, message: bytes | str) -> None:
    _need(len(raw) == 64, "signature length")
    pair = (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    text = message.encode() if isinstance(message, str) else message
    key.verify(encode_dss_signature(*pair), text, ec.ECDSA(hashes.SHA256()))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _need(holds: object, what: str) -> None:
    if not holds:
        raise Rejected(what)

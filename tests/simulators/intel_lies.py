"""What a liar who holds Intel's keys, or a platform's, could have signed: one lie each.

Every lie is told by a whole platform of `simulators.intel`, signed anew, so that a verifier can
only refuse it for what it says. `LIES` has those any verifier must refuse, by name; `TD_LIES` those
about a TD. Some verifiers pass over some of them, which is why there are several.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from .intel import PCK, Intel
from .intel_parts import DAY, Certificate, key, name, pem, point, stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    Lie = Callable[[Intel], object]

LIES: dict[str, Lie] = {}

_CERTIFICATES = {"pck": "pck", "ca": "platform_ca", "root": "root", "signer": "tcb_signer"}
_UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
_CONDITIONS: dict[str, x509.ExtensionType] = {
    "an unknown condition": _UNKNOWN,
    "a condition on names": x509.NameConstraints([x509.DNSName("example.com")], None),
    "a condition on policies": x509.PolicyConstraints(0, None),
    "a list elsewhere": x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://x/")], None, None, None)]
    ),
}
_OTHER_USE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_TLS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def _on(which: str, fact: str, value: Any) -> Lie:
    return lambda intel: setattr(getattr(intel, _CERTIFICATES[which]), fact, value())


def _serial(which: str, listed: str) -> Lie:
    return lambda intel: getattr(intel, listed).append(getattr(intel, _CERTIFICATES[which]).serial)


for _which in _CERTIFICATES:
    for _what, _extension in _CONDITIONS.items():
        LIES[f"{_which} under {_what}"] = _on(
            _which, "more", lambda extension=_extension: ((extension, True),)
        )
    LIES[f"{_which} expired"] = _on(_which, "end", lambda: -1)
    LIES[f"{_which} not yet valid"] = _on(_which, "start", lambda: 1)
    if _which != "root":  # of which only the key counts
        LIES[f"{_which} for another use"] = _on(_which, "more", lambda: ((_OTHER_USE, False),))
        LIES[f"{_which} for a service's TLS"] = _on(_which, "more", lambda: ((_TLS, False),))
        LIES[f"{_which} signed with SHA-384"] = _on(_which, "hash", hashes.SHA384)
        LIES[f"{_which} signed by another key"] = _on(_which, "signer", key)
        LIES[f"{_which} issued by another name"] = _on(_which, "issued_as", lambda: "Somebody")
    if _which in {"ca", "root"}:
        LIES[f"{_which} no CA"] = lambda intel, which=_which: (
            _on(which, "ca", lambda: False)(intel),
            _on(which, "path_length", lambda: None)(intel),
        )
        LIES[f"{_which} without certificate signing"] = _on(_which, "cert_sign", lambda: False)
        LIES[f"{_which} without list signing"] = _on(_which, "crl_sign", lambda: False)
        LIES[f"{_which} on another curve"] = _on(
            _which, "key", lambda: ec.generate_private_key(ec.SECP384R1())
        )
    else:
        LIES[f"{_which} a CA"] = _on(_which, "ca", lambda: True)
LIES |= {
    "root over one level": _on("root", "path_length", lambda: 0),
    "root listed": _serial("root", "revoked_root"),
    "ca listed": _serial("ca", "revoked_root"),
    "signer listed": _serial("signer", "revoked_root"),
    "pck listed": _serial("pck", "revoked_pck"),
    "pck issued by the root itself": lambda intel: setattr(intel.pck, "issuer", intel.root),
    "pck issued by the statements' signer": lambda intel: setattr(
        intel.pck, "issuer", intel.tcb_signer
    ),
    "signer issued by the platforms' CA": lambda intel: setattr(
        intel.tcb_signer, "issuer", intel.platform_ca
    ),
    "signer by a name of its own": _on("signer", "cn", lambda: "Intel SGX TCB Signer"),
    "signer a platform": lambda intel: setattr(
        intel, "tcb_signer", Certificate(PCK, intel.pck.key, intel.root, ca=False, serial=99)
    ),
}


# ---- lists


def _list(member: str, make: Callable[[Intel, Certificate], bytes]) -> Lie:
    issuer = "platform_ca" if member == "pck_crl" else "root"
    return lambda intel: intel.edits.update({member: lambda _: make(intel, getattr(intel, issuer))})


def _dated(member: str, begin: int, end: int) -> Lie:
    def make(intel: Intel, issuer: Certificate) -> bytes:
        held, intel.crl_window = intel.crl_window, (begin, end)
        made = intel.crl(issuer, [])
        intel.crl_window = held
        return made

    return _list(member, make)


def _scope(**facts: bool) -> x509.IssuingDistributionPoint:
    return x509.IssuingDistributionPoint(
        None,
        None,
        facts.get("users", False),
        facts.get("cas", False),
        None,
        facts.get("indirect", False),
        False,
    )


_HOLD = ((x509.CRLReason(x509.ReasonFlags.certificate_hold), False),)
_OTHERS_ENTRY = ((x509.CertificateIssuer([x509.DirectoryName(name("Somebody"))]), True),)
for _member, _own in (("pck_crl", 14), ("root_ca_crl", 12)):
    LIES |= {
        f"{_member} by another key": _list(
            _member, lambda intel, ca: intel.crl(Certificate(ca.cn, key()), [])
        ),
        f"{_member} by another name": _list(
            _member, lambda intel, ca: intel.crl(Certificate("Somebody", ca.key), [])
        ),
        f"{_member} under an unknown condition": _list(
            _member, lambda intel, ca: intel.crl(ca, [], (_UNKNOWN, True))
        ),
        f"{_member} of what changed": _list(
            _member, lambda intel, ca: intel.crl(ca, [], (x509.DeltaCRLIndicator(1), True))
        ),
        f"{_member} of what changed, unmarked": _list(
            _member, lambda intel, ca: intel.crl(ca, [], (x509.DeltaCRLIndicator(1), False))
        ),
        f"{_member} of CAs only": _list(
            _member, lambda intel, ca: intel.crl(ca, [], (_scope(cas=True), True))
        ),
        f"{_member} of users only, unmarked": _list(
            _member, lambda intel, ca: intel.crl(ca, [], (_scope(users=True), False))
        ),
        f"{_member} for others, unmarked": _list(
            _member, lambda intel, ca: intel.crl(ca, [], (_scope(indirect=True), False))
        ),
        f"{_member} with another's entry": _list(
            _member, lambda intel, ca: intel.crl(ca, [999], entry=_OTHERS_ENTRY)
        ),
        f"{_member} on hold": _list(
            _member, lambda intel, ca, own=_own: intel.crl(ca, [own], entry=_HOLD)
        ),
        f"{_member} signed with SHA-384": _list(
            _member, lambda intel, ca: intel.crl(ca, [], hashed=hashes.SHA384())
        ),
        f"{_member} expired": _dated(_member, -DAY, -1),
        f"{_member} of tomorrow": _dated(_member, DAY, 2 * DAY),
    }
LIES["the root's list twice"] = lambda intel: intel.edits.update(
    pck_crl=lambda _: intel.crl(intel.root, [])
)
LIES["the CA's list twice"] = lambda intel: intel.edits.update(
    root_ca_crl=lambda _: intel.crl(intel.platform_ca, [])
)


# ---- quoting enclave and quote


def _named(tail: bytes) -> Lie:
    def change(intel: Intel) -> None:
        digest = hashlib.sha256(point(intel.attestation_key) + intel.qe_auth).digest()
        intel.qe_report["report_data"] = digest + tail

    return change


def _enclave(field: str, value: bytes) -> Lie:
    return lambda intel: intel.qe_report.update({field: value})


def _flip(at: int) -> Lie:
    return lambda intel: intel.edits.update(
        quote=lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
    )


LIES |= {
    "report data with more, first": _named(b"\1" + bytes(31)),
    "report data with more, last": _named(bytes(31) + b"\1"),
    "report data of another key": lambda intel: setattr(intel, "vouched_key", key()),
    "another vendor": lambda intel: intel.header.update(vendor=bytes(16)),
    "another enclave's signer": _enclave("mrsigner", bytes(32)),
    "another enclave's product": _enclave("isvprodid", b"\7\0"),
    "an enclave too old": _enclave("isvsvn", b"\5\0"),
    "an enclave with more saved": _enclave("miscselect", b"\1\0\0\0"),
    "an enclave in debug": _enclave("attributes", bytes.fromhex("17" + "00" * 7 + "e7" + "00" * 7)),
    "an enclave of another kind": _enclave(
        "attributes", bytes.fromhex("15" + "00" * 6 + "01e7" + "00" * 7)
    ),
    "reserved bytes": _enclave("reserved4", b"\1" + bytes(41)),
    "tail": lambda intel: setattr(intel, "trailing", b"\0\1"),
    "header": _flip(30),
    "body": _flip(100),
}


# ---- certification data


def _chain(*which: str) -> Lie:
    def change(intel: Intel) -> None:
        def made(_: bytes) -> bytes:
            return pem(*(intel._once(role, getattr(intel, _CERTIFICATES[role])) for role in which))

        intel.edits["cert_data"] = made

    return change


LIES |= {
    "chain root first": _chain("root", "ca", "pck"),
    "chain without its CA": _chain("pck", "root"),
    "chain with one more": _chain("pck", "ca", "root", "signer"),
    "chain with its CA twice": _chain("pck", "ca", "ca", "root"),
    "chain with text before": lambda intel: intel.edits.update(
        cert_data=lambda chain: b"Bag Attributes\n" + chain
    ),
    "chain with text after": lambda intel: intel.edits.update(
        cert_data=lambda chain: chain + b"more"
    ),
}


# ---- statements


def _stated(which: str, **members: Any) -> Lie:
    return lambda intel: getattr(intel, which).update(members)


def _level(which: str, status: str, index: int = 0) -> Lie:
    return lambda intel: getattr(intel, which)["tcbLevels"][index].update(tcbStatus=status)


for _statement in ("tcb_info", "qe_identity"):
    LIES |= {
        f"{_statement} with text after": lambda intel, which=_statement: intel.edits.update(
            {which: lambda text: text + b" "}
        ),
        f"{_statement} signed otherwise": lambda intel, which=_statement: intel.edits.update(
            {f"{which}_signature": lambda raw: bytes([raw[0] ^ 1]) + raw[1:]}
        ),
        f"{_statement} expired": lambda intel, which=_statement: _stated(
            which, nextUpdate=stamp(intel.now - 1)
        )(intel),
        f"{_statement} of tomorrow": lambda intel, which=_statement: _stated(
            which, issueDate=stamp(intel.now + DAY)
        )(intel),
        f"{_statement} of another version": _stated(_statement, version=9),
        f"{_statement} revokes": _level(_statement, "Revoked"),
        f"{_statement} with a status nobody knows": _level(_statement, "Fine", 1),
        f"{_statement} without levels": _stated(_statement, tcbLevels=[]),
    }
LIES |= {
    "another platform family": _stated("tcb_info", fmspc="00806f050000"),
    "another provisioning enclave": _stated("tcb_info", pceId="0100"),
    "an identity of the verifier's enclave": _stated("qe_identity", id="QVE"),
    "an identity in need of hardening": _level("qe_identity", "SWHardeningNeeded"),
}


# ---- a TD


def _td(**fields: bytes) -> Lie:
    return lambda intel: intel.body.update(fields)


def _without(member: str) -> Lie:
    return lambda intel: intel.tcb_info.pop(member)


_ATTRIBUTE = b"\1" + bytes(7)
_FIRST = bytes([11, 0, 4]) + bytes(13)  # a module without levels of its own
TD_LIES: dict[str, Lie] = {
    "a module by another signer": _td(mr_signer_seam=b"\1" * 48),
    "a module with an attribute": _td(seam_attributes=_ATTRIBUTE),
    "a module with an attribute that nobody masks": lambda intel: (
        _td(seam_attributes=_ATTRIBUTE)(intel),
        intel.tcb_info["tdxModuleIdentities"][0].update(attributesMask="FE" + "FF" * 7),
    ),
    "a module that nobody describes": _td(tee_tcb_svn=bytes([11, 7, 4]) + bytes(13)),
    "a module below its levels": _td(tee_tcb_svn=bytes([1, 1, 4]) + bytes(13)),
    "a first module by another signer": _td(tee_tcb_svn=_FIRST, mr_signer_seam=b"\1" * 48),
    "a first module with an attribute": _td(tee_tcb_svn=_FIRST, seam_attributes=_ATTRIBUTE),
    "a platform below its levels": _td(tee_tcb_svn=bytes([11, 1, 1]) + bytes(13)),
    "no first module": lambda intel: (_td(tee_tcb_svn=_FIRST)(intel), _without("tdxModule")(intel)),
    "no modules": _without("tdxModuleIdentities"),
    "a statement on enclaves": _stated("tcb_info", id="SGX"),
    "an identity of the other enclave": _stated("qe_identity", id="QE"),
}

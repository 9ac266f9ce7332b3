"""NVIDIA's devices, the answers about their certificates, and token keys, one step from a limit."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from simulators.nvidia import DAY, Nvidia
from simulators.nvidia_device import listing, tlv
from simulators.tokens import Authority as TokenAuthority
from simulators.tokens import Issuer

from attestation.anchors import NONE, Anchors
from attestation.examined import Examined, Expected, Question
from attestation.formats.jose import parse_token
from attestation.formats.jwks import parse_keys
from attestation.formats.spdm import OPAQUE_DATA_VERSION, OPAQUE_VERSION_MAX
from attestation.ledger import Ledger
from attestation.schemes import nvidia_gpu, nvidia_list, nvidia_switch
from attestation.verify.device import Item, examine_items
from attestation.verify.ocsp import (
    RESPONSE_MAX,
    SINGLES_MAX,
    Status,
    certificate_id,
    check_paths,
    check_response,
    load_response,
)
from attestation.verify.signing_key import check_independent, load_key
from attestation.verify.spdm import GPUS
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulators.nvidia_device import Authority, Device

NONCE = bytes(range(32))
ORDER = ec.SECP384R1.group_order


@pytest.fixture(scope="module")
def vendor() -> Nvidia:
    return Nvidia()


def examine(device: Device, **changes: Any) -> Examined:
    facts: dict[str, Any] = {
        "evidence": {"evidence": device.report(NONCE), "cert_chain": device.chain()},
        "anchors": device.vendor.anchors,
        "now": device.vendor.now,
        "expected": Expected(nonce=NONCE),
        **changes,
    }
    return nvidia_gpu.SCHEME.examine(Question(**facts))


def steps(examined: Examined) -> list[str]:
    return [check.step for check in examined.checks]


def codes(examined: Examined) -> list[str]:
    return [reason.code for reason in examined.reasons]


def refusal(call: Any, match: str | None = None) -> str:
    with pytest.raises(AttestationError, match=match) as caught:
        call()
    return caught.value.reasons[0]


# ---------------------------------------------------------------- devices


def test_a_root_for_manifests_vouches_for_no_device(vendor: Nvidia) -> None:
    known = Anchors(frozenset({_pin(vendor.root), _pin(vendor.rim_root)}))
    rim = Anchors(frozenset({_pin(vendor.rim_root)}))
    gpu, stray = vendor.gpu(), vendor.gpu()
    above = vendor.issue("NVIDIA GH100 Identity", vendor.rim_root)
    stray.brom = vendor.issue("GH100 A01 GSP BROM", above)
    honest = gpu.certificates()
    chain = (stray.certificates()[0], stray.brom, above, vendor.rim_root)
    for device, line, rim_roots, expected in (
        (gpu, honest, rim, []),
        (stray, chain, rim, ["untrusted_root"]),
        (stray, chain, NONE, []),  # it is the only thing wrong with it
    ):
        ledger = Ledger()
        item = Item(device.report(NONCE), b"".join(one.pem for one in line))
        question = Question({}, known, vendor.now, expected=Expected(nonce=NONCE))
        examination = examine_items(ledger, [item], question, GPUS, rim_roots)
        assert [reason.code for reason in ledger.reasons] == expected
        assert examination.fleet is not None
        assert examination.fleet.manifest_anchors.pins == rim_roots.pins


def _pin(authority: Authority) -> bytes:
    return authority.certificate.fingerprint(hashes.SHA256())


def test_a_leaf_right_under_the_root_is_a_chain(vendor: Nvidia) -> None:
    gpu = vendor.gpu(leaf={"issuer": vendor.root})
    chain = b"".join(one.pem for one in (gpu.certificates()[0], vendor.root))
    examined = examine(gpu, evidence={"evidence": gpu.report(NONCE), "cert_chain": chain})
    assert examined.authentic is True


def test_a_root_beside_the_evidence_counts_if_it_is_pinned(vendor: Nvidia) -> None:
    gpu, stranger = vendor.gpu(), Nvidia().root
    chain = b"".join(one.pem for one in gpu.certificates()[:-1])
    evidence = {"evidence": gpu.report(NONCE), "cert_chain": chain}
    for collateral, expected in (
        ({"root": vendor.root.pem}, []),
        ({"root": vendor.root.der}, []),
        ({"root": stranger.pem + vendor.root.pem}, []),
        ({"root": stranger.pem}, ["untrusted_root"]),
        ({}, ["untrusted_root"]),
        ({"root": b"no certificate"}, ["chain_invalid", "untrusted_root"]),
    ):
        assert codes(examine(gpu, evidence=evidence, collateral=collateral)) == expected


def test_a_firmware_digest_may_have_zeros_and_is_not_all_zeros(vendor: Nvidia) -> None:
    for fwid, expected in (
        (bytes(24) + bytes(range(24)), []),
        (bytes(48), ["fwid_mismatch"]),
    ):
        assert codes(examine(vendor.gpu(fwid=fwid, leaf_fwids=[fwid]))) == expected


def test_what_does_not_parse_ends_at_once(vendor: Nvidia) -> None:
    for evidence in ({}, {"evidence": b"\x11", "cert_chain": vendor.gpu().chain()}):
        examined = examine(vendor.gpu(), evidence=evidence)
        assert examined.not_after == 0
        assert examined.facts is None
    assert nvidia_list.SCHEME.examine(_listed(vendor, b"[]")).not_after == 0


def test_a_list_with_one_report_that_does_not_parse_has_no_facts(vendor: Nvidia) -> None:
    entries = json.loads(listing([vendor.gpu(), vendor.gpu()], NONCE))
    entries[1]["evidence"] = base64.b64encode(b"\x11" * 99).decode()
    examined = nvidia_list.SCHEME.examine(_listed(vendor, json.dumps(entries).encode()))
    assert examined.authentic is False
    assert examined.facts is None
    assert examined.claims == {}


def _listed(vendor: Nvidia, raw: bytes, **collateral: bytes) -> Question:
    evidence = {"evidence_list": raw}
    return Question(evidence, vendor.anchors, vendor.now, collateral, Expected(nonce=NONCE))


def test_the_account_of_two_devices_says_which_one(vendor: Nvidia) -> None:
    raw = listing([vendor.gpu(), vendor.gpu()], NONCE)
    found = steps(nvidia_list.SCHEME.examine(_listed(vendor, raw)))
    assert "spdm 5 signature of device 0" in found
    assert "spdm 5 signature of device 1" in found
    assert "spdm 5 signature" in steps(examine(vendor.gpu()))


def test_without_a_verified_chain_the_account_says_that_nobody_was_asked(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    answers = {"ocsp": vendor.ocsp(gpu.brom, vendor.icas[gpu.chip])}
    stray = examine(gpu, anchors=NONE, collateral=answers)
    (check,) = [check for check in stray.checks if check.step == "spdm 7 revocation"]
    assert check.ok is None
    assert "spdm 7 revocation" not in steps(examine(gpu, anchors=NONE))
    assert stray.facts.revocation is None


def test_no_answer_is_counted_as_none_and_ends_nothing(vendor: Nvidia) -> None:
    examined = examine(vendor.gpu())
    assert (examined.facts.revocation.covered, examined.facts.revocation.expected) == (0, 3)
    assert examined.not_after == vendor.now + 365 * DAY
    assert "spdm 7 revocation" not in steps(examined)


def test_nothing_that_a_device_needs_is_required_and_each_family_has_names_of_its_own(
    vendor: Nvidia,
) -> None:
    names = {
        "HOPPER": ["NV_GPU_DRIVER_GH100_", "NV_GPU_VBIOS_"],
        "BLACKWELL": ["NV_GPU_CC_DRIVER_GB100_", "NV_GPU_VBIOS_"],
        "LS10": ["NV_SWITCH_BIOS_"],
    }
    for architecture, prefixes in names.items():
        device = vendor.switch() if architecture == "LS10" else vendor.gpu(architecture)
        scheme = nvidia_switch.SCHEME if architecture == "LS10" else nvidia_gpu.SCHEME
        needs = scheme.needs({"evidence": device.report(NONCE), "cert_chain": device.chain()})
        assert not any(need.required for need in needs)
        found = [need.key.removeprefix("rim/") for need in needs if need.source == "nvidia-rim"]
        assert len(found) == len(prefixes)
        assert all(map(str.startswith, found, prefixes))


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize(
    ("r", "s", "why"),
    [
        (0, 5, "out of range"),
        (5, 0, "out of range"),
        (ORDER, 5, "out of range"),
        (5, ORDER, "out of range"),
        (1, 5, "does not verify"),
        (5, 1, "does not verify"),
        (ORDER - 1, ORDER - 1, "does not verify"),
    ],
)
def test_the_numbers_of_a_signature_have_a_range(vendor: Nvidia, r: int, s: int, why: str) -> None:
    numbers = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    examined = examine(vendor.gpu(sign_edit=lambda _: numbers))
    assert codes(examined) == ["signature_invalid"]
    assert why in examined.reasons[0].detail


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()], ids=["P-256", "P-521"])
def test_a_leaf_of_another_curve_signs_no_report(vendor: Nvidia, curve: ec.EllipticCurve) -> None:
    # Of the longer curve no signature fits; that of the shorter one would verify.
    own = vendor.gpu().key if isinstance(curve, ec.SECP521R1) else None
    examined = examine(vendor.gpu(key=ec.generate_private_key(curve), signing_key=own))
    assert codes(examined) == ["signature_invalid"]
    assert "expected P-384" in examined.reasons[0].detail


def test_a_list_claims_the_architectures_in_it(vendor: Nvidia) -> None:
    gpus = [vendor.gpu("BLACKWELL"), vendor.gpu(), vendor.gpu()]
    found = nvidia_list.SCHEME.examine(_listed(vendor, listing(gpus, NONCE))).claims
    assert found["architectures"] == ["BLACKWELL", "HOPPER"]
    assert found["nonce"] == NONCE.hex()


def test_the_newest_layout_of_opaque_data_is_read_and_the_next_is_not(vendor: Nvidia) -> None:
    for version, expected in (
        (OPAQUE_VERSION_MAX, []),
        (OPAQUE_VERSION_MAX + 1, ["version_not_accepted"]),
    ):
        gpu = vendor.gpu()
        gpu.opaque[OPAQUE_DATA_VERSION] = version.to_bytes(2, "little")
        assert codes(examine(gpu)) == expected


@pytest.mark.parametrize(("serial", "name"), [("ABC", "0abc"), ("ABCD", "abcd")])
def test_a_serial_number_is_spelled_in_whole_octets(vendor: Nvidia, serial: str, name: str) -> None:
    gpu = vendor.gpu()
    gpu.serial = serial
    assert f"serial:{name}" in examine(gpu).identities


# ---------------------------------------------------------------- answers about certificates


def ask(gpu: Device, der: bytes) -> Status:
    issuer = gpu.vendor.icas[gpu.chip].certificate
    return check_response(der, gpu.brom.certificate, issuer, gpu.vendor.now)


@pytest.fixture(scope="module")
def gpu(vendor: Nvidia) -> Device:
    return vendor.gpu()


@pytest.mark.parametrize(
    "usage", [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
)
def test_a_certificate_for_another_use_signs_no_answers(
    gpu: Device, usage: x509.ObjectIdentifier
) -> None:
    issuer = gpu.vendor.icas[gpu.chip]
    for eku, accepted in ((ExtendedKeyUsageOID.OCSP_SIGNING, True), (usage, False)):
        der = gpu.vendor.ocsp(gpu.brom, issuer, delegated=gpu.vendor.responder(issuer, eku=eku))
        if accepted:
            assert ask(gpu, der).complete
        else:
            assert refusal(lambda der=der: ask(gpu, der)) == "ocsp_invalid"


@pytest.mark.parametrize("by_name", [False, True])
def test_a_certificate_in_an_answer_that_cannot_be_read_is_passed_over(
    gpu: Device, by_name: bool
) -> None:
    issuer, at = gpu.vendor.icas[gpu.chip], datetime.fromtimestamp(gpu.vendor.now, UTC)
    responder = gpu.vendor.responder(issuer)
    odd = x509.load_der_x509_certificate(responder.der.replace(b"NVIDIA OCSP R", b"\xff" * 13))
    named = ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH
    for added, accepted in (([odd, responder.certificate], True), ([odd], False)):
        builder = ocsp.OCSPResponseBuilder().add_response(
            gpu.brom.certificate, issuer.certificate, hashes.SHA384(), ocsp.OCSPCertStatus.GOOD,
            at, None, None, None,
        )  # fmt: skip
        builder = builder.responder_id(named, responder.certificate).certificates(added)
        der = builder.sign(responder.key, hashes.SHA384()).public_bytes(Encoding.DER)
        if accepted:
            assert ask(gpu, der).complete
        else:
            assert refusal(lambda der=der: ask(gpu, der)) == "ocsp_invalid"


def test_an_unsuccessful_answer_says_so_itself() -> None:
    der = ocsp.OCSPResponseBuilder.build_unsuccessful(
        ocsp.OCSPResponseStatus.TRY_LATER
    ).public_bytes(Encoding.DER)
    assert refusal(lambda: load_response(der), "TRY_LATER") == "ocsp_invalid"


def test_no_certificate_at_all_is_no_complete_answer() -> None:
    assert not Status(0, 0, 0, 1).complete
    assert not check_paths((), (), 0).complete
    assert Status(1, 1, 0, 1).complete


def test_an_answer_of_the_greatest_length_is_read(gpu: Device) -> None:
    filler = RESPONSE_MAX - 600
    for _ in range(99):  # an ECDSA signature has one of a few lengths
        der = padded(gpu, filler)
        if len(der) == RESPONSE_MAX:
            break
        filler += RESPONSE_MAX - len(der)
    assert len(der) == RESPONSE_MAX
    assert load_response(der).singles


def padded(gpu: Device, filler: int) -> bytes:
    issuer, at = gpu.vendor.icas[gpu.chip], datetime.fromtimestamp(gpu.vendor.now, UTC)
    builder = ocsp.OCSPResponseBuilder().add_response(
        gpu.brom.certificate, issuer.certificate, hashes.SHA384(), ocsp.OCSPCertStatus.GOOD,
        at, None, None, None,
    )  # fmt: skip
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.certificate)
    more = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(filler))
    return (
        builder.add_extension(more, critical=False)
        .sign(issuer.key, hashes.SHA384())
        .public_bytes(Encoding.DER)
    )


def values(raw: bytes) -> list[bytes]:
    """The DER values in a row, whole."""
    found, at = [], 0
    while at < len(raw):
        octets = raw[at + 1] & 0x7F if raw[at + 1] & 0x80 else 0
        size = int.from_bytes(raw[at + 2 : at + 2 + octets], "big") if octets else raw[at + 1]
        end = at + 2 + octets + size
        found.append(raw[at:end])
        at = end
    return found


def content(value: bytes) -> bytes:
    return value[2 + (value[1] & 0x7F if value[1] & 0x80 else 0) :]


def of_several(vendor: Nvidia, subjects: Sequence[Authority], issuer: Authority) -> bytes:
    """One response with a statement for each subject: no builder makes these."""
    singles, first = b"", load_response(vendor.ocsp(subjects[0], issuer)).ocsp
    who, when, _ = values(content(first.tbs_response_bytes))
    for subject in subjects:
        found = load_response(vendor.ocsp(subject, issuer)).ocsp
        singles += content(values(content(found.tbs_response_bytes))[2])
    signed = tlv(0x30, who + when + tlv(0x30, singles))
    signature = issuer.key.sign(signed, ec.ECDSA(hashes.SHA384()))
    algorithm = tlv(0x30, bytes.fromhex("06082a8648ce3d040303"))
    basic = tlv(0x30, signed + algorithm + tlv(0x03, b"\0" + signature))
    kind = bytes.fromhex("06092b0601050507300101")
    return tlv(0x30, b"\x0a\x01\x00" + tlv(0xA0, tlv(0x30, kind + tlv(0x04, basic))))


def test_one_answer_may_speak_for_sixteen_certificates_and_for_no_more(vendor: Nvidia) -> None:
    issuer = vendor.icas["GH100"]
    subjects = [vendor.issue(f"boot ROM {number}", issuer) for number in range(SINGLES_MAX + 1)]
    response = load_response(of_several(vendor, subjects[:SINGLES_MAX], issuer))
    paths = [(one.certificate, issuer.certificate) for one in subjects]
    status = check_paths([response], paths, vendor.now)
    assert (status.covered, status.expected) == (SINGLES_MAX, SINGLES_MAX + 1)
    der = of_several(vendor, subjects, issuer)
    assert refusal(lambda: load_response(der), "more than 16") == "ocsp_invalid"


def test_certificates_that_paths_share_are_counted_once(vendor: Nvidia) -> None:
    gpus = [vendor.gpu(), vendor.gpu()]
    above = (vendor.icas["GH100"], vendor.identity["GH100"], vendor.root)
    paths = [[one.certificate for one in (gpu.brom, *above)] for gpu in gpus]
    found = {der for gpu in gpus for der in vendor.revocation(gpu)}
    status = check_paths([load_response(der) for der in found], paths, vendor.now)
    assert (status.covered, status.expected) == (4, 4)


def test_a_key_of_another_kind_signs_no_answer(vendor: Nvidia) -> None:
    issuer = vendor.issue("CA", vendor.root, key=ed25519.Ed25519PrivateKey.generate())
    subject = vendor.issue("subject", issuer)
    name, key, serial = certificate_id(subject.certificate, issuer.certificate, hashes.SHA384())
    at = datetime.fromtimestamp(vendor.now, UTC)
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        name, key, serial, hashes.SHA384(), ocsp.OCSPCertStatus.GOOD, at, None, None, None
    )
    namesake = vendor.issue("CA", key=vendor.root.key)  # the builder wants the signer's own key
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, namesake.certificate)
    der = builder.sign(vendor.root.key, hashes.SHA384()).public_bytes(Encoding.DER)

    def checked() -> Status:
        return check_response(der, subject.certificate, issuer.certificate, vendor.now)

    assert refusal(checked, "not signed by the issuer") == "ocsp_invalid"


# ---------------------------------------------------------------- keys of tokens


def independent(issuer: Issuer, keys: bytes, **header: Any) -> str:
    token = parse_token(issuer.sign({"iss": "somebody"}, **header).encode())
    return check_independent(token, load_key(parse_keys(keys).keys[0]), NONE)


def test_what_a_token_brings_along_is_said() -> None:
    issuer = Issuer("ES256")
    assert independent(issuer, issuer.jwks()) == "the token brings no key along"
    url = "https://issuer.invalid/keys"
    assert independent(issuer, issuer.jwks(), jku=url).endswith("are ignored: jku")


def test_a_pinned_key_is_said_to_be_pinned() -> None:
    issuer = Issuer("ES256")
    token = parse_token(issuer.sign({}, jwk=issuer.jwk()).encode())
    key = load_key(parse_keys(issuer.jwks()).keys[0])
    pinned = Anchors(frozenset({bytes.fromhex(issuer.fingerprint())}))
    assert check_independent(token, key, pinned) == "the key is pinned"


def test_a_key_is_recognised_in_the_tokens_own_certificate() -> None:
    issuer, authority, other = Issuer("ES256"), TokenAuthority(), Issuer("ES256")
    leaf, foreign = (authority.issue(one, 0, 2_000_000_000) for one in (issuer, other))
    for chain, why in (
        ([leaf], "in the token's own header"),
        ([leaf, authority.der()], "in the token's own header"),
        ([foreign, leaf], "that is not the issuer's"),
    ):
        x5c = [base64.b64encode(der).decode() for der in chain]
        code = refusal(lambda x5c=x5c: independent(issuer, issuer.jwks(), x5c=x5c), why)
        assert code == "unknown_signing_key"


def test_a_certificate_in_a_header_that_is_no_base64_cannot_be_read() -> None:
    issuer, authority = Issuer("ES256"), TokenAuthority()
    text = base64.b64encode(authority.issue(issuer, 0, 2_000_000_000)).decode()
    for odd in ("!" + text, text[:8] + "\n" + text[8:]):
        code = refusal(lambda odd=odd: independent(issuer, issuer.jwks(), x5c=[odd]), "be read")
        assert code == "unknown_signing_key"


@pytest.mark.parametrize(
    "jwk", [{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, {"kty": "AKP", "crv": "P-256"}]
)
def test_a_key_of_an_unknown_kind_or_curve_is_refused(jwk: dict[str, str]) -> None:
    key = parse_keys(json.dumps({"keys": [jwk]}).encode()).keys[0]
    assert refusal(lambda: load_key(key), "unknown kind") == "key_invalid"


def test_an_ed25519_key_in_pem_verifies_eddsa() -> None:
    issuer = Issuer("EdDSA")
    pem = issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert load_key(parse_keys(pem).keys[0]).algorithms == ("EdDSA",)

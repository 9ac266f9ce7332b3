"""OCSP responses of a simulated NVIDIA, each with one fact changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.nvidia import DAY, Nvidia

from attestation.examined import Examined, Expected, Question
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.nvidia_gpu import SCHEME
from attestation.verify.ocsp import ANSWERS_MAX, RESPONSE_MAX, check_response, load_response
from wire.errors import AttestationError, PolicyError
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from simulators.nvidia_device import Device

    from attestation.verify.ocsp import Status

NONCE = bytes(range(32, 64))
GPU_NONCE = bytes(range(32))
GOOD = ocsp.OCSPCertStatus.GOOD
REVOKED = ocsp.OCSPCertStatus.REVOKED
HOLD = {"status": REVOKED, "reason": x509.ReasonFlags.certificate_hold}


@pytest.fixture(scope="module")
def vendor() -> Nvidia:
    return Nvidia()


@pytest.fixture(scope="module")
def gpu(vendor: Nvidia) -> Device:
    return vendor.gpu()


def checked(gpu: Device, der: bytes, nonce: bytes | None = None, now: int = 0) -> Status:
    vendor = gpu.vendor
    issuer = vendor.icas[gpu.chip].certificate
    return check_response(der, gpu.brom.certificate, issuer, now or vendor.now, nonce)


def refusal(gpu: Device, der: bytes, nonce: bytes | None = None, now: int = 0) -> str:
    with pytest.raises(AttestationError) as caught:
        checked(gpu, der, nonce, now)
    return caught.value.reasons[0]


def respond(gpu: Device, **facts: Any) -> bytes:
    return gpu.vendor.ocsp(gpu.brom, gpu.vendor.icas[gpu.chip], **facts)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384()])
def test_a_good_response_of_the_issuer_is_accepted(
    gpu: Device, algorithm: hashes.HashAlgorithm, by_name: bool
) -> None:
    status = checked(gpu, respond(gpu, algorithm=algorithm, by_name=by_name))
    assert (status.covered, status.expected, status.held) == (1, 1, 0)
    assert status.not_after == gpu.vendor.now + DAY


def test_a_delegated_responder_of_the_issuer_is_accepted(gpu: Device) -> None:
    responder = gpu.vendor.responder(gpu.vendor.icas[gpu.chip])
    assert checked(gpu, respond(gpu, delegated=responder)).complete


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"eku": None}, id="not made for OCSP"),
        pytest.param({"end": -1}, id="expired"),
        pytest.param({"start": 60}, id="not yet valid"),
    ],
)
def test_a_responder_without_authority_is_refused(gpu: Device, facts: dict[str, Any]) -> None:
    responder = gpu.vendor.responder(gpu.vendor.icas[gpu.chip], **facts)
    assert refusal(gpu, respond(gpu, delegated=responder)) == "ocsp_invalid"


def test_a_responder_certified_with_a_short_hash_is_refused(gpu: Device) -> None:
    issuer = gpu.vendor.icas[gpu.chip]
    responders = [
        gpu.vendor.responder(issuer, algorithm=algorithm)
        for algorithm in (hashes.SHA256(), hashes.SHA224())
    ]
    assert checked(gpu, respond(gpu, delegated=responders[0])).complete
    assert refusal(gpu, respond(gpu, delegated=responders[1])) == "ocsp_invalid"


def test_a_responder_of_another_issuer_is_refused(gpu: Device) -> None:
    for issuer in (gpu.vendor.root, gpu.vendor.identity[gpu.chip], gpu.vendor.icas["GB100"]):
        responder = gpu.vendor.responder(issuer)
        assert refusal(gpu, respond(gpu, delegated=responder)) == "ocsp_invalid"


def test_a_response_signed_by_another_is_refused(gpu: Device) -> None:
    vendor = gpu.vendor
    for signer in (vendor.root, gpu.brom, Nvidia().icas[gpu.chip]):
        assert refusal(gpu, respond(gpu, signer=signer)) == "ocsp_invalid"


def test_a_flipped_bit_in_what_is_signed_or_the_signature_is_refused(gpu: Device) -> None:
    der = respond(gpu)
    found = load_response(der).ocsp
    signed, signature = der.index(found.tbs_response_bytes), der.index(found.signature)
    for at in (*range(signed, signed + len(found.tbs_response_bytes)), *range(signature, len(der))):
        changed = bytearray(der)
        changed[at] ^= 1 << at % 8
        with pytest.raises(AttestationError):
            checked(gpu, bytes(changed))


def test_a_response_for_another_certificate_is_refused(gpu: Device) -> None:
    vendor = gpu.vendor
    other = vendor.ocsp(vendor.gpu().brom, vendor.icas[gpu.chip])
    assert refusal(gpu, other) == "ocsp_invalid"


def test_a_response_for_the_same_serial_of_another_issuer_is_refused(gpu: Device) -> None:
    vendor = gpu.vendor
    twin = vendor.issue(
        "twin", vendor.icas["GB100"], serial=f"{gpu.brom.certificate.serial_number:X}"
    )
    assert refusal(gpu, vendor.ocsp(twin, vendor.icas["GB100"])) == "ocsp_invalid"


def test_the_nonce_is_looked_for_in_the_responses_extensions(gpu: Device) -> None:
    assert checked(gpu, respond(gpu, nonce=NONCE), NONCE).complete
    assert refusal(gpu, respond(gpu), NONCE) == "ocsp_nonce_mismatch"
    assert refusal(gpu, respond(gpu, nonce=NONCE[::-1]), NONCE) == "ocsp_nonce_mismatch"


@pytest.mark.parametrize(
    ("facts", "shift"),
    [
        pytest.param({}, DAY, id="at nextUpdate"),
        pytest.param({}, DAY + 1, id="after nextUpdate"),
        pytest.param({}, -3600 - CLOCK_SKEW_S - 1, id="before thisUpdate"),
        pytest.param({"end": None}, DAY - 3600, id="a day without nextUpdate"),
        pytest.param(
            {"end": None}, -3600 - CLOCK_SKEW_S - 1, id="before thisUpdate without nextUpdate"
        ),
    ],
)
def test_a_response_outside_its_time_is_refused(
    gpu: Device, facts: dict[str, Any], shift: int
) -> None:
    assert refusal(gpu, respond(gpu, **facts), now=gpu.vendor.now + shift) == "collateral_expired"


@pytest.mark.parametrize(("facts", "last"), [({}, DAY - 1), ({"end": None}, DAY - 3601)])
def test_a_response_counts_until_the_second_before_newer_news(
    gpu: Device, facts: dict[str, Any], last: int
) -> None:
    assert checked(gpu, respond(gpu, **facts), now=gpu.vendor.now + last).complete


def test_a_refusal_says_by_how_many_seconds_a_response_is_not_of_now(gpu: Device) -> None:
    times = r":\d\dZ to .*:\d\dZ, expected it to hold .*:\d\dZ$"
    with pytest.raises(AttestationError, match=times):
        checked(gpu, respond(gpu), now=gpu.vendor.now + DAY)


@pytest.mark.parametrize("end", [DAY, None])
def test_a_response_of_a_clock_that_is_a_little_ahead_counts(gpu: Device, end: int | None) -> None:
    der = respond(gpu, start=CLOCK_SKEW_S, end=end)
    until = DAY if end else CLOCK_SKEW_S + DAY
    assert checked(gpu, der).not_after == gpu.vendor.now + until
    assert refusal(gpu, der, now=gpu.vendor.now - 1) == "collateral_expired"


def test_a_responders_certificate_of_a_clock_ahead_does_not_count(gpu: Device) -> None:
    responder = gpu.vendor.responder(gpu.vendor.icas[gpu.chip], start=1)
    assert refusal(gpu, respond(gpu, delegated=responder)) == "ocsp_invalid"


def test_a_response_without_next_update_holds_for_a_day(gpu: Device) -> None:
    assert checked(gpu, respond(gpu, end=None)).not_after == gpu.vendor.now - 3600 + DAY


@pytest.mark.parametrize(
    "reason", [None, x509.ReasonFlags.key_compromise, x509.ReasonFlags.superseded]
)
def test_a_revoked_certificate_is_refused(gpu: Device, reason: Any) -> None:
    assert refusal(gpu, respond(gpu, status=REVOKED, reason=reason)) == "revoked"


def test_an_unknown_certificate_is_refused(gpu: Device) -> None:
    unknown = respond(gpu, status=ocsp.OCSPCertStatus.UNKNOWN)
    assert refusal(gpu, unknown) == "revocation_unknown"


def test_a_certificate_on_hold_is_reported_as_held(gpu: Device) -> None:
    assert checked(gpu, respond(gpu, **HOLD)).held == 1


def test_an_issuer_with_an_rsa_key_may_sign(vendor: Nvidia) -> None:
    key = rsa.generate_private_key(65537, 2048)
    issuer = vendor.issue("RSA CA", vendor.root, key=key)
    subject = vendor.issue("subject", issuer)
    der = vendor.ocsp(subject, issuer)
    assert check_response(der, subject.certificate, issuer.certificate, vendor.now).complete
    twin = vendor.issue("RSA CA", vendor.root, key=rsa.generate_private_key(65537, 2048))
    with pytest.raises(AttestationError):
        check_response(der, subject.certificate, twin.certificate, vendor.now)


def test_an_issuer_with_a_key_of_another_kind_signs_nothing(vendor: Nvidia) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    issuer = vendor.issue("CA", vendor.root, key=key)
    subject = vendor.issue("subject", vendor.root)
    der = vendor.ocsp(subject, vendor.root)
    with pytest.raises(AttestationError) as caught:
        check_response(der, subject.certificate, issuer.certificate, vendor.now)
    assert caught.value.reasons == ("ocsp_invalid",)


def signed(gpu: Device, algorithm: Any, *extensions: x509.ExtensionType) -> bytes:
    """A good response with these critical extensions and this hash."""
    issuer = gpu.vendor.icas[gpu.chip]
    at = datetime.fromtimestamp(gpu.vendor.now, UTC)
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            gpu.brom.certificate, issuer.certificate, hashes.SHA384(), GOOD, at, None, None, None
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.certificate)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(issuer.key, algorithm).public_bytes(Encoding.DER)


def test_a_response_signed_with_a_short_hash_is_refused(gpu: Device) -> None:
    assert checked(gpu, signed(gpu, hashes.SHA256())).complete
    assert refusal(gpu, signed(gpu, hashes.SHA224())) == "ocsp_invalid"


def test_an_unknown_critical_extension_is_refused(gpu: Device) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0")
    assert refusal(gpu, signed(gpu, hashes.SHA384(), unknown)) == "ocsp_invalid"
    assert checked(gpu, signed(gpu, hashes.SHA384(), x509.OCSPNonce(NONCE)), NONCE).complete


def test_an_unsuccessful_response_is_refused(gpu: Device) -> None:
    der = ocsp.OCSPResponseBuilder.build_unsuccessful(
        ocsp.OCSPResponseStatus.TRY_LATER
    ).public_bytes(Encoding.DER)
    assert refusal(gpu, der) == "ocsp_invalid"


@pytest.mark.parametrize("form", ["hex", "cut", "empty", "long", "trailing"])
def test_a_response_of_another_form_is_refused(gpu: Device, form: str) -> None:
    der = respond(gpu)
    forms = {
        "hex": der.hex().encode(),
        "cut": der[:-1],
        "empty": b"",
        "long": der + bytes(RESPONSE_MAX),
        "trailing": der + b"\0",
    }
    assert refusal(gpu, forms[form]) == "ocsp_invalid"


def examine(gpu: Device, responses: list[bytes], **more: bytes) -> Examined:
    roles = ["ocsp", *(f"ocsp_{number}" for number in range(1, len(responses)))]
    return SCHEME.examine(
        Question(
            evidence={"evidence": gpu.report(GPU_NONCE), "cert_chain": gpu.chain()},
            anchors=gpu.vendor.anchors,
            now=gpu.vendor.now,
            expected=Expected(nonce=GPU_NONCE),
            collateral={**dict(zip(roles, responses, strict=True)), **more},
        )
    )


def judge(gpu: Device, examined: Examined, **changes: str) -> list[str]:
    required, optional = SCHEME.rule_keys
    values: dict[str, Any] = dict.fromkeys(required, "any")
    values |= {"architectures": ["HOPPER"], "rim": "not_checked", "ocsp": "required", **changes}
    members = Members(values, "rule", required=required, optional=optional, error=PolicyError)
    ledger = Ledger()
    SCHEME.judge(ledger, examined.facts, SCHEME.rule(members), gpu.vendor.now)
    return [reason.code for reason in ledger.reasons]


def codes(examined: Examined) -> set[str]:
    return {reason.code for reason in examined.reasons}


def test_a_revoked_boot_rom_refuses_the_gpu(gpu: Device) -> None:
    responses = gpu.vendor.revocation(gpu)
    responses[0] = respond(gpu, status=REVOKED)
    assert codes(examine(gpu, responses)) == {"revoked"}


def test_a_good_response_does_not_undo_a_revoked_one(gpu: Device) -> None:
    responses = [*gpu.vendor.revocation(gpu), respond(gpu, status=REVOKED)]
    assert codes(examine(gpu, responses)) == {"revoked"}


def test_a_revoked_ca_refuses_every_gpu_below(gpu: Device) -> None:
    vendor = gpu.vendor
    revoked = vendor.ocsp(vendor.identity[gpu.chip], vendor.root, status=REVOKED)
    assert codes(examine(gpu, [revoked])) == {"revoked"}


@pytest.mark.parametrize(
    ("facts", "refused"), [({"status": REVOKED}, {"revoked"}), ({"status": GOOD}, set())]
)
def test_what_is_said_of_the_leaf_counts_though_nobody_is_asked(
    gpu: Device, facts: dict[str, Any], refused: set[str]
) -> None:
    said = gpu.vendor.ocsp(gpu.certificates()[0], gpu.brom, **facts)
    assert codes(examine(gpu, [said])) == refused
    assert codes(examine(gpu, [*gpu.vendor.revocation(gpu), said])) == refused


def test_a_word_on_the_leaf_stands_in_for_no_other(gpu: Device) -> None:
    said = gpu.vendor.ocsp(gpu.certificates()[0], gpu.brom)
    responses = gpu.vendor.revocation(gpu)
    assert judge(gpu, examine(gpu, [*responses, said])) == []
    assert judge(gpu, examine(gpu, [*responses[1:], said])) == ["revocation_not_checked"]


def test_a_response_of_the_calendars_last_day_is_not_yet_one(gpu: Device) -> None:
    last = 253_402_300_000
    assert refusal(gpu, respond(gpu, start=last - gpu.vendor.now, end=None)) == "collateral_expired"


def test_hold_is_accepted_only_where_the_rule_names_it(gpu: Device) -> None:
    responses = gpu.vendor.revocation(gpu)
    responses[0] = respond(gpu, **HOLD)
    examined = examine(gpu, responses)
    assert judge(gpu, examined) == ["certificate_on_hold"]
    assert judge(gpu, examined, ocsp="not_checked") == ["certificate_on_hold"]
    assert judge(gpu, examined, ocsp_hold="accept") == []


def test_a_response_supplied_that_does_not_parse_refuses_the_gpu(gpu: Device) -> None:
    examined = examine(gpu, [b"\x30\0"])
    assert codes(examined) == {"ocsp_invalid"}
    assert judge(gpu, examined) == ["revocation_not_checked"]


def test_every_response_must_carry_the_nonce_that_was_sent(gpu: Device) -> None:
    vendor = gpu.vendor
    fresh = vendor.revocation(gpu, nonce=NONCE)
    assert examine(gpu, fresh, ocsp_nonce=NONCE).authentic is True
    stored = [*fresh[:2], vendor.revocation(gpu)[2]]
    assert codes(examine(gpu, stored, ocsp_nonce=NONCE)) == {"ocsp_nonce_mismatch"}


def test_one_response_under_several_roles_is_one(gpu: Device) -> None:
    first, *others = gpu.vendor.revocation(gpu)
    examined = examine(gpu, [*[first] * (ANSWERS_MAX + 1), *others])
    assert examined.authentic is True
    assert judge(gpu, examined) == []


def test_more_responses_for_one_certificate_than_anybody_needs_are_refused(gpu: Device) -> None:
    first, *others = gpu.vendor.revocation(gpu)
    renewed = [respond(gpu, start=-60 - number) for number in range(ANSWERS_MAX)]
    assert examine(gpu, [*renewed, *others]).authentic is True
    assert codes(examine(gpu, [first, *renewed, *others])) == {"ocsp_invalid"}


def test_the_verdict_ends_with_the_first_response(gpu: Device) -> None:
    responses = gpu.vendor.revocation(gpu)
    responses[0] = respond(gpu, end=60)
    assert examine(gpu, responses).not_after == gpu.vendor.now + 60


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300).map(lambda raw: b"\x30" + raw))
def test_arbitrary_bytes_are_only_ever_refused(raw: bytes) -> None:
    with pytest.raises(AttestationError):
        load_response(raw)

"""Steps 10 to 21 for TPM quotes: a TPM maker and a TPM in Python, one fact changed a test."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from simulators.tee import NOW, refused
from simulators.tpm import TpmTee, ecdsa_signature, pss_signature, public_area, rsa_key

from attestation.appraise import appraise
from attestation.binding import report32
from attestation.evidence import Evidence
from attestation.formats.tpm import encode_body, parse_body
from attestation.formats.tpm_structures import parse_signature
from attestation.result import AppraisedEvidence, Refused
from wire.ids import b64u, sha256_tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.verify.credential import Activation

EK_USAGE = "2.23.133.8.1"
OTHER = sha256_tag(b"something else")
OTHER_SCHEME = "quote: the scheme is not the attestation key's own"


@pytest.fixture
def tee() -> TpmTee:
    return TpmTee()


def test_honest_tpm_evidence_is_accepted_and_named_simulated(tee: TpmTee) -> None:
    verdict = tee.appraise()
    assert isinstance(verdict, AppraisedEvidence)
    assert verdict.trust == "simulated"
    assert verdict.kind == "tpm2"
    assert verdict.measurement == tee.measurement()
    steps = [int(check.step.split()[0]) for check in verdict.checks]
    assert steps == [*range(18), 19, 20, 21, 22]  # a TPM knows no time: no step 18


def test_honest_tpm_evidence_with_an_rsa_attestation_key_is_accepted(tee: TpmTee) -> None:
    tee.ak_key = rsa_key("ak")
    assert isinstance(tee.appraise(), AppraisedEvidence)


def test_verdict_ends_when_the_endorsement_certificate_does(tee: TpmTee) -> None:
    tee.endorsement["end"] = 60
    verdict = tee.appraise()
    assert isinstance(verdict, AppraisedEvidence)
    assert verdict.expires == NOW + 60


def test_step_10_refuses_a_simulated_tpm_unless_the_policy_allows_it(tee: TpmTee) -> None:
    del tee.demands["allow_simulated"]
    refused(tee.appraise(), "simulated_not_allowed")


def test_step_10_allowing_software_does_not_allow_simulated(tee: TpmTee) -> None:
    del tee.demands["allow_simulated"]
    tee.demands["allow_software"] = True
    refused(tee.appraise(), "simulated_not_allowed")


def test_step_11_refuses_what_is_no_tpm_evidence(tee: TpmTee) -> None:
    evidence = [Evidence("tpm2", b"{}")]
    refused(tee.appraise(evidence=evidence, activation=None), "evidence_malformed")


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [(0, b"\xfeTCG", "another magic"), (4, b"\x80\x17", "another type than quote")],
)
def test_step_11_refuses_a_message_the_tpm_did_not_make(
    tee: TpmTee, at: int, value: bytes, why: str
) -> None:
    tee.quote_edit = lambda quote: quote[:at] + value + quote[at + len(value) :]
    evidence = _unparsed(tee)
    refused(tee.appraise(evidence=[evidence], activation=None), "evidence_malformed")
    assert why


# ---------------------------------------------------------------- step 15


def test_step_15_refuses_a_quote_signed_by_another_key(tee: TpmTee) -> None:
    honest = tee.ak_key
    tee.ak_key = ec.generate_private_key(ec.SECP256R1())
    tee.body["ak"] = public_area(honest, tee.ak_attributes)
    refused(tee.appraise(), "signature_invalid")


@pytest.mark.parametrize(
    "edit",
    [
        lambda sig: ecdsa_signature(parse_signature(sig).s, parse_signature(sig).r),
        lambda _: ecdsa_signature(0, 1),
        lambda _: ecdsa_signature(1, 0),
        lambda _: ecdsa_signature(2**256 - 1, 1),
        lambda sig: sig[:2] + b"\x00\x0c" + sig[4:],
        lambda sig: sig[:2] + b"\x00\x04" + sig[4:],
    ],
    ids=["r-s-swapped", "r-zero", "s-zero", "r-beyond-order", "hash-sha384", "hash-sha1"],
)
def test_step_15_refuses_an_edited_signature(tee: TpmTee, edit: Callable[[bytes], bytes]) -> None:
    tee.sig_edit = edit
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert verdict.codes[0] == "signature_invalid"


def test_step_15_refuses_a_scheme_that_is_not_the_keys(tee: TpmTee) -> None:
    tee.ak_key = rsa_key("ak")
    binding = tee.binding()
    evidence = tee.evidence(binding)
    genuine = pss_signature(tee.ak_key, parse_body(evidence.body).quote.raw)
    tee.sig_edit = lambda _: genuine
    verdict = tee.appraise(binding_raw=binding)
    refused(verdict, "signature_invalid")
    assert [r.detail for r in verdict.reasons] == [OTHER_SCHEME]


def test_step_15_accepts_the_other_scheme_of_a_key_that_is_of_it(tee: TpmTee) -> None:
    tee.ak_key = rsa_key("ak")
    area = public_area(tee.ak_key, tee.ak_attributes)
    tee.body["ak"] = area.replace(bytes.fromhex("0014000b"), bytes.fromhex("0016000b"))
    binding = tee.binding()
    genuine = pss_signature(tee.ak_key, parse_body(tee.evidence(binding).body).quote.raw)
    tee.sig_edit = lambda _: genuine
    assert isinstance(tee.appraise(binding_raw=binding), AppraisedEvidence)


def test_every_bit_of_the_quote_counts(tee: TpmTee) -> None:
    binding = tee.binding()
    honest = tee.evidence(binding)
    activation, policy, posture = tee.activation(honest), tee.policy(), tee.posture()
    parsed = parse_body(honest.body)
    for at in range(len(parsed.quote.raw)):
        quote = parsed.quote.raw
        flipped = quote[:at] + bytes([quote[at] ^ 1 << at % 8]) + quote[at + 1 :]
        verdict = appraise(
            binding, [_with(tee, honest, quote=flipped)], posture, policy, NOW,
            activation=activation,
        )  # fmt: skip
        assert isinstance(verdict, Refused), at
        assert {"evidence_malformed", "signature_invalid"} & set(verdict.codes), at


def test_every_bit_of_the_signature_counts(tee: TpmTee) -> None:
    binding = tee.binding()
    honest = tee.evidence(binding)
    activation, policy, posture = tee.activation(honest), tee.policy(), tee.posture()
    signature = _signature(honest)
    for at in range(len(signature)):
        flipped = signature[:at] + bytes([signature[at] ^ 1 << at % 8]) + signature[at + 1 :]
        verdict = appraise(
            binding, [_with(tee, honest, sig=flipped)], posture, policy, NOW,
            activation=activation,
        )  # fmt: skip
        assert isinstance(verdict, Refused), at


# ---------------------------------------------------------------- step 16


def test_step_16_refuses_without_activation(tee: TpmTee) -> None:
    verdict = refused(tee.appraise(activation=None), "activation_missing")
    assert [check.ok for check in verdict.checks if check.step == "16 activation"] == [None]


@pytest.mark.parametrize("answer", [None, {}, {"secret": "!"}, {"secret": "AA", "more": 1}, 7])
def test_step_16_refuses_an_unusable_answer(tee: TpmTee, answer: object) -> None:
    def change(activation: Activation) -> Activation:
        from attestation.verify.credential import Challenge

        return Challenge(activation.credential, activation.secret_expected).activation(answer)

    refused(tee.appraise(activation=_activation(tee, change)[0]), "activation_missing")


def test_step_16_refuses_a_wrong_answer(tee: TpmTee) -> None:
    activation, evidence = _activation(tee, lambda a: dataclasses.replace(a, answer=bytes(32)))
    refused(tee.appraise(evidence=[evidence], activation=activation), "activation_mismatch")


def test_step_16_refuses_an_activation_of_another_attestation_key(tee: TpmTee) -> None:
    other = TpmTee()
    activation = other.activation(other.evidence(other.binding()))
    refused(tee.appraise(activation=activation), "activation_foreign")


def test_step_16_refuses_an_activation_under_another_endorsement_key(tee: TpmTee) -> None:
    other = TpmTee()
    other.ak_key, other.ek_key = tee.ak_key, rsa_key("another ek")
    activation = other.activation(other.evidence(other.binding()))
    refused(tee.appraise(activation=activation), "activation_foreign")


# ---------------------------------------------------------------- steps 17 to 21


def test_step_17_refuses_a_quote_for_another_binding(tee: TpmTee) -> None:
    evidence = tee.evidence(tee.binding())
    tee.facts["kems"] = [TpmTee("attacker").kem("647a-0001-0002")]
    refused(tee.appraise(evidence=[evidence]), "report_data_mismatch")


@pytest.mark.parametrize("extra", [b"", bytes(32), report32(b"")], ids=["empty", "zeros", "other"])
def test_step_17_refuses_other_callers_data(tee: TpmTee, extra: bytes) -> None:
    tee.extra_data = extra
    refused(tee.appraise(), "report_data_mismatch")


def test_step_19_refuses_values_the_quote_does_not_cover(tee: TpmTee) -> None:
    tee.reported = {**tee.registers, 3: bytes([1]) * 32}
    refused(tee.appraise(), "pcr_digest_mismatch")


def test_step_19_refuses_a_register_beside_the_quoted_ones(tee: TpmTee) -> None:
    tee.reported = {**tee.registers, 12: bytes(32)}
    refused(tee.appraise(), "pcr_selection")


def test_step_19_refuses_a_quote_without_the_measured_register(tee: TpmTee) -> None:
    del tee.registers[11]
    refused(tee.appraise(), "pcr_selection")


def test_step_19_refuses_a_quoted_register_that_is_not_given(tee: TpmTee) -> None:
    tee.reported = {number: v for number, v in tee.registers.items() if number != 11}
    refused(tee.appraise(), "pcr_selection")


def test_step_19_refuses_a_measured_register_that_was_never_extended(tee: TpmTee) -> None:
    tee.registers[11] = bytes(32)
    refused(tee.appraise(), "pcr_mismatch")


def test_step_19_refuses_a_measured_register_extended_twice(tee: TpmTee) -> None:
    """Something else was measured after the worker: what runs now is not what the parts say."""
    tee.registers[11] = hashlib.sha256(tee.registers[11] + bytes(32)).digest()
    refused(tee.appraise(), "pcr_mismatch")


def test_step_19_refuses_parts_the_register_does_not_hold(tee: TpmTee) -> None:
    tee.parts = {**tee.parts, "model": OTHER}
    tee.facts["image"] = tee.measurement()
    tee.rule["measurements"] = [tee.measurement()]
    refused(tee.appraise(), "pcr_mismatch")


def test_step_19_reads_the_register_the_policy_names(tee: TpmTee) -> None:
    tee.rule["pcr"] = 12
    refused(tee.appraise(), "pcr_selection")


def test_step_20_refuses_a_binding_that_claims_another_image(tee: TpmTee) -> None:
    tee.facts["image"] = OTHER
    refused(tee.appraise(), "image_mismatch")


def test_step_21_refuses_a_measurement_the_policy_does_not_list(tee: TpmTee) -> None:
    tee.rule["measurements"] = [OTHER]
    refused(tee.appraise(), "measurement_not_accepted")


def test_step_21_deny_wins_over_an_accepted_measurement(tee: TpmTee) -> None:
    tee.demands["deny"] = {"measurements": [tee.measurement()]}
    refused(tee.appraise(), "denied", "denied")


# ---------------------------------------------------------------- pieces


def _signature(evidence: Evidence) -> bytes:
    import json

    from wire.ids import unb64u

    return unb64u(json.loads(evidence.body)["sig"])


def _with(tee: TpmTee, evidence: Evidence, **changes: bytes) -> Evidence:
    """The same evidence with other quote or signature bytes, nothing signed again."""
    parsed = parse_body(evidence.body)
    members = {
        "quote": parsed.quote.raw,
        "sig": _signature(evidence),
        "pcrs": dict(parsed.pcrs),
        "ak": parsed.ak.raw,
        "ek": parsed.ek.raw,
        "ek_cert": parsed.ek_cert,
        "chain": parsed.chain,
        "parts": tee.parts,
    }
    return Evidence("tpm2", encode_body(**{**members, **changes}))  # type: ignore[arg-type]


def _unparsed(tee: TpmTee) -> Evidence:
    return tee.evidence(tee.binding())


def _activation(
    tee: TpmTee, change: Callable[[Activation], Activation]
) -> tuple[Activation, Evidence]:
    evidence = tee.evidence(tee.binding())
    return change(tee.activation(evidence)), evidence


def test_the_credential_travels_as_json_and_back(tee: TpmTee) -> None:
    from attestation.verify.credential import Credential

    credential = tee.activation(tee.evidence(tee.binding())).credential
    assert Credential.from_json(credential.to_json()) == credential
    assert set(credential.to_json()) == {"blob", "secret", "ak", "ek"}
    assert credential.to_json()["ak"] == b64u(credential.ak_name)

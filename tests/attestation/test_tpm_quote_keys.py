"""`tpm2-quote`: what an attestation key signs and how, and what its TPM says of it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from simulators.tpm import AK_ATTRIBUTES, ecdsa_signature, pss_signature, public_area, sign_quote
from simulators.verdicts import codes_of
from simulators.vtpm import ec_key, rsa_key
from simulators.vtpm_verdicts import examine, measured

from attestation.formats.tpm_structures import DECRYPT, FIXED_TPM, RESTRICTED, SIGN

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_an_rsa_attestation_key_signs_as_well() -> None:
    assert codes_of(examine(measured(key=rsa_key("ak")).evidence())) == []


def test_a_plain_rsa_signature_is_the_same_signature() -> None:
    evidence = measured(key=rsa_key("ak")).evidence()
    assert codes_of(examine({**evidence, "quote_sig": evidence["quote_sig"][6:]})) == []


def test_a_der_ecdsa_signature_is_the_same_signature() -> None:
    evidence = measured().evidence()
    r, s = _pair(evidence["quote_sig"])
    assert codes_of(examine({**evidence, "quote_sig": encode_dss_signature(r, s)})) == []


def test_the_public_area_may_come_without_its_length() -> None:
    evidence = measured().evidence()
    assert codes_of(examine({**evidence, "ak_public": evidence["ak_public"][2:]})) == []


def test_any_flipped_bit_of_the_signed_bytes_is_refused() -> None:
    evidence = measured().evidence()
    raw = evidence["quote_msg"]
    for bit in range(0, len(raw) * 8, 3):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        codes = codes_of(examine({**evidence, "quote_msg": bytes(flipped)}))
        assert codes[0] in ("signature_invalid", "evidence_malformed")


def test_a_quote_by_another_key_is_refused() -> None:
    evidence = measured().evidence()
    forged = sign_quote(ec_key("attacker"), evidence["quote_msg"])
    assert codes_of(examine({**evidence, "quote_sig": forged})) == ["signature_invalid"]


def test_another_key_with_its_own_public_area_is_not_the_certified_one() -> None:
    honest, attacker = measured(), measured(key=ec_key("attacker"))
    evidence = attacker.evidence(ak_cert=honest.cert)
    assert codes_of(examine(evidence)) == ["ak_mismatch", "signature_invalid"]


@pytest.mark.parametrize("r", [0, None, P256_ORDER])
@pytest.mark.parametrize("s", [0, None, P256_ORDER])
def test_r_and_s_out_of_range_are_refused(r: int | None, s: int | None) -> None:
    if r is None and s is None:
        return
    evidence = measured().evidence()
    honest = _pair(evidence["quote_sig"])
    pair = (honest[0] if r is None else r, honest[1] if s is None else s)
    assert codes_of(examine({**evidence, "quote_sig": ecdsa_signature(*pair)})) == [
        "signature_invalid"
    ]


def test_a_sha1_signature_is_refused() -> None:
    evidence = measured().evidence()
    sha1 = evidence["quote_sig"][:2] + b"\x00\x04" + evidence["quote_sig"][4:]
    assert "signature_invalid" in codes_of(examine({**evidence, "quote_sig": sha1}))


def test_a_signature_by_another_scheme_than_the_keys_own_is_refused() -> None:
    tpm = measured(key=rsa_key("ak"))
    evidence = tpm.evidence()
    genuine = pss_signature(tpm.key, evidence["quote_msg"])
    found = examine({**evidence, "quote_sig": genuine})
    assert codes_of(found) == ["signature_invalid"]
    assert found.reasons[0].detail == "quote: the scheme is not the attestation key's own"
    area = evidence["ak_public"].replace(bytes.fromhex("0014000b"), bytes.fromhex("0016000b"))
    of_pss = {**evidence, "ak_public": area}
    assert codes_of(examine({**of_pss, "quote_sig": genuine})) == []
    assert codes_of(examine(of_pss)) == ["signature_invalid"]


@pytest.mark.parametrize("bit", [RESTRICTED, SIGN, FIXED_TPM])
def test_a_key_that_signs_more_than_its_tpm_made_is_refused(bit: int) -> None:
    evidence = measured().evidence()
    tpm = measured(attributes=AK_ATTRIBUTES & ~bit)
    changed = public_area(tpm.key, AK_ATTRIBUTES).replace(
        AK_ATTRIBUTES.to_bytes(4, "big"), (AK_ATTRIBUTES & ~bit).to_bytes(4, "big")
    )
    assert codes_of(examine({**evidence, "ak_public": changed})) == ["ak_attributes"]


def test_a_key_that_also_decrypts_is_refused() -> None:
    evidence = measured().evidence()
    changed = evidence["ak_public"].replace(
        AK_ATTRIBUTES.to_bytes(4, "big"), (AK_ATTRIBUTES | DECRYPT).to_bytes(4, "big")
    )
    assert codes_of(examine({**evidence, "ak_public": changed})) == ["ak_attributes"]


def test_a_certified_key_without_its_attributes_is_refused() -> None:
    assert codes_of(examine(measured().evidence(ak_public=None))) == ["ak_attributes"]


def _pair(signature: bytes) -> tuple[int, int]:
    """r and s of a TPMT_SIGNATURE on P-256."""
    r, s = int.from_bytes(signature[6:38], "big"), int.from_bytes(signature[40:72], "big")
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    return r, s

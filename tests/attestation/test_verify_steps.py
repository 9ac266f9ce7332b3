"""Corners of single verification steps that no whole appraisal reaches."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.tpm import (
    AK_ATTRIBUTES,
    EK_ATTRIBUTES,
    TpmTee,
    public_area,
    quote_bytes,
    rsa_key,
    sign_quote,
)

from attestation.formats.tpm_structures import parse_public, parse_quote, parse_signature
from attestation.verify.credential import Challenge, Credential, check_activation
from attestation.verify.tpm import (
    check_attestation_key,
    check_endorsement_key,
    verify_signature,
)
from attestation.verify.x509 import DEPTH_MAX, verify_chain
from wire.errors import AttestationError

TEE = TpmTee()
RAW = quote_bytes(b"nonce", TEE.registers)
QUOTE = parse_quote(RAW)


def reason(caught: pytest.ExceptionInfo[AttestationError]) -> str:
    (code,) = caught.value.reasons
    return code


def pss(salt: int) -> bytes:
    """TPMT_SIGNATURE by RSAPSS with a salt of the given length."""
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    signature = rsa_key("ak").sign(RAW, scheme, hashes.SHA256())
    return b"\x00\x16\x00\x0b" + len(signature).to_bytes(2, "big") + signature


@pytest.mark.parametrize("salt", [32, 222], ids=["digest-length", "all-the-room"])
def test_rsapss_quotes_verify_with_either_salt_tpms_use(salt: int) -> None:
    key = rsa_key("ak").public_key()
    assert verify_signature(QUOTE, parse_signature(pss(salt)), key)


def test_a_signature_is_not_verified_with_a_key_of_another_type() -> None:
    ecdsa = parse_signature(sign_quote(TEE.ak_key, RAW))
    rsassa = parse_signature(sign_quote(rsa_key("ak"), RAW))
    for signature, key in ((ecdsa, rsa_key("ak")), (rsassa, TEE.ak_key)):
        with pytest.raises(AttestationError) as caught:
            verify_signature(QUOTE, signature, key.public_key())
        assert reason(caught) == "signature_invalid"


def test_a_sha1_signature_is_refused_whatever_the_key_says() -> None:
    signature = parse_signature(sign_quote(TEE.ak_key, RAW, 0x0004))
    with pytest.raises(AttestationError, match="expected SHA-2") as caught:
        verify_signature(QUOTE, signature, TEE.ak_key.public_key())
    assert reason(caught) == "signature_invalid"


def test_an_attestation_key_whose_scheme_is_open_is_refused() -> None:
    """Without a scheme of its own the key would sign with whatever hash a caller names."""
    area = public_area(TEE.ak_key, AK_ATTRIBUTES)
    open_scheme = area[2:].replace(bytes.fromhex("0018000b"), b"\x00\x10")
    ak = parse_public(len(open_scheme).to_bytes(2, "big") + open_scheme)
    with pytest.raises(AttestationError) as caught:
        check_attestation_key(ak)
    assert reason(caught) == "ak_attributes"


def test_a_certificate_for_a_key_no_tpm_has_is_refused() -> None:
    der = TEE.maker.endorse(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    ek = parse_public(public_area(TEE.ek_key, EK_ATTRIBUTES))
    with pytest.raises(AttestationError) as caught:
        check_endorsement_key(ek, x509.load_der_x509_certificate(der))
    assert reason(caught) == "ek_mismatch"


def test_a_chain_is_bounded_before_it_is_read() -> None:
    with pytest.raises(AttestationError, match=f"found {DEPTH_MAX + 1} intermediates") as caught:
        verify_chain(b"", [b""] * (DEPTH_MAX + 1), [], TEE.now)
    assert reason(caught) == "chain_invalid"


def test_no_root_accepts_no_chain() -> None:
    with pytest.raises(AttestationError) as caught:
        verify_chain(TEE.maker.endorse(TEE.ek_key), TEE.chain, [], TEE.now)
    assert reason(caught) == "untrusted_root"


def test_the_name_of_an_issuer_is_compared_too() -> None:
    """The right key under another name is another authority."""
    maker = TEE.maker
    renamed = maker.certificate("renamed", "maker root", maker.issuer_key, maker.root_key)
    with pytest.raises(AttestationError) as caught:
        verify_chain(maker.endorse(TEE.ek_key), [renamed], [maker.root], TEE.now)
    assert reason(caught) == "chain_invalid"


def test_activation_without_a_challenge_or_an_answer_is_missing() -> None:
    credential = Credential(b"", b"", b"ak", b"ek")
    for activation in (None, Challenge(credential, bytes(32)).activation(None)):
        with pytest.raises(AttestationError) as caught:
            check_activation(activation, b"ak", b"ek")
        assert reason(caught) == "activation_missing"


def test_secrets_do_not_show_in_representations() -> None:
    challenge = Challenge(Credential(b"", b"", b"", b""), b"the secret")
    assert "the secret" not in repr(challenge)
    assert "the secret" not in repr(challenge.activation({"secret": "dGhlIHNlY3JldA"}))

"""Quotes that real vendors' TPMs made: parsed to the expected claims, verified, and refused if cut.

The samples come from $ANCHORHOLD_VECTORS (index.json, kind `tpm2-quote`).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from simulators.tpm import TpmMaker

from attestation.formats.tpm_structures import (
    Quote,
    Signature,
    parse_public,
    parse_quote,
    parse_signature,
)
from attestation.verify.tpm import (
    check_attestation_key,
    check_extra_data,
    check_registers,
    verify_signature,
)
from attestation.verify.x509 import verify_chain
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from pathlib import Path

GCE, COCO = "gce-cos-85-nonce9009", "tpm2-coco-rsa"
BANKS = ("sha1", "sha256", "sha384")


class Sample:
    """One vector: its files and expectations."""

    def __init__(self, vectors: dict[str, Any], name: str) -> None:
        self.root: Path = vectors["root"]
        self.vector = vectors[name]

    def read(self, role: str) -> bytes:
        return (self.root / self.vector["files"][role]).read_bytes()

    def quote(self, bank: str) -> tuple[Quote, Signature, dict[str, Any]]:
        claims = self.vector["expected"]["claims"]["quotes"][bank]
        return (
            parse_quote(self.read(f"quote_{bank}")),
            parse_signature(self.read(f"sig_{bank}")),
            claims,
        )


@pytest.fixture
def gce(vectors: dict[str, Any]) -> Sample:
    return Sample(vectors, GCE)


@pytest.fixture
def coco(vectors: dict[str, Any]) -> Sample:
    return Sample(vectors, COCO)


def values(claims: dict[str, Any]) -> dict[int, bytes]:
    return {int(number): bytes.fromhex(value) for number, value in claims["pcrs"].items()}


@pytest.mark.parametrize("bank", BANKS)
def test_gce_quotes_give_the_expected_claims_and_verify(gce: Sample, bank: str) -> None:
    quote, signature, claims = gce.quote(bank)
    assert quote.extra_data.hex() == claims["extra_data"]
    assert quote.pcr_digest.hex() == claims["pcr_digest"]
    assert [selection.bank for selection in quote.selections] == [bank]
    area = gce.read("ak_public")
    ak = parse_public(len(area).to_bytes(2, "big") + area)
    assert check_attestation_key(ak)
    assert verify_signature(quote, signature, ak.key, (ak.scheme, ak.scheme_hash))
    nonce = bytes.fromhex(gce.vector["inputs"]["expected_nonce_hex"])
    assert check_extra_data(quote, nonce, "nonce_mismatch")
    assert check_registers(quote, signature, {bank: values(claims)})


def test_gce_quote_for_another_nonce_is_refused(gce: Sample) -> None:
    quote, _, _ = gce.quote("sha256")
    with pytest.raises(AttestationError) as caught:
        check_extra_data(quote, b"\x90\x08", "nonce_mismatch")
    assert caught.value.reasons == ("nonce_mismatch",)


def test_gce_registers_of_another_bank_or_value_are_refused(gce: Sample) -> None:
    quote, signature, claims = gce.quote("sha256")
    honest = values(claims)
    with pytest.raises(AttestationError) as caught:
        check_registers(quote, signature, {"sha256": {**honest, 11: bytes([1]) * 32}})
    assert caught.value.reasons == ("pcr_digest_mismatch",)
    with pytest.raises(AttestationError) as caught:
        check_registers(quote, signature, {"sha384": values(gce.quote("sha384")[2])})
    assert caught.value.reasons == ("pcr_selection",)


def test_gce_signatures_do_not_fit_another_quote(gce: Sample) -> None:
    quote, _, _ = gce.quote("sha256")
    _, other, _ = gce.quote("sha384")
    area = gce.read("ak_public")
    ak = parse_public(len(area).to_bytes(2, "big") + area)
    with pytest.raises(AttestationError) as caught:
        verify_signature(quote, other, ak.key)
    assert caught.value.reasons == ("signature_invalid",)


def test_gce_attestation_key_is_certified_up_to_the_pinned_root(gce: Sample) -> None:
    now = int(datetime.fromisoformat(gce.vector["verify_at"]).timestamp())
    certificate, expires = verify_chain(
        gce.read("ak_cert"), [gce.read("intermediate")], [gce.read("root")], now
    )
    area = gce.read("ak_public")
    key = parse_public(len(area).to_bytes(2, "big") + area).key
    assert isinstance(key, rsa.RSAPublicKey)
    certified = certificate.public_key()
    assert isinstance(certified, rsa.RSAPublicKey)
    assert certified.public_numbers() == key.public_numbers()
    end = datetime.fromisoformat(gce.vector["valid_window"]["not_after"])
    assert expires == int(end.timestamp())


def test_gce_chain_is_refused_under_another_root_and_outside_its_time(gce: Sample) -> None:
    now = int(datetime.fromisoformat(gce.vector["verify_at"]).timestamp())
    leaf, chain, root = gce.read("ak_cert"), [gce.read("intermediate")], gce.read("root")
    with pytest.raises(AttestationError) as caught:
        verify_chain(leaf, [*chain, root], [TpmMaker(now).root], now)
    assert caught.value.reasons == ("untrusted_root",)
    begin = datetime.fromisoformat(gce.vector["valid_window"]["not_before"])
    with pytest.raises(AttestationError) as caught:
        verify_chain(leaf, chain, [root], int(begin.timestamp()) - 1)
    assert caught.value.reasons == ("certificate_not_valid_at_time",)
    with pytest.raises(AttestationError) as caught:
        verify_chain(leaf, [], [root], now)
    assert caught.value.reasons == ("untrusted_root",)


def test_coco_quote_gives_the_expected_claims_and_verifies(coco: Sample) -> None:
    quote = parse_quote(coco.read("quote_msg"))
    signature = parse_signature(coco.read("quote_sig"))
    claims = coco.vector["expected"]["claims"]
    assert quote.extra_data.hex() == claims["extra_data"]
    assert quote.pcr_digest.hex() == claims["pcr_digest"]
    assert f"{quote.firmware:016x}" == claims["firmware_version"]
    key = load_der_public_key(coco.read("ak_spki"))
    assert isinstance(key, rsa.RSAPublicKey)
    assert verify_signature(quote, signature, key)
    assert check_extra_data(quote, bytes.fromhex(claims["extra_data"]), "nonce_mismatch")
    listed = json.loads(coco.read("evidence"))["tpm_quote"]["pcrs"]
    registers = {number: bytes.fromhex(value) for number, value in enumerate(listed)}
    assert check_registers(quote, signature, {"sha256": registers})


def test_coco_quote_with_any_flipped_bit_is_refused(coco: Sample) -> None:
    raw = coco.read("quote_msg")
    signature = parse_signature(coco.read("quote_sig"))
    key = load_der_public_key(coco.read("ak_spki"))
    assert isinstance(key, rsa.RSAPublicKey)
    for at in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises((MalformedError, AttestationError)):
            verify_signature(parse_quote(bytes(flipped)), signature, key)

"""Certificates as they come beside a report: AMD's table of them, and PEM."""

from __future__ import annotations

import uuid

import pytest
from simulators.snp_report import GUIDS, table

from attestation.formats.certificate_table import ENTRIES_MAX, TABLE_MAX, parse_table
from attestation.formats.pem import CERTIFICATE_MAX, CERTIFICATES_MAX, TEXT_MAX, certificates
from wire.errors import MalformedError


def test_the_tables_names_are_the_specified_guids() -> None:
    text = {
        "vcek": "63da758d-e664-4564-adc5-f4b93be8accd",
        "vlek": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
        "ask": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
        "ark": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
        "crl": "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    }
    assert {name: uuid.UUID(value).bytes for name, value in text.items()} == GUIDS


def test_a_table_gives_the_certificates_it_names() -> None:
    entries = {"vcek": b"leaf", "crl": b"list", "ask": b"middle"}
    assert parse_table(table(entries)) == {"vcek": b"leaf", "ask": b"middle"}
    assert parse_table(b"") == {}
    assert parse_table(bytes(24)) == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"\1" * 24,
        table({"vcek": b"x"})[:-26],
        GUIDS["vcek"] + b"\xff" * 8 + bytes(24),
        GUIDS["vcek"] + bytes(4) + (CERTIFICATE_MAX + 1).to_bytes(4, "little") + bytes(20_000),
        GUIDS["vcek"] + bytes(4) + b"\1\0\0\0" + GUIDS["vcek"] + bytes(4) + b"\1\0\0\0" + bytes(24),
        (b"\1" * 16 + bytes(8)) * (ENTRIES_MAX + 1) + bytes(24),
        bytes(TABLE_MAX + 1),
    ],
    ids=["no end", "cut", "outside", "too long", "twice", "many", "large"],
)
def test_a_table_that_is_not_well_formed_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_table(raw)


BLOCK = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


def test_pem_gives_its_certificates_in_order() -> None:
    assert certificates(BLOCK * 2, "chain") == (b"0\0", b"0\0")
    assert certificates(b"\r\n" + BLOCK.replace(b"\n", b"\r\n"), "chain") == (b"0\0",)
    assert certificates(b"0\0", "chain") == (b"0\0",)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"text\n" + BLOCK,
        BLOCK + b"text",
        BLOCK[:-5],
        BLOCK.replace(b"MAA=", b"MAB="),  # bits that no byte has
        BLOCK.replace(b"MAA=", b"MA_="),
        BLOCK.replace(b"MAA=", b""),
        BLOCK.replace(b"CERTIFICATE", b"X509 CRL"),
        BLOCK * (CERTIFICATES_MAX + 1),
        b"0" + bytes(CERTIFICATE_MAX),
        b" " * (TEXT_MAX + 1),
        BLOCK.replace(b"\nMAA=", BLOCK),
    ],
)
def test_pem_that_is_not_strict_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        certificates(raw, "chain")

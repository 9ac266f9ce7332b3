"""Intel's formats: anything that deviates is refused with the parsers' own error, within bounds."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.intel import Intel
from simulators.intel_parts import integer, octets, pair, pem, sized, tlv

from attestation.formats.dcap_bodies import parse_enclave_report, parse_td_report
from attestation.formats.dcap_quote import CERT_DATA_MAX, QUOTE_MAX, parse_quote
from attestation.formats.intel_collateral import COLLATERAL_MAX, parse_collateral
from attestation.formats.intel_statements import parse_qe_identity, parse_tcb_info
from attestation.formats.pck import names, parse_chain, parse_pck, self_issued
from attestation.schemes import sgx, tdx
from wire.errors import MalformedError

KINDS = [("tdx", 4), ("tdx", 5), ("sgx", 3)]


@cache
def genuine(tee: str, version: int) -> tuple[Intel, bytes, bytes]:
    intel = Intel(tee, version)
    return intel, intel.quote(), intel.collateral()


def put(raw: bytes, at: int, value: bytes) -> bytes:
    return raw[:at] + value + raw[at + len(value) :]


@pytest.mark.parametrize(("tee", "version"), KINDS)
def test_quote_gives_back_what_was_put_in(tee: str, version: int) -> None:
    intel, raw, _ = genuine(tee, version)
    quote = parse_quote(raw)
    assert (quote.version, quote.tee) == (version, tee.upper())
    assert quote.signed == intel.signed()
    assert quote.body.report_data == intel.body["report_data"]
    assert quote.qe_auth == intel.qe_auth
    assert quote.cert_data == intel.pck_chain()


@pytest.mark.parametrize(("tee", "version"), KINDS)
def test_every_truncation_is_malformed(tee: str, version: int) -> None:
    _, raw, _ = genuine(tee, version)
    for end in [*range(0, 1300, 7), *range(1300, len(raw), 97), len(raw) - 1]:
        with pytest.raises(MalformedError):
            parse_quote(raw[:end])


def lengths(tee: str, version: int) -> list[tuple[int, int]]:
    """(offset, width) of every length field."""
    body = {4: 584, 5: 6 + 648, 3: 384}[version]
    section = 48 + body
    inner = section + 4 + 128 + (0 if version == 3 else 6)
    auth = inner + 384 + 64
    fields = [(section, 4), (auth, 2), (auth + 2 + 32 + 2, 4)]
    if version != 3:
        fields.append((section + 4 + 128 + 2, 4))
    if version == 5:
        fields.append((50, 4))
    return fields


@pytest.mark.parametrize(("tee", "version"), KINDS)
@pytest.mark.parametrize("change", [-1, 1, 1 << 15, "max"])
def test_every_length_field_that_lies_is_malformed(
    tee: str, version: int, change: int | str
) -> None:
    _, raw, _ = genuine(tee, version)
    for at, width in lengths(tee, version):
        honest = int.from_bytes(raw[at : at + width], "little")
        limit = (1 << 8 * width) - 1
        value = limit if change == "max" else min(limit, honest + int(change))
        with pytest.raises(MalformedError):
            parse_quote(put(raw, at, value.to_bytes(width, "little")) + b"\0" * (tee == "tdx"))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"\x06\x00"),  # version 6
        (0, b"\x00\x00"),
        (2, b"\x03\x00"),  # P-384 attestation key
        (4, b"\x82\x00\x00\x00"),  # unknown TEE
        (4, b"\x00\x00\x00\x00"),  # an SGX body of another length
        (632 + 4 + 128, b"\x05\x00"),  # certification type 5 where 6 belongs
    ],
)
def test_unknown_version_key_type_tee_or_certification_is_malformed(at: int, value: bytes) -> None:
    _, raw, _ = genuine("tdx", 4)
    with pytest.raises(MalformedError):
        parse_quote(put(raw, at, value))


@pytest.mark.parametrize("body_type", [0, 1, 2, 4, 0xFFFF])
def test_v5_body_of_another_type_is_malformed(body_type: int) -> None:
    _, raw, _ = genuine("tdx", 5)
    with pytest.raises(MalformedError):
        parse_quote(put(raw, 48, body_type.to_bytes(2, "little")))


@pytest.mark.parametrize("pck_type", [1, 2, 3, 4, 6, 7])
def test_certification_data_other_than_a_chain_is_malformed(pck_type: int) -> None:
    _, raw, _ = genuine("tdx", 4)
    at = 632 + 4 + 128 + 6 + 384 + 64 + 2 + 32
    with pytest.raises(MalformedError):
        parse_quote(put(raw, at, pck_type.to_bytes(2, "little")))


def test_certificate_chain_of_a_mebibyte_is_malformed() -> None:
    intel = Intel()
    intel.edits["cert_data"] = lambda chain: chain + b"\n" * (1 << 20)
    raw = intel.quote()
    assert len(raw) > QUOTE_MAX
    with pytest.raises(MalformedError):
        parse_quote(raw)


def test_certificate_chain_over_its_own_limit_is_malformed() -> None:
    intel = Intel()
    intel.edits["cert_data"] = lambda chain: chain + b"\n" * CERT_DATA_MAX
    with pytest.raises(MalformedError):
        parse_quote(intel.quote())


def test_zeros_after_a_tdx_quote_are_counted_and_after_an_sgx_quote_malformed() -> None:
    _, raw, _ = genuine("tdx", 4)
    assert parse_quote(raw + bytes(70)).trailing == bytes(70)
    assert tdx.examine(replace_quote("tdx", 4, raw + bytes(3065))).authentic is True
    _, raw, _ = genuine("sgx", 3)
    with pytest.raises(MalformedError):
        parse_quote(raw + b"\0")


def test_reserved_byte_of_an_enclave_report_is_malformed_when_set() -> None:
    report = parse_quote(genuine("sgx", 3)[1]).qe_report.raw
    for at in (20, 96, 160, 262):
        with pytest.raises(MalformedError):
            parse_enclave_report(put(report, at, b"\x01"), "report")


@pytest.mark.parametrize("length", [0, 383, 385, 583, 585, 647, 649])
def test_body_of_another_length_is_malformed(length: int) -> None:
    with pytest.raises(MalformedError):
        parse_enclave_report(bytes(length), "report")
    with pytest.raises(MalformedError):
        parse_td_report(bytes(length))


# ---- chains and the SGX extension


def test_chain_in_pem_with_crlf_or_root_first_reads_the_same() -> None:
    intel = Intel()
    chain = intel.pck_chain()
    expected = parse_chain(chain, "chain")
    assert parse_chain(chain.replace(b"\n", b"\r\n"), "chain") == expected
    backwards = parse_chain(pem(*reversed(expected.ders)), "chain")
    assert (backwards.ders, backwards.pem, backwards.turned) == (expected.ders, True, True)
    der = parse_chain(b"".join(reversed(expected.ders)), "chain")
    assert (der.ders, der.pem, der.turned) == (expected.ders, False, True)


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_chain_reads_the_same_with_any_number_of_closing_nuls(count: int) -> None:
    chain = Intel().pck_chain()
    assert chain.endswith(b"\n\0")
    assert parse_chain(chain[:-1] + bytes(count), "chain") == parse_chain(chain, "chain")


def test_names_of_a_certificate_are_its_issuers_and_its_own() -> None:
    intel = Intel()
    pck, ca, root = parse_chain(intel.pck_chain(), "chain").ders
    assert names(pck)[0] == names(ca)[1] != names(root)[1]
    assert names(ca)[0] == names(root)[1]
    assert [self_issued(der) for der in (pck, ca, root)] == [False, False, True]
    with pytest.raises(MalformedError):
        names(pck[:20])


@pytest.mark.parametrize(
    "change",
    [
        lambda chain: b"",
        lambda chain: b"\0",
        lambda chain: chain + b"x",
        lambda chain: b"x" + chain,
        lambda chain: chain + chain,
        lambda chain: chain.replace(b"-----\n-----BEGIN", b"-----\nx\n-----BEGIN", 1),
        lambda chain: chain.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        lambda chain: chain.replace(b"MII", b"M*I", 1),
        lambda chain: chain * 3,
        lambda chain: b"\x30\x84\xff\xff\xff\xff",
        lambda chain: b"\x30\x80\x00\x00",
        lambda chain: b"\x30\x02\x00",
    ],
    ids=range(12),
)
def test_chain_with_anything_else_in_it_is_malformed(change: object) -> None:
    with pytest.raises(MalformedError):
        parse_chain(change(Intel().pck_chain()), "chain")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("tail", "value"),
    [
        ("1", octets(bytes(15))),
        ("3", octets(bytes(3))),
        ("4", tlv(0x02, bytes(6))),
        ("5", tlv(0x0A, b"\x03")),
        ("7", tlv(0x30, pair("7.1", tlv(0x01, b"\x01")))),
        ("2", tlv(0x30, b"")),
        ("2", tlv(0x30, b"".join(pair(f"2.{n}", integer(300)) for n in range(1, 19)))),
    ],
)
def test_sgx_extension_field_of_another_form_is_malformed(tail: str, value: bytes) -> None:
    intel = Intel()
    intel.pck_fields[tail] = value
    intel.pck.sgx = intel.sgx_extension()
    with pytest.raises(MalformedError):
        parse_pck(intel.pck.der(intel.now))


@pytest.mark.parametrize(
    "extension",
    [
        b"",
        tlv(0x31, b""),
        tlv(0x30, b"") + b"x",
        tlv(0x30, pair("1", octets(bytes(16))) * 2),
        tlv(0x30, pair("1", octets(bytes(16))) * 100),
        tlv(0x30, octets(b"")),
        tlv(0x30, tlv(0x30, octets(b"") + octets(b""))),
    ],
)
def test_sgx_extension_of_another_form_is_malformed(extension: bytes) -> None:
    intel = Intel()
    intel.pck.sgx = extension
    with pytest.raises(MalformedError):
        parse_pck(intel.pck.der(intel.now))


def test_a_whole_sgx_extension_in_which_one_field_stands_twice_is_malformed() -> None:
    """Which of the two counts would be the parser's choice, and another's may be another."""
    intel = Intel()
    honest = intel.sgx_extension()
    assert honest[:2] == b"\x30\x82"
    fields = honest[4:]
    for level in ("2", "7"):
        intel.pck_fields[level] = tlv(0x30, _fields_of(intel, level))
    assert intel.sgx_extension() == honest
    for tail, value in (
        ("1", octets(intel.ppid)),
        ("4", octets(bytes(6))),
        ("5", tlv(0x0A, b"\x00")),
        ("2.5", integer(255)),
        ("2.17", integer(intel.pcesvn)),
        ("7.3", tlv(0x01, b"\x00")),
    ):
        again, (level, _, inner) = pair(tail, value), tail.partition(".")
        for before in (True, False):
            if inner:
                own = _fields_of(intel, level)
                intel.pck_fields = {level: tlv(0x30, again + own if before else own + again)}
                intel.pck.sgx = intel.sgx_extension()
            else:
                intel.pck.sgx = tlv(0x30, again + fields if before else fields + again)
            with pytest.raises(MalformedError, match="found an SGX field twice"):
                parse_pck(intel.pck.der(intel.now))
    intel.pck.sgx = honest
    assert parse_pck(intel.pck.der(intel.now)).fmspc == intel.fmspc


def _fields_of(intel: Intel, level: str) -> bytes:
    """The honest fields of the TCB, or of the configuration."""
    if level == "2":
        values = enumerate([*intel.components, intel.pcesvn], 1)
        numbers = b"".join(pair(f"2.{index}", integer(value)) for index, value in values)
        return numbers + pair("2.18", octets(bytes(intel.components)))
    return b"".join(pair(f"7.{index}", tlv(0x01, b"\xff")) for index in (1, 2, 3))


def test_certificate_without_an_sgx_extension_is_malformed() -> None:
    with pytest.raises(MalformedError):
        parse_pck(Intel().root_der())
    with pytest.raises(MalformedError):
        parse_pck(b"\x30\x00")


# ---- collateral


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("fmspc",), "90c06f00000"),
        (("fmspc",), "90c06f00000g"),
        (("fmspc",), "90 c0 6f 00 00 00"),
        (("nextUpdate",), "2025-02-30T00:00:00Z"),
        (("nextUpdate",), "2025-03-01T00:00:00+00:00"),
        (("tcbLevels", 0, "tcbStatus"), "Fine"),
        (("tcbLevels", 0, "tcb", "sgxtcbcomponents"), [{"svn": 1}] * 15),
        (("tcbLevels", 0, "tcb", "sgxtcbcomponents", 0), {"svn": -1}),
        (("tcbLevels", 0, "tcb", "sgxtcbcomponents", 0), {"svn": True}),
        (("tcbLevels", 0, "tcb", "sgxtcbcomponents", 0), {"svn": 1, "unless": 2}),
        (("tcbLevels", 0, "tcb", "pcesvn"), 65536),
        (("tcbLevels",), [{}] * 200),
        (("tdxModuleIdentities", 0, "tcbLevels", 0, "tcbStatus"), "SWHardeningNeeded"),
        (("tdxModule", "mrsigner"), "00" * 47),
    ],
)
def test_tcb_info_with_a_value_of_another_form_is_malformed(
    path: tuple[str | int, ...], value: object
) -> None:
    info = Intel().tcb_info
    target = info
    for step in path[:-1]:
        target = target[step]  # type: ignore[index]
    target[path[-1]] = value  # type: ignore[index]
    with pytest.raises(MalformedError):
        parse_tcb_info(json.dumps(info).encode())


def test_collateral_over_its_limit_is_malformed() -> None:
    with pytest.raises(MalformedError):
        parse_collateral({"collateral": b" " * (COLLATERAL_MAX + 1)})


# ---- arbitrary bytes


def replace_quote(tee: str, version: int, raw: bytes):  # type: ignore[no-untyped-def]
    intel, _, collateral = genuine(tee, version)
    question = intel.question(collateral=collateral)
    return replace(question, evidence={"quote": raw})


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_quote_gives_a_verdict_and_never_a_pass(data: st.DataObject) -> None:
    tee, version = data.draw(st.sampled_from(KINDS))
    intel, raw, collateral = genuine(tee, version)
    at = data.draw(st.integers(0, raw.index(b"-----BEGIN") - 1))
    value = data.draw(st.binary(min_size=1, max_size=8))
    mutated = put(raw, at, value)[: len(raw)]
    scheme = tdx if tee == "tdx" else sgx
    question = replace(intel.question(collateral=collateral), evidence={"quote": mutated})
    examined = scheme.examine(question)
    assert examined.authentic is (mutated == raw)
    scheme.needs({"quote": mutated})


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 6000), st.booleans())
def test_arbitrary_bytes_never_raise_anything_but_malformed(
    junk: bytes, at: int, inserted: bool
) -> None:
    _, raw, collateral = genuine("tdx", 5)
    mixed = raw[:at] + junk + raw[at + (0 if inserted else len(junk)) :]
    for parse, given_bytes in (
        (parse_quote, mixed),
        (parse_quote, junk),
        (parse_pck, junk),
        (parse_tcb_info, junk),
        (parse_qe_identity, junk),
        (lambda raw: parse_chain(raw, "chain"), junk),
        (lambda raw: parse_collateral({"collateral": raw}), collateral[:at] + junk),
    ):
        with suppress(MalformedError):
            parse(given_bytes)


def test_evidence_of_the_other_kind_is_refused_by_name() -> None:
    intel, raw, _ = genuine("tdx", 4)
    examined = sgx.examine(replace(intel.question(), evidence={"quote": raw}))
    assert [reason.code for reason in examined.reasons] == ["version_not_accepted"]
    assert sgx.examine(replace(intel.question(), evidence={})).authentic is False
    assert tdx.needs({}) == ()


def test_sgx_body_in_a_version_5_quote_is_refused() -> None:
    intel = Intel("sgx", 5)
    examined = tdx.examine(intel.question())
    assert [reason.code for reason in examined.reasons] == ["wrong_tee"]
    assert sized(1, b"")[:2] == b"\x01\x00"

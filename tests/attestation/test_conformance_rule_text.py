"""A binding rule is anybody's text: it is cut once, in every spelling, and never takes long."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.conformance.binding_rule import RULE_MAX, binding_rules, inputs_of, rule_of
from attestation.conformance.index import Sample
from wire.errors import MalformedError
from wire.excerpt import shown


def sample_with(text: str, **inputs: str) -> Sample:
    return Sample("s", "k", {}, {}, None, {"binding": text, **inputs}, None, None, (), {})


@pytest.mark.parametrize(
    "literal",
    ["v=1", "a == b", "a and b", " and ", "; ", "a; b", "||", "SHA-256(", ")", "[0:1]", "", "x, y"],
)
def test_what_stands_between_quotes_is_never_a_sign(literal: str) -> None:
    text = f"report_data[0:32] == SHA-256('{literal}' || a); user_data == b and host_data == c"
    rules = binding_rules(sample_with(text, a="01", b="02", c="03"), {})
    assert [rule.field for rule in rules] == ["report_data", "user_data", "host_data"]
    assert rules[0].value == hashlib.sha256(literal.encode() + b"\1").digest()
    assert rules[0].terms == (b"\1",)
    assert inputs_of(sample_with(text, a="01", b="02", c="03")) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("nonce == report_data[0:32]", "report_data", "02"),
        ("nonce == TEE report_data[0:32]", "report_data", "02"),
        ("nonce == host_data", "host_data", "02"),
        ("expected_nonce == host_data", "host_data", "02"),
        ("zeros(1) == host_data", "host_data", "00"),
        ("'x' == host_data", "host_data", "78"),
        ("report_data == nonce", "report_data", "02"),
        ("TEE report_data == nonce", "report_data", "02"),
        ("report_data == report_data_hex", "report_data", "05"),
        ("rt_mr3 == nonce", "rt_mr3", "02"),
        ("report_data == SHA-256 (nonce)", "report_data", hashlib.sha256(b"\2").hexdigest()),
    ],
)
def test_either_side_of_a_clause_may_be_the_claim(text: str, field: str, value: str) -> None:
    inputs = {"expected_nonce_hex": "02", "report_data_hex": "05"}
    if "report_data_hex" not in text:
        del inputs["report_data_hex"]
    (rule,) = binding_rules(sample_with(text, **inputs), {})
    assert (rule.field, rule.value.hex()) == (field, value)
    assert inputs_of(sample_with(text, **inputs)) <= set(inputs)


@pytest.mark.parametrize("text", ["report_data[0:1] == gpu", "TEE report_data == gpu"])
def test_a_part_or_whose_it_is_says_that_the_left_side_is_the_claim(text: str) -> None:
    """Though its name is an input's, and the other one none."""
    (rule,) = binding_rules(sample_with(text, report_data="00"), {"gpu": b"\1"})
    assert (rule.field, rule.value) == ("report_data", b"\1")


@pytest.mark.parametrize("text", ["a == report_data[0:1]", "a == TEE report_data"])
def test_a_part_or_whose_it_is_says_that_the_right_side_is_the_claim(text: str) -> None:
    """Though both names are inputs'."""
    (rule,) = binding_rules(sample_with(text, a="02", report_data="05"), {})
    assert (rule.field, rule.value) == ("report_data", b"\2")


@pytest.mark.parametrize("sign", [")", "[0:1]"])
def test_a_sign_that_is_not_understood_is_told(sign: str) -> None:
    with pytest.raises(MalformedError, match=re.escape(f"rule {shown(sign)} is not understood")):
        binding_rules(sample_with(f"report_data == {sign}"), {})


def test_the_inputs_of_a_rule_of_the_greatest_length_are_used() -> None:
    for more in (0, 1):
        text = "report_data == a || '"
        text += "x" * (RULE_MAX - len(text) - 1 + more) + "'"
        assert inputs_of(sample_with(text, a="00")) == (set() if more else {"a"})


@pytest.mark.parametrize(
    "text",
    ["a == report_data == a", "report_data == a and", "; report_data == a", "report_data == a\n",
     "report_data == 'a", "report_data[0:1] == report_data[1:2]", "TEE == a b", "== a",
     "report_data == a $", "report_data == a || == b", "report_data ==  a  b",
     "report_data == SHA-256(a b", "report_data == SHA-256(a b)", "report_data == SHA-256(a [0:1]",
     "TEE == a"],
)  # fmt: skip
def test_what_no_clause_says_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        binding_rules(sample_with(text, a="01", b="02"), {})


def test_an_input_that_is_null_is_none() -> None:
    given = {"binding": "report_data == nonce", "nonce_hex": None, "expected_nonce": "02"}
    sample = Sample("s", "k", {}, {}, None, given, None, None, (), {})
    (rule,) = binding_rules(sample, {})
    assert (rule.value, inputs_of(sample)) == (b"\2", {"expected_nonce"})
    null = Sample("s", "k", {}, {}, None, given | {"expected_nonce": None}, None, None, (), {})
    with pytest.raises(MalformedError, match="names no input"):
        binding_rules(null, {})


def test_an_input_without_bytes_holds_nowhere() -> None:
    (rule,) = binding_rules(sample_with("report_data == zeros(64) || a", a=""), {})
    assert not rule.holds({"report_data": "00" * 64})


@pytest.mark.parametrize("mark", ["0x", "0X"])
def test_an_inputs_hex_may_begin_with_0x(mark: str) -> None:
    (rule,) = binding_rules(sample_with("report_data == a", a=f"{mark}0102"), {})
    assert rule.value == b"\1\2"


@pytest.mark.parametrize(
    "text",
    [
        "report_data == zeros(64)" + " and x" * 200_000,
        "report_data ==" + " " * 1_000_000 + "=",
        "(" * 1_000_000,
        "'" * 1_000_001,
        "SHA256" + " " * 1_000_000,
    ],
)
def test_a_rule_that_is_too_long_is_not_looked_at(text: str) -> None:
    sample = sample_with(text, x="00")
    assert inputs_of(sample) == set()
    with pytest.raises(MalformedError, match=f"≤ {RULE_MAX}"):
        binding_rules(sample, {})


@given(st.text(" =;'|+(),[]:0aSHA256-andTEE_zeros‖\n", max_size=200))
def test_any_text_is_a_rule_or_is_refused(text: str) -> None:
    sample = sample_with(text, a="00")
    assert inputs_of(sample) <= {"a"}
    try:
        rules = binding_rules(sample, {})
    except MalformedError:
        return
    assert all(rule.field for rule in rules)


# ---- what Azure's kinds always check

AZURES = (
    "TEE report_data[0:32] == SHA-256(variable data)",
    "variable data names HCLAkPub",
    "HCLAkPub signs the TPM quote",
    "quote extraData carries the nonce",
)


def azure(text: str, kind: str = "azure-vtpm-snp", **inputs: str) -> Sample:
    return Sample("s", kind, {}, {}, None, {"binding": text, **inputs}, None, None, (), {})


@pytest.mark.parametrize("kind", ["azure-vtpm-snp", "azure-vtpm-tdx"])
@pytest.mark.parametrize("joined", ["; ", ";", " ; ", " and "])
@pytest.mark.parametrize("end", ["", ";", "; ", " ;"])
def test_azures_clauses_in_any_form_of_a_rule_are_no_more_to_check(
    kind: str, joined: str, end: str
) -> None:
    for text in (joined.join(AZURES), *AZURES, AZURES[0].replace("TEE ", "tee ")):
        sample = azure(f" {text}{end}", kind, nonce="02", data="03")
        assert (rule_of(sample), binding_rules(sample, {}), inputs_of(sample)) == (None, (), set())


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("joined", ["; ", ";", " and "])
def test_another_clause_beside_azures_is_checked(place: int, joined: str) -> None:
    clauses = list(AZURES)
    clauses.insert(place, "pcr_digest == d")
    sample = azure(joined.join(clauses), d="02", nonce="03")
    (rule,) = binding_rules(sample, {})
    assert (rule.field, rule.value, inputs_of(sample)) == ("pcr_digest", b"\2", {"d"})


@pytest.mark.parametrize(
    "text",
    [
        AZURES[1] + " too",
        AZURES[0].replace("SHA-256", "SHA-384"),
        AZURES[0].replace("[0:32]", ""),
        AZURES[2] + "; prose",
        f"{AZURES[1]}; ; {AZURES[2]}",
        f"{AZURES[1]} and",
        AZURES[3].replace("nonce", "nonce!"),
    ],
)
def test_what_is_nearly_azures_clause_is_not_understood(text: str) -> None:
    with pytest.raises(MalformedError):
        binding_rules(azure(text), {})


@pytest.mark.parametrize("clause", AZURES)
def test_azures_clauses_are_none_of_other_kinds(clause: str) -> None:
    with pytest.raises(MalformedError):
        binding_rules(azure(clause, "intel-tdx-quote"), {})


def test_a_rule_may_end_in_a_semicolon_and_in_one_only() -> None:
    assert len(binding_rules(sample_with("report_data == a; user_data == a;", a="01"), {})) == 2
    for text in (";", "report_data == a;;", "report_data == a; ;", "; report_data == a;"):
        with pytest.raises(MalformedError):
            binding_rules(sample_with(text, a="01"), {})

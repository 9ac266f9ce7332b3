"""What a sample's inputs say of claims, keys and nonces: whatever is said is compared, or a fault.

The samples come from $ANCHORHOLD_VECTORS.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from simulators.tokens import Issuer
from simulators.vendor_samples import GPU, QUOTE, codes, needs_samples, outcome, sample, verdict

from attestation.conformance.index import Sample, parse_index
from attestation.conformance.run import run_sample
from attestation.conformance.stated import StatedClaim, claims_of, expected_of, unbound, unread
from attestation.formats.ear import TRUSTEE_PROFILE
from attestation.verify.jwt import check_nonce
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from attestation.conformance.run import Outcome

NITRO = "nitro-production"
REFUSED_SAMPLE = "nitro-debug"
NO_ADVISORY = "tdx-v4-uptodate-b0c06f"
SWITCH = "nvidia-ls10-switch"
KEY_BOUND = "snp-milan-v5-key-bound"
TPM = "gce-cos-85-nonce9009"
TIME = "2026-06-01T00:00:00Z"
REFUSED = (False, False, {"claim_mismatch"})
ACCEPTED: tuple[bool, bool, set[str]] = (True, True, set())
NOT_BOUND = "what the key must be bound to is not said"


def claimed(name: str) -> Any:
    """The claims that the index expects of a sample."""
    return sample(name)["expected"]["claims"]


# ---- an object


@needs_samples
def test_of_an_object_that_is_stated_only_its_own_members_are_compared() -> None:
    pcrs: dict[str, str] = claimed(NITRO)["pcrs"]
    some = {place: pcrs[place] for place in ("0", "1", "2")}
    for value in (
        pcrs,
        some,
        {place: text.upper() for place, text in pcrs.items()},
        {place: "0x" + text for place, text in some.items()},
    ):
        assert verdict(outcome(NITRO, {}, expected_pcrs=value)) == ACCEPTED
    other = f"{pcrs['1'][:-1]}{int(pcrs['1'][-1], 16) ^ 1:x}"
    assert verdict(outcome(NITRO, {}, expected_pcrs={**some, "1": other})) == REFUSED
    assert verdict(outcome(NITRO, {}, expected_pcrs={**some, "99": pcrs["1"]})) == REFUSED


@needs_samples
def test_an_object_may_state_one_number_of_a_level_or_one_register_of_a_bank() -> None:
    snp: int = claimed("snp-genoa-v3")["reported_tcb"]["snp"]
    for level, expected in ((snp, ACCEPTED), (snp + 1, REFUSED), (str(snp), REFUSED)):
        found = outcome("snp-genoa-v3", {}, expected_reported_tcb={"snp": level})
        assert verdict(found) == expected
    quoted: str = claimed(TPM)["quotes"]["sha256"]["pcrs"]["0"]
    for text, expected in ((quoted, ACCEPTED), ("11" * 32, REFUSED)):
        stated = {"sha256": {"pcrs": {"0": text}}}
        assert verdict(outcome(TPM, {}, expected_quotes=stated)) == expected


@pytest.mark.parametrize(
    ("value", "found", "holds"),
    [
        ({"a": "AB"}, {"a": "ab", "b": 1}, True),
        ({"a": "0xAB"}, {"a": "ab"}, True),
        ({"a": {"b": [1, "AB"]}}, {"a": {"b": [1, "ab"], "c": 2}}, True),
        (["AB"], ["ab"], True),
        (["AB"], ["ab", "cd"], False),
        ({"a": "ab"}, {"b": "ab"}, False),
        ({"a": "ab"}, {"a": "abcd"}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, False),
        ({"a": "ab"}, "ab", False),
        ("", "", True),
        ("", "ab", False),
        ("", None, False),
        ([], [], True),
        ([], ["ab"], False),
        ([], {}, False),
        ({}, {}, True),
        ({}, [], False),
        ({}, "ab", False),
        ({"a": ""}, {"a": ""}, True),
        ({"a": "0x"}, {"a": ""}, True),
        ({"a": {}}, {"a": {}}, True),
        ({"a": {}}, {"a": {"b": 1}}, False),
        ({"a": {}}, {}, False),
        ([{}], [{"b": 1}], False),
        ({"a": [[]]}, {"a": [[]]}, True),
        ({"a": [[]]}, {"a": [["ab"]]}, False),
        ({"nonce": ""}, {"nonce": ""}, False),
        ({"a": [{"user_data": {}}]}, {"a": [{"user_data": {}}]}, False),
        ({"a": {"public_key": {"x": ""}}}, {"a": {"public_key": {"x": ""}}}, False),
    ],
)
def test_a_member_that_is_stated_is_compared_as_a_claim_is(
    value: object, found: object, holds: bool
) -> None:
    assert StatedClaim("claim", value).holds({"claim": found}) is holds


@pytest.mark.parametrize("empty", ["", "0x", [], {}, [""]], ids=repr)
@pytest.mark.parametrize("name", ["report_data", "response_nonce", "x25519_public", "issuer"])
def test_what_evidence_is_made_for_is_never_empty(name: str, empty: object) -> None:
    for found in (empty, ""):
        assert not StatedClaim(name, empty).holds({name: found, "iss": found})


@needs_samples
def test_an_empty_claim_may_be_stated_as_it_is() -> None:
    empty = {name: value for name, value in claimed(NO_ADVISORY).items() if value == []}
    assert empty
    for name in empty:
        assert verdict(outcome(NO_ADVISORY, {}, **{f"expected_{name}": []})) == ACCEPTED
        other = outcome(NO_ADVISORY, {}, **{f"expected_{name}": ["INTEL-SA-00001"]})
        assert verdict(other) == REFUSED
    assert verdict(outcome(SWITCH, {}, expected_driver_version="")) == ACCEPTED
    assert not outcome(SWITCH, {}, expected_driver_version="1").ok


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("mr_td", "claim_mismatch"), ("pcrs", "claim_mismatch"), ("chip_id", "claim_mismatch"),
        ("id_key_digest", "claim_mismatch"), ("signing_key", "claim_mismatch"),
        ("report_data", "nonce_mismatch"), ("user_data", "nonce_mismatch"),
        ("runtime_user_data", "nonce_mismatch"), ("host_data", "nonce_mismatch"),
        ("extra_data", "nonce_mismatch"), ("quote_extra_data", "nonce_mismatch"),
        ("public_key", "nonce_mismatch"), ("x25519_public", "nonce_mismatch"),
        ("response_nonce", "nonce_mismatch"), ("Challenge", "nonce_mismatch"),
        ("audience", "audience_mismatch"), ("iss", "issuer_mismatch"),
    ],
)  # fmt: skip
def test_only_what_evidence_is_made_for_is_called_a_nonce(name: str, code: str) -> None:
    assert StatedClaim(name, "aa").code == code


@pytest.mark.parametrize(
    ("value", "found", "holds"),
    [
        (["me"], ["me"], True), (["ME"], ["me"], False), (["me"], "me", False),
        (["me"], ["me", "you"], False), ([], [], False), ("ME", "me", False),
    ],
)  # fmt: skip
def test_whom_a_token_is_for_is_exact_in_an_array_too(
    value: object, found: object, holds: bool
) -> None:
    assert StatedClaim("audience", value).holds({"aud": found}) is holds


# ---- an input with the name of a claim


@needs_samples
@pytest.mark.parametrize("key", ["mr_td", "mr_td_hex", "expected_mr_td"])
def test_an_input_with_the_name_of_a_claim_is_what_the_claim_must_be(key: str) -> None:
    held: str = claimed(QUOTE)["mr_td"]
    data: str = claimed(QUOTE)["report_data"]
    rule = {"binding": "report_data == key", "key_hex": data}
    for more in ({}, rule):
        found = outcome(QUOTE, {}, **more, **{key: held.upper()})
        assert (verdict(found), found.faults, found.ignored) == (ACCEPTED, (), ())
        assert verdict(outcome(QUOTE, {}, **more, **{key: "5a" * 48})) == REFUSED


@needs_samples
def test_an_input_with_the_name_of_a_claim_of_another_kind_is_told() -> None:
    found = outcome(QUOTE, {}, chip_id_hex="5a" * 64)
    assert (verdict(found), found.faults, found.ignored) == (ACCEPTED, (), ("chip_id_hex",))


@needs_samples
def test_a_claim_of_an_object_may_stand_under_its_name_alone() -> None:
    pcrs: dict[str, str] = claimed(NITRO)["pcrs"]
    assert outcome(NITRO, {}, pcrs={"0": pcrs["0"]}).ok
    assert verdict(outcome(NITRO, {}, pcrs={"0": "5a" * 48})) == REFUSED


@needs_samples
def test_the_devices_own_nonce_is_a_claim_like_any() -> None:
    own: str = claimed(GPU)["response_nonce"]
    assert outcome(GPU, {}, response_nonce=own).ok
    found = outcome(GPU, {}, response_nonce="5a" * 32)
    assert verdict(found) == (False, False, {"nonce_mismatch"})


def test_a_rule_takes_the_input_with_the_name_of_a_claim_for_itself() -> None:
    inputs = {"binding": "report_data == SHA-256(mr_td)", "mr_td": "01"}
    for more, stated in (({}, []), ({"expected_mr_td_hex": "02"}, ["02"])):
        entry = Sample("s", "k", {}, {}, None, {**inputs, **more}, None, None, (), {})
        claims = frozenset({"mr_td", "report_data"})
        assert [item.value for item in claims_of(entry, frozenset(), claims)] == stated
        assert unread(entry, frozenset(), claims) == ()


# ---- a key that nothing uses


@needs_samples
@pytest.mark.parametrize("binding", [{}, {"binding": None}])
def test_a_key_that_no_rule_uses_is_a_fault(binding: dict[str, None]) -> None:
    """Whoever brings a key means one that the evidence vouches for; here, nothing asks that."""
    none = {"binding": None, "nonce_hex": None, "x25519_public_hex": "5a" * 32}
    found = outcome(KEY_BOUND, {}, **{**none, **binding})
    assert found.faults == (f"input x25519_public_hex: {NOT_BOUND}",)
    assert found.ignored == ("x25519_public_hex",)


@needs_samples
def test_a_key_beside_a_rule_that_does_not_use_it_is_a_fault() -> None:
    found = outcome(KEY_BOUND, {}, other_public_hex="5a" * 32)
    assert found.faults == (f"input other_public_hex: {NOT_BOUND}",)
    assert outcome(KEY_BOUND, {}, other_public_hex=None).ok


@needs_samples
def test_a_key_that_no_rule_uses_is_moot_where_the_evidence_is_refused() -> None:
    """Whatever it were bound to, the verdict would be the same; it is told all the same."""
    entry = sample(REFUSED_SAMPLE)
    plain = outcome(REFUSED_SAMPLE, {})
    found = outcome(REFUSED_SAMPLE, {}, other_public_hex="5a" * 32)
    assert entry["expected"]["strict"] == "reject"
    assert (found.faults, verdict(found)) == ((), verdict(plain))
    assert found.ignored == (*plain.ignored, "other_public_hex")


@needs_samples
@pytest.mark.parametrize("name", ["corim-cca-platform-valid", "comid-1"])
def test_a_key_beside_what_is_neither_authentic_nor_not_is_told(name: str) -> None:
    """A format carries no signature: nothing in it vouches for a key."""
    found = outcome(name, {}, signing_key_hex="5a" * 32)
    assert (found.authentic, found.faults) == (None, ())
    assert "signing_key_hex" in found.ignored


@needs_samples
@pytest.mark.parametrize("key", ["qualifying_data_hex", "qualifyingData"])
def test_qualifying_data_that_no_step_asks_for_is_a_fault(key: str) -> None:
    found = outcome(TPM, {}, **{key: "dead"})
    assert found.faults == (f"input {key}: it says what is expected, and no step asks for it",)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("key", True), ("key_hex", True), ("tls_key_fp_hex", True), ("tlsKey", True),
        ("PUBKEY", True), ("ak_spki", True), ("x25519_public_hex", True), ("keys", True),
        ("tls_certificate_der_hex", True), ("tlsCert", True), ("key_source_hash_algorithm", False),
        ("key_source", False), ("key_algorithm", False), ("key_length", False),
        ("keyType", False), ("public_url", False), ("tls_certificate_format", False),
        ("certificate", False), ("tls_version", False), ("monkey", False), ("keyring", False),
        ("key_id", False), ("signingKeyId", False), ("key_kid_hex", False), ("ak_key_name", False),
        ("id_key", True), ("name_key_hex", True), ("key_valid", True),
        ("ak_public_sha256", False), ("ak_public_sha384_hex", False), ("key_digest", False),
        ("hashOfKey", False), ("spki_fingerprint", False), ("key_thumbprint", False),
        ("tls_key_sha256", True), ("tls_cert_fingerprint", True),
        ("signing_address", False), ("nonce_key", False), ("expected_key", False),
    ],
)  # fmt: skip
def test_a_key_is_known_by_a_word_of_its_name(key: str, told: bool) -> None:
    """One that says that it is expected, or a nonce, is told as such already."""
    entry = Sample("s", "k", {}, {}, None, {key: "00" * 32}, None, None, (), {})
    assert unbound(entry, frozenset()) == ((key,) if told else ())


@pytest.mark.parametrize(("value", "told"), [({"kty": "OKP"}, True), (2048, False), (True, False)])
def test_a_number_or_a_flag_is_no_key(value: object, told: bool) -> None:
    entry = Sample("s", "k", {}, {}, None, {"key_bits": value}, None, None, (), {})
    assert bool(unbound(entry, frozenset())) is told


@needs_samples
def test_what_is_stated_of_zeros_is_a_comparison_and_no_answer() -> None:
    """This report carries no data: it may be said so, and nobody was answered by it."""
    zeros = "00" * 64
    for inputs in ({"expected_report_data_hex": zeros}, {"report_data": zeros}):
        assert verdict(outcome("snp-genoa-v3", {}, **inputs)) == ACCEPTED
    asked = outcome("snp-genoa-v3", {}, expected_nonce_hex=zeros)
    assert verdict(asked) == (False, False, {"nonce_mismatch"})


# ---- the nonce of a token


def token(carried: object, **inputs: Any) -> Outcome:
    """A sample of an attestation result that carries a nonce."""
    now = int(datetime.fromisoformat(TIME).timestamp())
    said = {
        "eat_profile": TRUSTEE_PROFILE,
        "iat": now,
        "exp": now + 300,
        "ear.verifier-id": {"developer": "somebody", "build": "1"},
        "submods": {"cpu0": {"ear.status": "affirming"}},
        "eat_nonce": carried,
    }
    issuer = Issuer("ES384")
    files = {"token": issuer.sign(said).encode(), "jwks": issuer.jwks()}
    entry = {
        "id": "own",
        "kind": "ear-jwt",
        "files": {role: role for role in files},
        "verify_at": TIME,
        "inputs": inputs,
        "expected": {"authentic": True, "strict": "accept"},
    }
    document = {"schema": "attestation-vectors/1", "vectors": [entry]}
    index = parse_index(json.dumps(document).encode())
    return run_sample(index.samples[0], index, files.__getitem__)


TEXT = "challenge-2026-01"
BASE64 = "r4wUQOPwU4qM/hl2yU9X4RDpOMUciI8BqYeT7jzQGwQ="


@pytest.mark.parametrize(
    ("carried", "asked"),
    [
        (TEXT, TEXT), (BASE64, BASE64), (TEXT, TEXT.encode().hex()), ("äöü-12345", "äöü-12345"),
        ("00aaff", "00AAFF"), ("00AAFF", "00AAFF"), ("0x00AAFF", "0x00AAFF"), ("00 aa", "00 aa"),
        ("00aaff", "0x00aaff"),
        ("AKr_", "00aaff"), ("AKr/", "00aaff"), ("12345678", "12345678"), ("123", "123"),
        ([TEXT], TEXT),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["expected_nonce", "nonce"])
def test_a_tokens_nonce_is_a_text_and_may_be_asked_for_as_one(
    carried: object, asked: str, key: str
) -> None:
    assert verdict(token(carried, **{key: asked})) == ACCEPTED


@pytest.mark.parametrize(
    ("carried", "asked"),
    [
        (TEXT, TEXT.upper()), (TEXT, TEXT + "0"), (TEXT, TEXT[:-1]), (BASE64, BASE64[:-1]),
        (TEXT, ""), ("", ""), (" ", " "), (None, TEXT), (5, "5"), ([TEXT, "other"], TEXT),
        (TEXT, "aa"), ("0x", "0x"), ("00AAFF", "00aaff"), ("  ", "  "),
    ],
)  # fmt: skip
def test_another_text_is_not_the_nonce_of_a_token(carried: object, asked: str) -> None:
    found = verdict(token(carried, expected_nonce=asked))
    assert found == (False, False, {"nonce_mismatch"})


def test_a_nonce_that_is_said_to_be_hex_is_hex() -> None:
    found = token(TEXT, expected_nonce_hex=TEXT)
    assert "expected hex as expected_nonce_hex" in found.faults[0]
    assert token(TEXT, expected_nonce_hex=TEXT.encode().hex()).ok


@pytest.mark.parametrize("kind", ["intel-tdx-quote", "nvidia-gpu-spdm", "corim"])
def test_the_nonce_of_what_is_no_token_is_hex(kind: str) -> None:
    def stated(kind: str) -> Sample:
        return Sample("s", kind, {}, {}, None, {"expected_nonce": TEXT}, None, None, (), {})

    assert expected_of(stated("nvidia-nras-eat")).nonce == TEXT.encode()
    with pytest.raises(MalformedError, match="expected hex as expected_nonce"):
        expected_of(stated(kind))


def test_a_token_may_carry_the_bytes_of_a_nonce_as_its_text() -> None:
    nonce = TEXT.encode()
    check_nonce(TEXT, nonce)
    for found, asked in ((TEXT, nonce + b"0"), ("\0" * 8, b""), ("\xff" * 8, b"\xff" * 8)):
        with pytest.raises(AttestationError):
            check_nonce(found, asked)


@needs_samples
def test_what_is_stated_is_a_reason_of_its_own() -> None:
    found = outcome(QUOTE, {}, expected_mr_td="5a" * 48)
    assert (codes(found), found.reasons[0].detail) == (
        ["claim_mismatch"],
        "mr_td: not what is expected",
    )

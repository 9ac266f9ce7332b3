"""Which enclave's state a policy accepts: nothing that it does not name, nothing that is absent."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from simulators.nitro import NitroEnclave, NitroVendor

from attestation.formats.nitro import parse_document
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.registers import NITRO_PCR, nitro_pcr_event, nitro_pcr_value
from attestation.schemes.nitro import SCHEME
from wire.errors import AttestationError, PolicyError
from wire.limits import CLOCK_SKEW_S

NOW = 1_790_000_000
MEASUREMENT = hashlib.sha256(b"worker").digest()


@pytest.fixture(scope="module")
def aws() -> NitroVendor:
    return NitroVendor(NOW)


@pytest.fixture
def enclave(aws: NitroVendor) -> NitroEnclave:
    return NitroEnclave(aws)


def rule(**demands: Any) -> Any:
    required, optional = SCHEME.rule_keys
    return SCHEME.rule(
        Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    )


def codes(enclave: NitroEnclave, now: int = NOW, **demands: Any) -> tuple[str, ...]:
    ledger = Ledger()
    document = parse_document(enclave.document())
    SCHEME.judge(ledger, document, rule(**{"image": "any", **demands}), now)
    assert ledger.accepted is not bool(ledger.reasons)
    return tuple(reason.code for reason in ledger.reasons)


def image(enclave: NitroEnclave, *numbers: int) -> dict[str, str]:
    return {f"pcr{number}": enclave.pcrs[number].hex() for number in numbers}


def test_any_image_is_accepted_only_where_the_rule_says_any(enclave: NitroEnclave) -> None:
    assert codes(enclave) == ()
    with pytest.raises(PolicyError, match="image"):
        rule()


def test_a_listed_image_is_accepted(enclave: NitroEnclave) -> None:
    other = {"pcr0": "11" * 48}
    for numbers in ((0,), (0, 1), (0, 1, 2), (0, 2)):
        assert codes(enclave, image={"any_of": [other, image(enclave, *numbers)]}) == ()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_image_with_one_other_register_is_refused(enclave: NitroEnclave, number: int) -> None:
    listed = {**image(enclave, 0, 1, 2), f"pcr{number}": "11" * 48}
    assert codes(enclave, image={"any_of": [listed]}) == ("image_not_accepted",)


def test_registers_of_two_listed_images_do_not_make_a_third(enclave: NitroEnclave) -> None:
    first = {"pcr0": enclave.pcrs[0].hex(), "pcr1": "11" * 48}
    second = {"pcr0": "22" * 48, "pcr1": enclave.pcrs[1].hex()}
    assert codes(enclave, image={"any_of": [first, second]}) == ("image_not_accepted",)


@pytest.mark.parametrize("number", [1, 2])
def test_an_absent_register_of_an_image_is_refused(enclave: NitroEnclave, number: int) -> None:
    listed = image(enclave, 0, 1, 2)
    enclave.locked.remove(number)
    assert codes(enclave, image={"any_of": [listed]}) == ("image_not_accepted",)


def test_a_document_without_the_image_register_is_refused_by_every_rule(
    enclave: NitroEnclave,
) -> None:
    listed = image(enclave, 0)
    enclave.locked.remove(0)
    assert codes(enclave) == ("pcr_missing",)
    assert codes(enclave, image={"any_of": [listed]}) == ("pcr_missing", "pcr_missing")


def test_a_document_with_one_unrelated_register_is_refused(enclave: NitroEnclave) -> None:
    listed = image(enclave, 0, 1, 2)
    enclave.locked = {31}
    demands = {"image": {"any_of": [listed]}, "pcr8_in": ["11" * 48], "pcr3_in": ["11" * 48]}
    assert codes(enclave, **demands) == ("pcr_missing",) * 4


def test_a_debug_enclave_is_refused_by_every_rule(enclave: NitroEnclave) -> None:
    for number in (0, 1, 2):
        enclave.pcrs[number] = bytes(48)
    assert codes(enclave) == ("debug_enabled",)
    assert parse_document(enclave.document()).claims()["debug"] is True


def test_a_debug_enclave_is_refused_although_its_other_registers_are_set(
    enclave: NitroEnclave,
) -> None:
    enclave.pcrs[0] = bytes(48)
    assert codes(enclave) == ("debug_enabled",)


@pytest.mark.parametrize(
    ("key", "number", "code"),
    [("pcr8_in", 8, "signer_not_accepted"), ("pcr3_in", 3, "role_not_accepted")],
)
class TestSignerAndRole:
    """PCR 8 names who signed the image, PCR 3 the role of the instance around it."""

    def test_a_listed_one_is_accepted(
        self, enclave: NitroEnclave, key: str, number: int, code: str
    ) -> None:
        del code
        assert codes(enclave, **{key: ["11" * 48, enclave.pcrs[number].hex()]}) == ()

    def test_another_is_refused(
        self, enclave: NitroEnclave, key: str, number: int, code: str
    ) -> None:
        enclave.pcrs[number] = hashlib.sha384(b"another").digest()
        assert codes(enclave, **{key: ["11" * 48]}) == (code,)

    def test_an_unset_one_is_refused(
        self, enclave: NitroEnclave, key: str, number: int, code: str
    ) -> None:
        enclave.pcrs[number] = bytes(48)
        assert codes(enclave, **{key: ["11" * 48]}) == (code,)

    def test_an_absent_one_is_refused(
        self, enclave: NitroEnclave, key: str, number: int, code: str
    ) -> None:
        del code
        enclave.locked.remove(number)
        assert codes(enclave, **{key: [enclave.pcrs[number].hex()]}) == ("pcr_missing",)


def test_a_document_is_fresh_for_five_minutes_unless_the_rule_says_otherwise(
    enclave: NitroEnclave,
) -> None:
    assert codes(enclave, NOW + 300) == ()
    assert codes(enclave, NOW + 301) == ("evidence_stale",)
    assert codes(enclave, NOW + 60, max_age_s=60) == ()
    assert codes(enclave, NOW + 61, max_age_s=60) == ("evidence_stale",)
    assert codes(enclave, NOW + 10_000, max_age_s="any") == ()


def test_a_document_from_the_future_is_refused_beyond_what_clocks_differ(
    enclave: NitroEnclave,
) -> None:
    enclave.timestamp_ms += CLOCK_SKEW_S * 1000
    assert codes(enclave) == ()
    enclave.timestamp_ms += 1000
    assert codes(enclave) == ("evidence_not_yet_valid",)


def test_registers_of_another_hash_are_refused(enclave: NitroEnclave) -> None:
    enclave.digest = "SHA512"
    enclave.members["pcrs"] = {0: b"\x01" * 64}
    assert codes(enclave) == ("digest_not_accepted",)


@pytest.mark.parametrize(
    ("demands", "why"),
    [
        ({"image": "all"}, "found a string"),
        ({"image": None}, "found nothing"),
        ({"image": {}}, "any_of"),
        ({"image": {"any_of": []}}, "1 to 64"),
        ({"image": {"any_of": [{}]}}, "pcr0"),
        ({"image": {"any_of": [{"pcr1": "11" * 48}]}}, "pcr0"),
        ({"image": {"any_of": [{"pcr0": "11" * 48, "pcr3": "11" * 48}]}}, "unknown key"),
        ({"image": {"any_of": [{"pcr0": "00" * 48}]}}, "not all zero"),
        ({"image": {"any_of": [{"pcr0": "11" * 48, "pcr1": "00" * 48}]}}, "not all zero"),
        ({"image": {"any_of": [{"pcr0": "11" * 32}]}}, "96 lower-case"),
        ({"image": {"any_of": [{"pcr0": "AA" * 48}]}}, "96 lower-case"),
        ({"image": {"any_of": [{"pcr0": "11" * 48}] * 65}}, "1 to 64"),
        ({"image": {"any_of": [{"pcr0": "11" * 48}], "none_of": []}}, "unknown key"),
        ({"image": "any", "pcr8_in": []}, "1 to 64"),
        ({"image": "any", "pcr8_in": ["00" * 48]}, "not all zero"),
        ({"image": "any", "pcr8_in": ["11" * 47]}, "96 lower-case"),
        ({"image": "any", "pcr3_in": "11" * 48}, "an array"),
        ({"image": "any", "max_age_s": 0}, "1 to 10800"),
        ({"image": "any", "max_age_s": 10_801}, "1 to 10800"),
        ({"image": "any", "max_age_s": True}, "1 to 10800"),
        ({"image": "any", "max_age_s": "never"}, "1 to 10800"),
        ({"image": "any", "digest": "SHA256"}, "SHA384"),
        ({"image": "any", "debug": True}, "false"),
        ({"image": "any", "debug": "no"}, "true or false"),
        ({"image": "any", "pcr4_in": ["11" * 48]}, "unknown key"),
    ],
)
def test_a_rule_that_demands_nothing_or_something_unknown_is_refused(
    demands: dict[str, Any], why: str
) -> None:
    with pytest.raises(PolicyError, match=why):
        rule(**demands)


def test_what_is_stated_anyway_may_be_stated(enclave: NitroEnclave) -> None:
    assert codes(enclave, debug=False, digest="SHA384") == ()


def carries(enclave: NitroEnclave) -> str:
    assert SCHEME.carries is not None
    return SCHEME.carries(parse_document(enclave.document()), MEASUREMENT)


def refuses(enclave: NitroEnclave, code: str) -> None:
    with pytest.raises(AttestationError) as caught:
        carries(enclave)
    assert caught.value.reasons == (code,)


def test_the_register_extended_once_and_locked_carries_the_measurement(
    enclave: NitroEnclave,
) -> None:
    value = enclave.extend(NITRO_PCR, nitro_pcr_event(MEASUREMENT))
    enclave.lock(NITRO_PCR)
    assert value == nitro_pcr_value(MEASUREMENT)
    assert carries(enclave) == "PCR 16"


def test_an_extended_register_that_is_not_locked_carries_nothing(enclave: NitroEnclave) -> None:
    enclave.extend(NITRO_PCR, nitro_pcr_event(MEASUREMENT))
    refuses(enclave, "pcr_missing")


def test_a_locked_register_that_was_never_extended_carries_nothing(enclave: NitroEnclave) -> None:
    enclave.lock(NITRO_PCR)
    refuses(enclave, "measurement_mismatch")


def test_a_register_extended_twice_carries_nothing(enclave: NitroEnclave) -> None:
    enclave.extend(NITRO_PCR, nitro_pcr_event(MEASUREMENT))
    enclave.extend(NITRO_PCR, nitro_pcr_event(MEASUREMENT))
    enclave.lock(NITRO_PCR)
    refuses(enclave, "measurement_mismatch")


def test_a_register_extended_with_the_bare_measurement_carries_nothing(
    enclave: NitroEnclave,
) -> None:
    enclave.extend(NITRO_PCR, MEASUREMENT)
    enclave.lock(NITRO_PCR)
    refuses(enclave, "measurement_mismatch")


def test_another_register_with_the_right_value_carries_nothing(enclave: NitroEnclave) -> None:
    enclave.extend(NITRO_PCR + 1, nitro_pcr_event(MEASUREMENT))
    enclave.lock(NITRO_PCR + 1)
    refuses(enclave, "pcr_missing")


def test_a_locked_register_cannot_be_extended(enclave: NitroEnclave) -> None:
    enclave.lock(NITRO_PCR)
    with pytest.raises(PermissionError):
        enclave.extend(NITRO_PCR, b"more")

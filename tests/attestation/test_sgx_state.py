"""`intel-sgx-quote`: genuine evidence of a state that a policy refuses, one changed fact a test."""

from __future__ import annotations

from typing import Any

import pytest
from simulators.intel import NOW, Intel

from attestation.ledger import Ledger
from attestation.members import Members
from attestation.rules import sgx as rules
from attestation.schemes import sgx
from wire.errors import PolicyError


def rule(**demands: Any) -> rules.SgxRule:
    required, optional = rules.KEYS
    members = Members(
        {"enclave": "any", **demands},
        "policy.accept",
        required=required,
        optional=optional,
        error=PolicyError,
    )
    return rules.parse(members)


def judged(intel: Intel, **demands: Any) -> list[str]:
    examined = sgx.examine(intel.question())
    assert examined.authentic is True, examined.reasons
    ledger = Ledger()
    sgx.SCHEME.judge(ledger, examined.facts, rule(**demands), NOW)
    return [reason.code for reason in ledger.reasons]


def with_flags(flags: int) -> Intel:
    intel = Intel("sgx")
    intel.body["attributes"] = flags.to_bytes(8, "little") + intel.body["attributes"][8:]
    return intel


def test_up_to_date_enclave_is_accepted() -> None:
    assert judged(Intel("sgx")) == []


def test_debug_enclave_is_refused_and_no_rule_allows_it() -> None:
    assert judged(with_flags(0x07)) == ["debug_enabled"]
    with pytest.raises(PolicyError):
        rule(attributes_allow="0700000000000000")


@pytest.mark.parametrize("flags", [0x04, 0x15, 0x25, 0x0D, 0x05 | 1 << 63])
def test_enclave_not_initialised_or_with_other_rights_is_refused(flags: int) -> None:
    assert judged(with_flags(flags)) == ["sgx_attributes_not_accepted"]


def test_rights_that_the_rule_allows_are_accepted() -> None:
    assert judged(with_flags(0x15), attributes_allow="1500000000000000") == []


@pytest.mark.parametrize("flag", [6, 7, 10])
def test_harmless_flag_is_accepted(flag: int) -> None:
    assert judged(with_flags(0x05 | 1 << flag)) == []


def test_enclave_must_be_one_of_those_named() -> None:
    intel = Intel("sgx")
    measured = intel.body["mrenclave"].hex()
    assert judged(intel, enclave={"mrenclave": [measured]}) == []
    assert judged(intel, enclave={"mrenclave": ["ab" * 32]}) == ["enclave_not_accepted"]


def test_enclave_of_zeros_is_refused_by_every_rule() -> None:
    intel = Intel("sgx")
    intel.body["mrenclave"] = bytes(32)
    assert judged(intel) == ["measurement_zero"]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("mrsigner", b"\x01" * 32, "enclave_not_accepted"),
        ("isvprodid", b"\x05\x00", "enclave_not_accepted"),
        ("isvsvn", b"\x01\x00", "isvsvn_too_low"),
        ("isvsvn", b"\x03\x00", None),  # a least version, not an equal one
    ],
)
def test_enclave_of_a_signer_must_be_of_its_product_and_new_enough(
    field: str, value: bytes, code: str | None
) -> None:
    intel = Intel("sgx")
    intel.body["isvprodid"], intel.body["isvsvn"] = b"\x04\x00", b"\x02\x00"
    signed = {"mrsigner": [intel.body["mrsigner"].hex()], "isvprodid": 4, "min_isvsvn": 2}
    assert judged(intel, enclave=signed) == []
    intel.body[field] = value
    assert judged(intel, enclave=signed) == ([] if code is None else [code])


@pytest.mark.parametrize(
    "enclave",
    [
        None, "none", [], {}, {"mrenclave": []}, {"mrenclave": ["00" * 32]}, {"mrenclave": ["ab"]},
        {"mrsigner": ["ab" * 32]}, {"mrsigner": ["ab" * 32], "isvprodid": 1},
        {"mrsigner": ["ab" * 32], "isvprodid": 1, "min_isvsvn": 70000},
        {"mrenclave": ["ab" * 32], "mrsigner": ["ab" * 32]},
    ],
    ids=range(11),
)  # fmt: skip
def test_enclave_that_is_not_named_whole_is_no_rule(enclave: object) -> None:
    with pytest.raises(PolicyError):
        rule(enclave=enclave)


def test_quoting_enclave_that_is_out_of_date_is_refused() -> None:
    intel = Intel("sgx")
    intel.qe_report["isvsvn"] = b"\x06\x00"
    assert judged(intel)[0] == "tcb_out_of_date"


def test_tdx_qe_identity_for_an_sgx_quote_is_refused() -> None:
    intel = Intel("sgx")
    intel.qe_identity["id"] = "TD_QE"
    codes = {reason.code for reason in sgx.examine(intel.question()).reasons}
    assert codes == {"qe_identity_wrong_type"}


def test_enclave_carries_no_measurement_of_a_worker() -> None:
    assert sgx.SCHEME.carries is None


CONFIG = bytes(range(64))


@pytest.mark.parametrize("signer", [False, True])
def test_a_configuration_that_the_launcher_chose_is_refused_unless_it_is_named(
    signer: bool,
) -> None:
    intel = Intel("sgx")
    enclave: dict[str, Any] = {"mrenclave": [intel.body["mrenclave"].hex()]}
    if signer:
        enclave = {"mrsigner": [intel.body["mrsigner"].hex()], "isvprodid": 0, "min_isvsvn": 0}
    assert judged(intel, enclave=enclave) == []
    intel.body["config_svn"] = b"\x02\x00"
    assert judged(intel, enclave=enclave) == ["enclave_not_accepted"]
    intel.body["config_id"] = CONFIG
    assert judged(intel, enclave=enclave) == ["enclave_not_accepted"]
    named = {**enclave, "config_id": [CONFIG.hex()]}
    assert judged(intel, enclave=named) == []
    assert judged(intel, enclave={**named, "min_config_svn": 2}) == []
    assert judged(intel, enclave={**named, "min_config_svn": 3}) == ["enclave_not_accepted"]
    assert judged(intel, enclave={**enclave, "config_id": ["ab" * 64]}) == ["enclave_not_accepted"]
    assert judged(Intel("sgx"), enclave={**named, "min_config_svn": 3}) == []  # none at all
    assert judged(intel, enclave="any") == []


@pytest.mark.parametrize(
    "config", [{"config_id": ["00" * 64]}, {"config_id": []}, {"config_id": ["ab"]},
               {"min_config_svn": 1}, {"config_id": ["ab" * 64], "min_config_svn": -1}],
)  # fmt: skip
def test_a_configuration_is_named_whole(config: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        rule(enclave={"mrenclave": ["ab" * 32], **config})


@pytest.mark.parametrize("demanded", [{}, {"min_config_svn": 0}])
def test_a_named_configuration_of_version_zero_is_accepted_where_none_is_demanded(
    demanded: dict[str, int],
) -> None:
    intel = Intel("sgx")
    intel.body["config_id"] = CONFIG
    enclave = {"mrenclave": [intel.body["mrenclave"].hex()], "config_id": [CONFIG.hex()]}
    assert judged(intel, enclave={**enclave, **demanded}) == []
    assert judged(intel, enclave={**enclave, "min_config_svn": 1}) == ["enclave_not_accepted"]


@pytest.mark.parametrize("config", [b"\x01" + bytes(63), bytes(63) + b"\x01", b"\x01" * 64])
def test_a_configuration_of_version_zero_is_refused_unless_it_is_named(config: bytes) -> None:
    intel = Intel("sgx")
    intel.body["config_id"] = config
    enclave = {"mrenclave": [intel.body["mrenclave"].hex()]}
    assert judged(intel, enclave=enclave) == ["enclave_not_accepted"]

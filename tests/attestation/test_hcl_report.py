"""The paravisor's report (HCL): the forms of it that are read, and every other is refused."""

from __future__ import annotations

from typing import Any

import pytest
from simulators.azure_vm import examine, started
from simulators.hcl import jwk
from simulators.verdicts import codes_of
from simulators.vtpm import rsa_key

from attestation.formats.hcl_report import VARIABLE_MAX, parse_hcl_report
from wire.errors import MalformedError


@pytest.mark.parametrize("facts", [{"version": 2}, {"hash_type": 2}, {"hash_type": 3}])
def test_every_known_form_of_the_report_is_read(facts: dict[str, Any]) -> None:
    assert codes_of(examine(started().evidence(**facts))) == []


def test_capabilities_of_version_2_stand_before_the_variable_data() -> None:
    assert codes_of(examine(started().evidence(data_version=2, extra=bytes(4)))) == []


def test_variable_data_without_user_data_has_none() -> None:
    vm = started()
    del vm.variable["user-data"]
    examined = examine(vm.evidence())
    assert (codes_of(examined), examined.claims["runtime_user_data"]) == ([], None)


@pytest.mark.parametrize(
    "lie",
    [
        {"signature": b"HCLB"},
        {"version": 0},
        {"version": 3},
        {"request": 1},
        {"status": 1},
        {"kind": 4},
        {"kind": 1},
        {"kind": 3},
        {"hash_type": 0},
        {"hash_type": 4},
        {"data_version": 3},
        {"data_version": 2},
        {"size_error": 1},
        {"size_error": -1},
        {"length_error": 1},
        {"length_error": -1},
        {"length_error": 2**31},
        {"tail": b"\1"},
        {"extra": bytes(4)},
    ],
)
def test_a_report_of_another_form_is_refused(lie: dict[str, Any]) -> None:
    assert codes_of(examine(started().evidence(**lie))) == ["evidence_malformed"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda v: v.pop("keys"),
        lambda v: v.update(keys=[]),
        lambda v: v.update(keys={}),
        lambda v: v["keys"].pop(0),
        lambda v: v["keys"].append(v["keys"][0]),
        lambda v: v["keys"].append(jwk("HCLAkPub", "sign", rsa_key("second"))),
        lambda v: v["keys"].extend(jwk(f"{n}", "sign", rsa_key("second")) for n in range(4)),
        lambda v: v["keys"][0].pop("e"),
        lambda v: v["keys"][0].update(alg="none"),
        lambda v: v["keys"][0].update(kty="EC"),
        lambda v: v["keys"][0].update(key_ops=["sign", "encrypt"]),
        lambda v: v["keys"][0].update(key_ops=[]),
        lambda v: v["keys"][0].update(n="AQAB"),
        lambda v: v["keys"][0].update(n=v["keys"][0]["n"] + "="),
        lambda v: v["keys"][0].update(e="AA"),
        lambda v: v.update({"user-data": 7}),
        lambda v: v.update({"vm-configuration": []}),
        lambda v: v.update(unknown=1),
    ],
    ids=[
        "no-keys",
        "keys-empty",
        "keys-object",
        "no-ak",
        "ak-repeated",
        "two-aks",
        "five-keys",
        "no-exponent",
        "extra-member",
        "not-rsa",
        "two-operations",
        "no-operation",
        "short-modulus",
        "padded-modulus",
        "zero-exponent",
        "user-data-number",
        "configuration-array",
        "unknown-member",
    ],
)
def test_variable_data_of_another_form_is_refused(edit: Any) -> None:
    vm = started()
    edit(vm.variable)
    assert codes_of(examine(vm.evidence())) == ["evidence_malformed"]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"keys":1,"keys":2}', b"{", b"\xff", b" " * 20_000])
def test_variable_data_that_is_not_one_object_is_refused(data: bytes) -> None:
    assert len(b" " * 20_000) > VARIABLE_MAX
    assert codes_of(examine(started().evidence(variable=data))) == ["evidence_malformed"]


def test_every_truncation_of_the_report_is_refused() -> None:
    raw = started().evidence()["hcl_report"].rstrip(b"\0")
    for length in range(0, len(raw), 7):
        with pytest.raises(MalformedError):
            parse_hcl_report(raw[:length])

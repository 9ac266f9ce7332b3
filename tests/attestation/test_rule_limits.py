"""Every limit of a rule from both sides, and what a rule says that does not say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from simulators.nvidia_verdicts import LEAST as GPU

from attestation.members import Members
from attestation.registers import NITRO_PCR
from attestation.rules import tdx as tdx_rules
from attestation.schemes import (
    azure_tdx,
    corim,
    ear,
    nitro,
    nras,
    nvidia_gpu,
    nvidia_list,
    sgx,
    snp,
    tcg_log,
    tdx,
    tpm_quote,
)
from wire.errors import PolicyError

if TYPE_CHECKING:
    from attestation.scheme import Scheme

LEAST: dict[str, dict[str, Any]] = {
    "corim": {},
    "ear-jwt": {"keys": "as_supplied"},
    "nvidia-nras-eat": {},
    "aws-nitro-document": {"image": "any"},
    "amd-sev-snp-report": {"min_tcb": {"Genoa": {}, "Turin": {}}, "image": "any"},
    "intel-tdx-quote": {"image": "any"},
    "intel-sgx-quote": {"enclave": "any"},
    "azure-vtpm-tdx": {"image": "any", "pcrs": {}},
    "tpm2-quote": {"pcrs": {}},
    "tcg-event-log": {"events": {}, "unchecked": []},
    "nvidia-gpu-spdm": GPU,
    "nvidia-gpu-spdm-list": GPU | {"count": 1},
}
SIGNED = {"mrsigner": ["ab" * 32], "isvprodid": 0, "min_isvsvn": 0}


def parsed(scheme: Scheme, **changes: Any) -> Any:
    required, optional = scheme.rule_keys
    demands = {**LEAST[scheme.kind], **changes}
    return scheme.rule(
        Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    )


def accepts(scheme: Scheme, **changes: Any) -> bool:
    try:
        parsed(scheme, **changes)
    except PolicyError:
        return False
    return True


def texts(count: int) -> list[str]:
    return [f"text {n}" for n in range(count)]


def advisories(count: int) -> list[str]:
    return [f"INTEL-SA-{n:05}" for n in range(count)]


def hexes(count: int, length: int) -> list[str]:
    return [f"{n + 1:0{2 * length}x}" for n in range(count)]


def tags(count: int) -> list[str]:
    return [f"sha256:{text}" for text in hexes(count, 32)]


def images(value: str) -> dict[str, str]:
    return dict.fromkeys(("mr_td", "rt_mr0", "rt_mr1", "rt_mr2"), value)


# scheme, key, the last number that is accepted, and what makes a value of a number
LONGEST = [
    (corim.SCHEME, "profiles", 16, texts),
    (ear.SCHEME, "keys", 64, tags),
    (ear.SCHEME, "profiles", 64, texts),
    (ear.SCHEME, "policies", 64, texts),
    (ear.SCHEME, "submods", 64, texts),
    (ear.SCHEME, "max_age_s", 86_400, int),
    (nras.SCHEME, "models", 64, texts),
    (nras.SCHEME, "drivers", 64, texts),
    (nras.SCHEME, "vbioses", 64, texts),
    (nras.SCHEME, "count", 64, int),
    (nras.SCHEME, "max_age_s", 86_400, int),
    (nitro.SCHEME, "pcr8_in", 64, lambda n: hexes(n, 48)),
    (nitro.SCHEME, "pcr3_in", 64, lambda n: hexes(n, 48)),
    (nitro.SCHEME, "max_age_s", 10_800, int),
    (nitro.SCHEME, "image", 64, lambda n: {"any_of": [{"pcr0": h} for h in hexes(n, 48)]}),
    (snp.SCHEME, "chip_id_in", 4096, lambda n: hexes(n, 64)),
    (snp.SCHEME, "id_key_in", 4096, lambda n: hexes(n, 48)),
    (snp.SCHEME, "image", 4096, lambda n: {"measurement_in": hexes(n, 48)}),
    (snp.SCHEME, "min_guest_svn", 4_294_967_295, int),
    (snp.SCHEME, "min_abi", 255, lambda n: f"1.{n}"),
    (snp.SCHEME, "min_committed_fw", 255, lambda n: f"{n}.1.2"),
    (snp.SCHEME, "min_tcb", 255, lambda n: {"Genoa": {"snp": n}, "Turin": {}}),
    (snp.SCHEME, "vmpl", 3, lambda n: {"max": n}),
    (tdx.SCHEME, "image", 256, lambda n: {"any_of": [images(h) for h in hexes(n, 48)]}),
    (tdx.SCHEME, "tcb", 366, lambda n: {"grace_days": n}),
    (tdx.SCHEME, "tcb", 4096, lambda n: {"allow_advisories": advisories(n)}),
    (tdx.SCHEME, "tcb", 4096, lambda n: {"deny_advisories": advisories(n)}),
    (tdx.SCHEME, "platform", 4096, lambda n: {"ppid_allow": hexes(n, 16)}),
    (sgx.SCHEME, "enclave", 65_535, lambda n: SIGNED | {"isvprodid": n}),
    (sgx.SCHEME, "enclave", 65_535, lambda n: SIGNED | {"min_isvsvn": n}),
    (azure_tdx.SCHEME, "vm_configuration", 32, lambda n: dict.fromkeys(texts(n), True)),
    (tpm_quote.SCHEME, "aks", 4096, lambda n: hexes(n, 32)),
    (tpm_quote.SCHEME, "pcrs", 64, lambda n: {"4": hexes(n, 32)}),
    (tcg_log.SCHEME, "events", 1024, lambda n: {"4": hexes(n, 32)}),
    (nvidia_list.SCHEME, "count", 16, int),
    (nvidia_gpu.SCHEME, "models", 256, texts),
    (nvidia_gpu.SCHEME, "driver_in", 256, texts),
]


@pytest.mark.parametrize(
    ("scheme", "key", "last", "made"),
    LONGEST,
    ids=[f"{row[0].kind} {row[1]} {number}" for number, row in enumerate(LONGEST)],
)
def test_a_demand_may_be_as_long_or_as_large_as_its_limit_and_no_more(
    scheme: Scheme, key: str, last: int, made: Any
) -> None:
    assert accepts(scheme, **{key: made(last)})
    assert not accepts(scheme, **{key: made(last + 1)})


# scheme, key, the first number that is accepted
SHORTEST = [
    (ear.SCHEME, "keys", 1, tags),
    (ear.SCHEME, "profiles", 1, texts),
    (ear.SCHEME, "policies", 1, texts),
    (ear.SCHEME, "submods", 0, texts),
    (ear.SCHEME, "max_age_s", 1, int),
    (nras.SCHEME, "models", 0, texts),
    (nras.SCHEME, "count", 1, int),
    (nras.SCHEME, "max_age_s", 1, int),
    (nitro.SCHEME, "pcr8_in", 1, lambda n: hexes(n, 48)),
    (nitro.SCHEME, "max_age_s", 1, int),
    (nitro.SCHEME, "image", 1, lambda n: {"any_of": [{"pcr0": h} for h in hexes(n, 48)]}),
    (snp.SCHEME, "chip_id_in", 1, lambda n: hexes(n, 64)),
    (snp.SCHEME, "signer", 1, lambda n: ["vcek"][:n]),
    (snp.SCHEME, "min_guest_svn", 0, int),
    (snp.SCHEME, "min_tcb", 0, lambda n: {"Genoa": {"snp": n}, "Turin": {}}),
    (snp.SCHEME, "vmpl", 0, lambda n: {"max": n}),
    (tdx.SCHEME, "tcb", 0, lambda n: {"grace_days": n}),
    (tdx.SCHEME, "tcb", 0, lambda n: {"min_eval_number": n}),
    (tdx.SCHEME, "platform", 1, lambda n: {"ppid_allow": hexes(n, 16)}),
    (sgx.SCHEME, "enclave", 0, lambda n: SIGNED | {"isvprodid": n}),
    (sgx.SCHEME, "enclave", 0, lambda n: SIGNED | {"min_isvsvn": n}),
    (tpm_quote.SCHEME, "pcrs", 1, lambda n: {"4": hexes(n, 32)}),
    (tcg_log.SCHEME, "events", 1, lambda n: {"4": hexes(n, 32)}),
    (nvidia_gpu.SCHEME, "models", 1, texts),
]


@pytest.mark.parametrize(
    ("scheme", "key", "first", "made"),
    SHORTEST,
    ids=[f"{row[0].kind} {row[1]} {number}" for number, row in enumerate(SHORTEST)],
)
def test_a_demand_may_be_as_short_or_as_small_as_its_limit_and_no_less(
    scheme: Scheme, key: str, first: int, made: Any
) -> None:
    assert accepts(scheme, **{key: made(first)})
    if first or made is int:
        assert not accepts(scheme, **{key: made(first - 1)})


def test_numbers_below_zero_are_no_versions() -> None:
    assert not accepts(snp.SCHEME, vmpl={"max": -1})
    assert not accepts(snp.SCHEME, min_tcb={"Genoa": {"snp": -1}, "Turin": {}})
    assert not accepts(tdx.SCHEME, tcb={"grace_days": -1})
    assert not accepts(tdx.SCHEME, tcb={"min_eval_number": -1})
    assert not accepts(sgx.SCHEME, enclave=SIGNED | {"isvprodid": -1})
    assert not accepts(sgx.SCHEME, enclave=SIGNED | {"min_isvsvn": -1})


@pytest.mark.parametrize("register", ["0", "15", "17", "22"])
def test_every_register_that_the_system_alone_extends_can_be_demanded(register: str) -> None:
    assert accepts(tpm_quote.SCHEME, pcrs={register: hexes(1, 32)})


@pytest.mark.parametrize("register", ["16", "23", "24", "-1", "04", "1a"])
def test_no_register_that_proves_nothing_can_be_demanded(register: str) -> None:
    assert not accepts(tpm_quote.SCHEME, pcrs={register: hexes(1, 32)})


def test_no_register_of_a_bank_that_can_be_collided_can_be_demanded() -> None:
    assert accepts(tpm_quote.SCHEME, bank="sha256")
    assert not accepts(tpm_quote.SCHEME, bank="sha1")


def test_all_twenty_two_registers_can_be_demanded_at_once() -> None:
    numbers = [n for n in range(23) if n != 16]
    found = parsed(tpm_quote.SCHEME, pcrs={str(n): hexes(1, 32) for n in numbers})
    assert sorted(found.registers.values) == numbers


@pytest.mark.parametrize("obj", [[], "4", None])
@pytest.mark.parametrize("key", ["pcrs", "vm_configuration"])
def test_demands_on_registers_and_configuration_are_objects(key: str, obj: Any) -> None:
    with pytest.raises(PolicyError, match=f"rule.{key}: .* expected an object of at most"):
        parsed(azure_tdx.SCHEME, **{key: obj})


def test_registers_beyond_all_that_exist_are_refused_before_they_are_read() -> None:
    too_many = {str(n): hexes(1, 32) for n in range(25)}
    with pytest.raises(PolicyError, match="an object of at most 24 registers"):
        parsed(tpm_quote.SCHEME, pcrs=too_many)


def test_what_a_rule_does_not_state_has_its_documented_value() -> None:
    of_snp = parsed(snp.SCHEME)
    assert (of_snp.vmpl, of_snp.min_guest_svn, of_snp.min_abi, of_snp.min_fw) == (0, 0, None, None)
    assert (of_snp.revocation, of_snp.signers) == (True, {"vcek"})
    assert parsed(tdx.SCHEME).tcb.grace_days == 0
    of_sgx = parsed(sgx.SCHEME)
    assert (of_sgx.isvprodid, of_sgx.min_isvsvn) == (0, 0)
    of_nitro = parsed(nitro.SCHEME)
    assert (of_nitro.max_age_s, of_nitro.digest) == (300, "SHA384")
    of_ear = parsed(ear.SCHEME)
    assert (of_ear.expires, of_ear.max_age_s, of_ear.status) == (True, None, "affirming")
    assert dict(parsed(azure_tdx.SCHEME).configuration) == {"secure-boot": True}


def test_a_chip_of_turin_may_be_named_by_its_eight_bytes_and_counts_as_the_report_has_it() -> None:
    short, long = "ab" * 8, "cd" * 64
    found = parsed(snp.SCHEME, chip_id_in=[short, long])
    assert found.chips == {bytes.fromhex(short).ljust(64, b"\0"), bytes.fromhex(long)}
    assert not accepts(snp.SCHEME, chip_id_in=["ab" * 7])
    assert not accepts(snp.SCHEME, chip_id_in=["ab" * 8 + "c"])  # half a byte more


def test_a_listed_image_may_have_a_zero_byte_and_not_only_zeros() -> None:
    image = images("00" + "ab" * 47)
    assert accepts(tdx.SCHEME, image={"any_of": [image]})
    assert not accepts(tdx.SCHEME, image={"any_of": [{**image, "mr_td": "00" * 48}]})


def test_known_extended_features_are_exactly_those_with_a_meaning() -> None:
    assert accepts(tdx.SCHEME)
    known = {0, 1, 2, 5, 6, 7, 8, 9, 11, 12, 14, 15, 17, 18, 19}
    assert {bit for bit in range(64) if tdx_rules.XFAM_KNOWN >> bit & 1} == known


def test_the_worker_stands_in_the_first_register_that_the_hypervisor_leaves_free() -> None:
    assert NITRO_PCR == 16


@pytest.mark.parametrize("member", ["allow_advisories", "deny_advisories"])
@pytest.mark.parametrize(
    "name", ["zzz", "INTEL-SA-1", "INTEL-SA-000001", "intel-sa-00001", "INTEL-SA-0000l", "SA-00001"]
)
def test_an_advisory_that_intel_never_names_so_is_no_demand(member: str, name: str) -> None:
    assert accepts(tdx.SCHEME, tcb={member: ["INTEL-SA-00001"]})
    assert not accepts(tdx.SCHEME, tcb={member: ["INTEL-SA-00001", name]})

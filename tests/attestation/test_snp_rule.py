"""What a policy demands of an SNP platform: each demand refuses exactly what it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from simulators.amd import CSP, LEVELS, Amd
from simulators.snp_report import tcb

from attestation.ledger import Ledger
from attestation.members import Members
from attestation.rules.snp import KEYS, SnpRule, parse
from attestation.schemes.snp import SCHEME
from wire.errors import PolicyError

if TYPE_CHECKING:
    from simulators.amd import Chip

DIGEST = "ab" * 48
LEAST: dict[str, Any] = {
    "min_tcb": {"Genoa": {}, "Turin": {}},
    "image": "any",
    "revocation": "as_supplied",
}


@pytest.fixture(scope="module")
def amd() -> Amd:
    return Amd("Genoa")


def rule(**changes: Any) -> SnpRule:
    demands = {key: value for key, value in {**LEAST, **changes}.items() if value is not ...}
    required, optional = KEYS
    return parse(Members(demands, "rule", required=required, optional=optional, error=PolicyError))


def judged(amd: Amd, demands: SnpRule, chip: Chip | None = None, **lies: Any) -> list[str]:
    """Reason codes for evidence that differs from the honest in the facts named."""
    signer = "vlek" if chip is not None and chip.facts.flags else "vcek"
    evidence = (chip or amd.chip()).evidence(**lies)
    found = SCHEME.examine(amd.question(evidence, amd.collateral(signer)))
    ledger = Ledger()
    SCHEME.judge(ledger, found.facts, demands, amd.now)
    assert ledger.accepted is (not ledger.reasons)
    return [reason.code for reason in ledger.reasons]


def test_an_honest_platform_meets_the_least_rule(amd: Amd) -> None:
    assert judged(amd, rule()) == []


def test_milan_is_denied_unless_it_is_named() -> None:
    milan = Amd("Milan")
    assert judged(milan, rule()) == ["product_not_accepted", "tcb_out_of_date"]
    named = rule(products=["Milan"], min_tcb={"Milan": {}})
    assert judged(milan, named) == []


def test_a_product_that_is_not_named_is_refused(amd: Amd) -> None:
    turin = rule(products=["Turin"], min_tcb={"Turin": {}})
    assert judged(amd, turin) == ["product_not_accepted", "tcb_out_of_date"]


def test_without_a_pinned_chain_no_product_is_accepted(amd: Amd) -> None:
    found = SCHEME.examine(amd.question(amd.chip().evidence(), {"ca": amd.ask}))
    ledger = Ledger()
    SCHEME.judge(ledger, found.facts, rule(), amd.now)
    assert [r.code for r in ledger.reasons] == ["product_unknown", "tcb_out_of_date"]


def test_a_vlek_is_refused_unless_it_and_its_provider_are_named(amd: Amd) -> None:
    assert judged(amd, rule(), amd.provider()) == ["signer_not_accepted"]
    both = {"signer": ["vcek", "vlek"]}
    assert judged(amd, rule(**both, csp_in=[CSP]), amd.provider()) == []
    assert judged(amd, rule(**both, csp_in="any"), amd.provider()) == []
    assert judged(amd, rule(**both, csp_in=["CN=other"]), amd.provider()) == ["csp_not_accepted"]


def test_a_vcek_is_refused_where_only_a_vlek_is_named(amd: Amd) -> None:
    assert judged(amd, rule(signer=["vlek"], csp_in="any")) == ["signer_not_accepted"]


def test_revocation_must_have_been_checked_unless_the_rule_says_otherwise(amd: Amd) -> None:
    strict = rule(revocation=...)
    assert judged(amd, strict) == ["revocation_not_checked"]
    question = amd.question(amd.chip().evidence(), amd.collateral(crl=amd.crl()))
    ledger = Ledger()
    SCHEME.judge(ledger, SCHEME.examine(question).facts, strict, amd.now)
    assert ledger.accepted


POLICY = 1 << 17


def test_a_debug_guest_is_always_refused(amd: Amd) -> None:
    assert judged(amd, rule(debug=False), policy=POLICY | 1 << 19) == ["debug_enabled"]


@pytest.mark.parametrize(("name", "bit"), [("migrate_ma", 18), ("smt", 16), ("cxl_allowed", 21)])
def test_a_weaker_guest_policy_is_refused_unless_allowed(amd: Amd, name: str, bit: int) -> None:
    assert judged(amd, rule(), policy=POLICY | 1 << bit) == ["guest_policy_weak"]
    assert judged(amd, rule(**{name: True}), policy=POLICY | 1 << bit) == []


@pytest.mark.parametrize("policy", [0, POLICY | 1 << 26, POLICY | 1 << 63])
def test_reserved_bits_of_the_guest_policy_are_refused(amd: Amd, policy: int) -> None:
    assert judged(amd, rule(), policy=policy) == ["policy_bits_unknown"]


@pytest.mark.parametrize(
    ("name", "bit"),
    [("single_socket", 20), ("mem_aes_256_xts", 22), ("rapl_dis", 23), ("ciphertext_hiding", 24),
     ("page_swap_disable", 25)],
)  # fmt: skip
def test_a_guest_policy_bit_that_is_demanded_must_be_set(amd: Amd, name: str, bit: int) -> None:
    demands = rule(policy_require=[name])
    assert judged(amd, demands) == ["guest_policy_bit_missing"]
    assert judged(amd, demands, policy=POLICY | 1 << bit) == []


def test_a_guest_policy_that_allows_an_older_abi_is_refused(amd: Amd) -> None:
    demands = rule(min_abi="1.51")
    assert judged(amd, demands, policy=POLICY | 1 << 8 | 50) == ["guest_abi_too_old"]
    assert judged(amd, demands, policy=POLICY | 1 << 8 | 51) == []
    assert judged(amd, demands, policy=POLICY | 2 << 8) == []


@pytest.mark.parametrize("vmpl", [1, 3, 4, 0xFFFFFFFF])
def test_a_vmpl_above_the_highest_accepted_is_refused(amd: Amd, vmpl: int) -> None:
    assert judged(amd, rule(), vmpl=vmpl) == ["vmpl_not_accepted"]


def test_vmpl_3_may_be_accepted_but_no_report_that_the_host_asked_for(amd: Amd) -> None:
    demands = rule(vmpl={"max": 3})
    assert judged(amd, demands, vmpl=3) == []
    assert judged(amd, demands, vmpl=0xFFFFFFFF) == ["vmpl_not_accepted"]


def test_memory_aliases_must_have_been_checked_by_default(amd: Amd) -> None:
    assert judged(amd, rule(), platform_info=1 << 2) == ["alias_check_not_complete"]
    assert judged(amd, rule(require=[]), platform_info=1 << 2) == []


PLATFORM = 1 << 5


@pytest.mark.parametrize(
    ("name", "bit"),
    [("smt_en", 0), ("tsme_en", 1), ("ecc_en", 2), ("rapl_dis", 3), ("ciphertext_hiding_en", 4),
     ("iommu_write_safe", 6), ("tio_en", 7)],
)  # fmt: skip
def test_a_platform_bit_may_be_demanded_or_forbidden(amd: Amd, name: str, bit: int) -> None:
    demands = rule(require=["alias_check_complete", name])
    assert judged(amd, demands, platform_info=PLATFORM) == ["platform_bit_missing"]
    assert judged(amd, demands, platform_info=PLATFORM | 1 << bit) == []
    forbids = rule(forbid=[name])
    assert judged(amd, forbids, platform_info=PLATFORM | 1 << bit) == ["platform_bit_forbidden"]
    assert judged(amd, forbids, platform_info=PLATFORM) == []


@pytest.mark.parametrize("bit", [8, 31, 63])
def test_an_unknown_platform_bit_is_refused(amd: Amd, bit: int) -> None:
    assert judged(amd, rule(), platform_info=PLATFORM | 1 << bit) == ["platform_bits_unknown"]


GENOA_FLOOR = {"Genoa": {"bl": 10, "tee": 0, "snp": 23, "ucode": 84}, "Turin": {}}


@pytest.mark.parametrize("name", ["reported", "committed", "current", "launch"])
@pytest.mark.parametrize("component", [0, 2, 3])
def test_firmware_below_the_floor_is_refused_wherever_it_stands(
    amd: Amd, name: str, component: int
) -> None:
    levels = list(LEVELS["Genoa"])
    levels[component] -= 1
    demands = rule(min_tcb=GENOA_FLOOR)
    assert judged(amd, demands) == []
    found = judged(amd, demands, **{f"{name}_tcb": tcb("Genoa", levels)})
    assert found == ["tcb_out_of_date"]


def test_a_floor_is_a_minimum_for_each_component_alone(amd: Amd) -> None:
    levels = (11, 0, 22, 255)  # newer in all but one
    assert judged(amd, rule(min_tcb=GENOA_FLOOR), amd.chip(levels)) == ["tcb_out_of_date"]
    assert judged(amd, rule(min_tcb=GENOA_FLOOR), amd.chip((11, 1, 24, 85))) == []


def test_turins_own_component_has_a_floor() -> None:
    turin = Amd("Turin")
    floor = rule(min_tcb={"Genoa": {}, "Turin": {"fmc": 2, "snp": 4}})
    assert judged(turin, floor) == ["tcb_out_of_date"]
    assert judged(turin, floor, turin.chip((2, 1, 1, 4, 81))) == []


@pytest.mark.parametrize("name", ["committed_fw", "current_fw"])
@pytest.mark.parametrize("version", [(1, 55, 39), (1, 54, 99), (0, 99, 99)])
def test_firmware_older_than_demanded_is_refused(
    amd: Amd, name: str, version: tuple[int, int, int]
) -> None:
    demands = rule(min_committed_fw="1.55.40")
    assert judged(amd, demands) == []
    assert judged(amd, demands, **{name: version}) == ["firmware_out_of_date"]


def test_a_launch_measurement_that_is_not_listed_is_refused(amd: Amd) -> None:
    demands = rule(image={"measurement_in": [DIGEST]})
    assert judged(amd, demands) == ["image_not_accepted"]
    assert judged(amd, demands, measurement=bytes.fromhex(DIGEST)) == []


def test_a_zero_measurement_is_refused_even_of_any_image(amd: Amd) -> None:
    assert judged(amd, rule(), measurement=bytes(48)) == ["measurement_zero"]


def test_a_guest_svn_below_the_least_is_refused(amd: Amd) -> None:
    assert judged(amd, rule(min_guest_svn=2)) == ["guest_svn_too_low"]
    assert judged(amd, rule(min_guest_svn=2), guest_svn=2) == []


def test_keys_of_the_id_block_are_those_listed(amd: Amd) -> None:
    digest = bytes.fromhex(DIGEST)
    demands = rule(id_key_in=[DIGEST])
    assert judged(amd, demands) == ["id_key_not_accepted"]
    assert judged(amd, demands, id_key_digest=digest) == []
    demands = rule(author_key_in=[DIGEST])
    assert judged(amd, demands, author_key_digest=digest, flags=1) == []
    # A digest that the firmware does not vouch for is none.
    assert judged(amd, demands, author_key_digest=digest) == ["author_key_not_accepted"]
    assert judged(amd, demands, flags=1) == ["author_key_not_accepted"]


def test_chips_are_those_of_the_fleet(amd: Amd) -> None:
    own = amd.chip().facts.chip_id
    assert judged(amd, rule(chip_id_in=[own.hex()])) == []
    assert judged(amd, rule(chip_id_in=["ab" * 64])) == ["chip_not_accepted"]
    masked = rule(chip_id_in=["ab" * 64], signer=["vlek"], csp_in="any")
    assert judged(amd, masked, amd.provider()) == ["chip_not_accepted"]
    turin = Amd("Turin")
    short = turin.chip().facts.chip_id[:8]
    assert judged(turin, rule(chip_id_in=[short.hex()])) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"debug": True}, "debug"),
        ({"min_tcb": ...}, "min_tcb"),
        ({"image": ...}, "image"),
        ({"image": "all"}, "image"),
        ({"image": {}}, "measurement_in"),
        ({"image": {"measurement_in": []}}, "measurement_in"),
        ({"image": {"measurement_in": ["00" * 48]}}, "measurement_in"),
        ({"image": {"measurement_in": ["AB" * 48]}}, "measurement_in"),
        ({"image": {"measurement_in": ["ab" * 47]}}, "measurement_in"),
        ({"image": {"measurement_in": [DIGEST], "policy": 1}}, "policy"),
        ({"min_tcb": {"Genoa": {}}}, "Turin"),  # a product without a floor
        ({"min_tcb": {"Genoa": {}, "Turin": {}, "Milan": {}}}, "Milan"),  # and one not accepted
        ({"min_tcb": {"Genoa": {"fmc": 1}, "Turin": {}}}, "fmc"),
        ({"min_tcb": {"Genoa": {"snp": 256}, "Turin": {}}}, "snp"),
        ({"min_tcb": {"Genoa": {"snp": "23"}, "Turin": {}}}, "snp"),
        ({"products": []}, "products"),
        ({"products": ["Rome"]}, "products"),
        ({"signer": []}, "signer"),
        ({"signer": ["none"]}, "signer"),
        ({"signer": ["vlek"]}, "csp_in"),
        ({"signer": ["vlek"], "csp_in": []}, "csp_in"),
        ({"csp_in": [CSP]}, "csp_in"),
        ({"vmpl": 3}, "vmpl"),
        ({"vmpl": {"max": 4}}, "max"),
        ({"vmpl": {}}, "max"),
        ({"smt": 1}, "smt"),
        ({"require": ["alias"]}, "require"),
        ({"forbid": ["debug"]}, "forbid"),
        ({"policy_require": ["smt"]}, "policy_require"),
        ({"min_abi": "1"}, "min_abi"),
        ({"min_abi": "1.256"}, "min_abi"),
        ({"min_abi": "1.051"}, "min_abi"),
        ({"min_committed_fw": "1.55"}, "min_committed_fw"),
        ({"min_committed_fw": 1.55}, "min_committed_fw"),
        ({"min_guest_svn": -1}, "min_guest_svn"),
        ({"id_key_in": []}, "id_key_in"),
        ({"id_key_in": [f"{n:096x}" for n in range(1, 4098)]}, "id_key_in"),
        ({"id_key_in": ["00" * 48]}, "id_key_in"),
        ({"chip_id_in": ["ab" * 32]}, "chip_id_in"),
        ({"revocation": "optional"}, "revocation"),
        ({"host_data_eq": DIGEST}, "host_data_eq"),
    ],
)
def test_a_rule_that_is_not_of_the_schema_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(PolicyError) as caught:
        rule(**changes)
    assert named in str(caught.value)


@pytest.mark.parametrize("name", ["launch_mit", "current_mit"])
def test_a_mitigation_that_is_demanded_must_be_in_both_vectors(amd: Amd, name: str) -> None:
    demands = rule(mitigations="0000000000000021")
    assert judged(amd, demands) == []
    assert judged(amd, demands, **{name: 0x3F & ~0x20}) == ["platform_bit_missing"]
    assert judged(amd, rule(), **{name: 0}) == []


def test_a_report_without_mitigation_vectors_has_none_of_them(amd: Amd) -> None:
    demands = rule(mitigations="0000000000000001")
    assert judged(amd, demands, version=4) == ["platform_bit_missing"]


@pytest.mark.parametrize(
    "value", ["0" * 16, "1", "1" * 15, "1" * 17, "0x00000000000001", "G" * 16, 63, None]
)
def test_mitigations_are_bits_in_hex(value: object) -> None:
    with pytest.raises(PolicyError):
        rule(mitigations=value)


@pytest.mark.parametrize("bits", [1, 0xFF, 0xFEDCBA9876543210, 2**64 - 1])
def test_mitigations_are_read_as_they_are_written(bits: int) -> None:
    assert rule(mitigations=f"{bits:016x}").mitigations == bits

"""A rule for workers names images: under any other, whoever starts one could claim a listed worker.

Host data is the host's to state, and the register that names the worker is the guest's to extend.
So each way to leave the image open is refused when the policy is read.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from simulators.hardware_tee import AzureSnpTee, HardwareTee, NitroTee, QuoteTee, SnpTee, TdxTee

from attestation.conformance.strict import strict_rule
from attestation.members import Members
from attestation.schemes import SCHEMES, azure_tdx
from wire.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGED = [SnpTee, TdxTee, NitroTee, AzureSnpTee]
VTPM = [QuoteTee, AzureSnpTee]
WORKERS = sorted(kind for kind, scheme in SCHEMES.items() if scheme.carries is not None)
ZEROS48 = "00" * 48
SEPARATOR = hashlib.sha256(bytes(32) + hashlib.sha256(bytes(4)).digest()).hexdigest()
FAILED = hashlib.sha256(bytes(32) + hashlib.sha256(b"\xff" * 4).digest()).hexdigest()


def refused(tee: HardwareTee, *words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        tee.policy()
    for word in words:
        assert word in str(caught.value)


def azure_tdx_rule(**changes: Any) -> Any:
    tdx, vtpm = TdxTee().rule, AzureSnpTee().rule
    rule = {"tcb": tdx["tcb"], "image": tdx["image"], "pcrs": vtpm["pcrs"], **changes}
    required, optional = azure_tdx.SCHEME.rule_keys
    members = Members(rule, "rule", required=required, optional=optional, error=PolicyError)
    return azure_tdx.parse_rule(members)


# ---------------------------------------------------------------- the word "any"


@pytest.mark.parametrize("make", IMAGED)
def test_any_image_is_refused_with_what_to_write_instead(make: type[HardwareTee]) -> None:
    tee = make()
    tee.rule["image"] = "any"
    refused(tee, 'policy.accept.image: found "any", expected', "images that you built or read")


def test_under_a_paravisor_on_tdx_too() -> None:
    assert azure_tdx_rule().unsaid == ""
    assert 'image: found "any"' in azure_tdx_rule(image="any").unsaid


@pytest.mark.parametrize("make", IMAGED)
@pytest.mark.parametrize(
    "image",
    [
        None, "", "ANY", "all", "*", [], {}, True, ["any"], {"any": True}, {"any_of": "any"},
        {"any_of": []}, {"any_of": ["any"]}, {"any_of": [{}]}, {"any_of": [None]},
        {"measurement_in": "any"}, {"measurement_in": []}, {"measurement_in": ["any"]},
        {"measurement_in": [ZEROS48]}, {"any_of": [{"pcr0": ZEROS48}]},
        {"any_of": [{"pcr0": "any"}]}, {"any_of": [{"pcr1": "11" * 48, "pcr2": "11" * 48}]},
        {"any_of": [{"mr_config_id": "11" * 48, "mr_owner": "11" * 48}]},
        {"any_of": [{"mr_td": ZEROS48, "rt_mr0": "11", "rt_mr1": "11", "rt_mr2": "11"}]},
    ],
    ids=str,
)  # fmt: skip
def test_no_other_spelling_leaves_an_image_open(make: type[HardwareTee], image: object) -> None:
    tee = make()
    tee.rule["image"] = image
    refused(tee, "policy.accept.image")


@pytest.mark.parametrize("make", IMAGED)
def test_an_image_beside_an_open_one_does_not_close_it(make: type[HardwareTee]) -> None:
    tee = make()
    (name,) = tee.rule["image"]
    tee.rule["image"][name].append("any")
    refused(tee, "policy.accept.image")


@pytest.mark.parametrize("make", [*IMAGED, QuoteTee])
def test_a_second_rule_is_held_to_the_same(make: type[HardwareTee]) -> None:
    tee = make()
    other = copy.deepcopy(tee.rule)
    other |= {"pcrs": {}} if make is QuoteTee else {"image": "any"}
    tee.demands["accept"] = [tee.rule, other]
    refused(tee, "images that you built or read")


@pytest.mark.parametrize("member", ["id_key_in", "author_key_in", "chip_id_in"])
def test_who_signed_or_owns_it_does_not_say_which_image(member: str) -> None:
    tee = SnpTee()
    tee.rule |= {"image": "any", member: ["ab" * (64 if member == "chip_id_in" else 48)]}
    refused(tee, 'image: found "any"')


@pytest.mark.parametrize("member", ["pcr8_in", "pcr3_in"])
def test_an_enclaves_signer_or_role_does_not_say_which_image(member: str) -> None:
    tee = NitroTee()
    tee.rule |= {"image": "any", member: ["ab" * 48]}
    refused(tee, 'image: found "any"')


# ---------------------------------------------------------------- measurements of nothing


def extended(count: int, mark: bytes) -> str:
    value = bytes(48)
    for _ in range(count):
        value = hashlib.sha384(value + hashlib.sha384(mark * 4).digest()).digest()
    return value.hex()


NO_CODE = [ZEROS48, "ff" * 48] + [
    extended(n, mark) for n in range(1, 9) for mark in (b"\0", b"\xff")
]


@pytest.mark.parametrize("rtmr1", NO_CODE)
def test_a_trust_domain_whose_firmware_measured_no_code_is_no_image(rtmr1: str) -> None:
    """It leaves RTMR1 so, whatever kernel it starts; 0 and 2 may be those of a good boot."""
    tee = TdxTee()
    (image,) = tee.rule["image"]["any_of"]
    tee.rule["image"] = {"any_of": [image, {**image, "rt_mr1": rtmr1, "rt_mr3": "11" * 48}]}
    refused(tee, "rt_mr1", "measure none")


def test_a_register_that_the_guest_extends_does_not_say_what_was_started() -> None:
    tee = TdxTee()
    (image,) = tee.rule["image"]["any_of"]
    public = hashlib.sha384(bytes(48) + hashlib.sha384(b"a public event").digest()).hexdigest()
    chosen = {**image, "rt_mr0": ZEROS48, "rt_mr1": ZEROS48, "rt_mr2": public}
    tee.rule["image"] = {"any_of": [chosen]}
    refused(tee, "rt_mr1", "measure none")


@pytest.mark.parametrize("register", ["rt_mr0", "rt_mr2"])
def test_the_other_two_may_be_zero(register: str) -> None:
    """A boot loader that measures nothing of what it loads is named all the same."""
    tee = TdxTee()
    (image,) = tee.rule["image"]["any_of"]
    tee.rule["image"] = {"any_of": [{**image, register: ZEROS48}]}
    tee.policy()


def test_under_a_paravisor_those_registers_may_be_zero() -> None:
    (image,) = TdxTee().rule["image"]["any_of"]
    empty = {**image, **dict.fromkeys(("rt_mr0", "rt_mr1", "rt_mr2"), ZEROS48)}
    assert azure_tdx_rule(image={"any_of": [empty]}).unsaid == ""


# ---------------------------------------------------------------- registers of a virtual TPM


@pytest.mark.parametrize("make", VTPM)
@pytest.mark.parametrize(
    "numbers", [(), (0, 1, 2, 3), (5, 6, 7), (7,), range(8, 16), (11,), (17, 18)]
)
def test_without_register_4_what_was_started_is_open(
    make: type[HardwareTee], numbers: tuple[int, ...]
) -> None:
    """The others are the machine's, or a signer's, or what was started may write into them."""
    tee = make()
    tee.rule["pcrs"] = {str(number): ["11" * 32] for number in numbers}
    refused(tee, "policy.accept.pcrs: found no register 4, expected its values")
    tee.rule["pcrs"]["4"] = ["11" * 32]
    tee.policy()


@pytest.mark.parametrize("number", ["16", "23"])
@pytest.mark.parametrize("make", VTPM)
def test_a_register_that_anybody_resets_is_none_to_demand(
    make: type[HardwareTee], number: str
) -> None:
    tee = make()
    tee.rule["pcrs"] = {number: ["11" * 32]}
    refused(tee, f"policy.accept.pcrs.{number}")


@pytest.mark.parametrize("make", VTPM)
@pytest.mark.parametrize("pcrs", [None, [], "any", {"4": []}, {"4": "any"}, {"4": ["any"]}])
def test_registers_have_no_other_open_spelling(make: type[HardwareTee], pcrs: Any) -> None:
    tee = make()
    tee.rule["pcrs"] = pcrs
    refused(tee, "policy.accept.pcrs")


@pytest.mark.parametrize("make", VTPM)
@pytest.mark.parametrize("value", ["00" * 32, "ff" * 32, SEPARATOR, FAILED])
def test_a_value_of_register_4_that_no_code_was_measured_into_is_refused(
    make: type[HardwareTee], value: str
) -> None:
    tee = make()
    tee.rule["pcrs"]["4"].append(value)
    refused(tee, "found register 4 with no code measured")


@pytest.mark.parametrize(("bank", "size"), [("sha384", 48), ("sha512", 64)])
def test_in_the_other_banks_too(bank: str, size: int) -> None:
    tee = QuoteTee()
    tee.rule |= {"bank": bank, "pcrs": {"4": ["11" * size]}}
    tee.policy()
    tee.rule["pcrs"] = {"4": ["00" * size]}
    refused(tee, "found register 4 with no code measured")


def test_a_paravisor_that_is_named_does_not_say_what_it_started() -> None:
    assert "pcrs: found no register 4" in azure_tdx_rule(pcrs={}).unsaid


def test_another_image_that_claims_a_listed_worker_is_refused() -> None:
    """All but register 4 is as the policy has it: the stranger wrote the worker's measurement."""
    tee = AzureSnpTee()
    tee.vm.tpm.registers["sha256"][4] = hashlib.sha256(b"another kernel").digest()
    verdict = tee.appraise()
    assert [reason.code for reason in getattr(verdict, "reasons", ())] == ["pcr_not_accepted"]


# ---------------------------------------------------------------- other kinds, and the index


@pytest.mark.parametrize("kind", sorted(SCHEMES.keys() - WORKERS))
def test_no_rule_of_another_kind_stands_in_for_a_worker(kind: str) -> None:
    tee = SnpTee()
    tee.rule["kind"] = kind
    refused(tee, f'policy.accept.kind: found "{kind}", which names no worker')


def test_every_kind_that_names_a_worker_asks_for_images() -> None:
    assert WORKERS == [
        "amd-sev-snp-report", "aws-nitro-document", "azure-vtpm-snp", "azure-vtpm-tdx",
        "intel-tdx-quote", "tpm2-quote",
    ]  # fmt: skip
    for kind in WORKERS:
        assert strict_rule(SCHEMES[kind]).unsaid


# ---------------------------------------------------------------- other words without a default


def drop_tcb(tee: HardwareTee) -> None:
    del tee.rule["tcb"]


def drop_number(tee: HardwareTee) -> None:
    tee.rule["tcb"] = {"statuses": ["UpToDate"]}


@pytest.mark.parametrize("drop", [drop_tcb, drop_number])
def test_how_new_intels_statements_must_be_has_no_default(
    drop: Callable[[HardwareTee], None],
) -> None:
    tee = TdxTee()
    drop(tee)
    refused(tee, "policy.accept.tcb.min_eval_number: found nothing, expected the least evaluation")
    assert "tcb.min_eval_number" in azure_tdx_rule(tcb={}).unsaid


@pytest.mark.parametrize("number", [0, 18])
def test_a_number_that_is_stated_is_taken_as_it_is(number: int) -> None:
    tee = TdxTee()
    tee.rule["tcb"]["min_eval_number"] = number
    tee.policy()


@pytest.mark.parametrize("number", [None, True, "18", -1, 18.5])
def test_what_is_no_number_is_not_taken_for_one(number: object) -> None:
    tee = TdxTee()
    tee.rule["tcb"]["min_eval_number"] = number
    refused(tee, "min_eval_number" if number != 18.5 else "policy")

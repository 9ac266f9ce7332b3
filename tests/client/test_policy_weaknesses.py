"""What `policy check` says of a weaker rule: one member changed, one sentence more."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from simulators.tee import SoftwareTee
from simulators.vtpm import VtpmMaker

from attestation.policy import Policy, parse_policy
from client.policy_weaknesses import weaknesses

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = 80
VALUE = "ef" * 48
SHARED = {"measurements": ["sha256:" + "ab" * 32]}
SNP = {
    "min_tcb": {"Genoa": {"bl": 10}},
    "products": ["Genoa"],
    "image": {"measurement_in": [VALUE]},
}
TD = {
    "image": {"any_of": [dict.fromkeys(("mr_td", "rt_mr0", "rt_mr1", "rt_mr2"), VALUE)]},
    "tcb": {"min_eval_number": 18},
}
GPU = {
    "architectures": ["HOPPER"], "models": "any", "driver_in": ["550.90.07"], "vbios_in": "any",
    "modes": ["spt"], "rim": "required", "rim_ocsp": "required", "ocsp": "required", "count": 1,
}  # fmt: skip
PCRS = {"pcrs": {"4": ["cd" * 32]}}
RULES: dict[str, dict[str, Any]] = {
    "amd-sev-snp-report": SNP,
    "intel-tdx-quote": {**TD, "gpu": GPU},
    "azure-vtpm-snp": {**SNP, **PCRS},
    "azure-vtpm-tdx": {**TD, **PCRS},
    "aws-nitro-document": {"image": {"any_of": [{"pcr0": VALUE}]}},
    "tpm2-quote": {
        **PCRS,
        "roots": [ssl.DER_cert_to_PEM_cert(VtpmMaker().root)],
        "simulated": True,
    },
}
SNP_KINDS = ("amd-sev-snp-report", "azure-vtpm-snp")
TD_KINDS = ("intel-tdx-quote", "azure-vtpm-tdx")
AZURE_KINDS = ("azure-vtpm-snp", "azure-vtpm-tdx")

SNP_SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        {"products": ["Milan"], "min_tcb": {"Milan": {"bl": 3}}},
        "accepts AMD Milan: its keys were extracted, reports can be forged",
    ),
    (
        {"min_tcb": {"Genoa": {}}},
        "min_tcb.Genoa sets no floor: firmware with known holes is accepted",
    ),
    (
        {"min_tcb": {"Genoa": {"bl": 0, "snp": 0}}},
        "min_tcb.Genoa sets no floor: firmware with known holes is accepted",
    ),
    (
        {"revocation": "as_supplied"},
        "revocation is as_supplied: certificates that AMD revoked may pass",
    ),
    (
        {"require": ["ecc_en"]},
        "require leaves out alias_check_complete: memory may be aliased (BadRAM)",
    ),
    (
        {"migrate_ma": True},
        "migrate_ma is true: a migration agent may move the guest with its keys",
    ),
    (
        {"vmpl": {"max": 1}},
        "vmpl.max is 1: software above the worker's kernel may be anybody's",
    ),
]
TD_SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        {"tcb": {"min_eval_number": 18, "statuses": ["UpToDate", "OutOfDate"]}},
        "tcb.statuses accepts OutOfDate: known holes may be open",
    ),
    (
        {"tcb": {"min_eval_number": 18, "statuses": ["SWHardeningNeeded", "OutOfDate"]}},
        "tcb.statuses accepts OutOfDate, SWHardeningNeeded: known holes may be open",
    ),
    (
        {"tcb": {"min_eval_number": 18, "grace_days": 30}},
        "tcb.grace_days is 30: known holes may be open that long",
    ),
    (
        {"tcb": {"min_eval_number": 0}},
        "tcb.min_eval_number is 0: old statements of Intel's hide newer holes",
    ),
    (
        {"td": {"sept_ve_disable": False}},
        "td.sept_ve_disable is false: the host can interrupt the TD by #VE at will",
    ),
    (
        {"td": {"migratable": True}},
        "td.migratable or td.service_td: another TD may move the worker with its keys",
    ),
    (
        {"td": {"service_td": [VALUE]}},
        "td.migratable or td.service_td: another TD may move the worker with its keys",
    ),
    (
        {"td": {"origin": ["ab" * 44]}},
        "td.origin names other platforms: what held the worker there nobody judged",
    ),
]
SECURE_BOOT = "vm_configuration demands no secure boot: boot code may be unsigned"
GPU_SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        {"rim": "not_checked", "rim_ocsp": None},
        "gpu.rim is not_checked: a GPU in developer mode or with other firmware passes",
    ),
    (
        {"ocsp": "not_checked"},
        "gpu.ocsp is not_checked: a GPU whose certificates NVIDIA revoked passes",
    ),
    (
        {"rim_ocsp": "not_checked"},
        "gpu.rim_ocsp is not_checked: manifests of a revoked signer pass",
    ),
    (
        {"ocsp_hold": "accept"},
        "gpu.ocsp_hold is accept: certificates that NVIDIA has suspended pass",
    ),
    (
        {"unknown_fields": "accept"},
        "gpu.unknown_fields is accept: reports may say what nobody understands",
    ),
    ({"modes": ["ppcie"]}, "gpu.modes accepts ppcie: links between GPUs are in clear text"),
    ({"modes": "any"}, "gpu.modes accepts ppcie: links between GPUs are in clear text"),
]


def document(*rules: dict[str, Any]) -> dict[str, Any]:
    accept = [{**SHARED, **rule} for rule in rules]
    return {**SoftwareTee().demands, "expires": 2**33, "accept": accept}


def policy(*rules: dict[str, Any]) -> Policy:
    return parse_policy(json.dumps(document(*rules)).encode())


def said(kind: str, **changes: Any) -> list[str]:
    return weaknesses(policy({"kind": kind, **RULES[kind], **changes}))


@pytest.mark.parametrize("kind", RULES)
def test_nothing_is_said_of_a_rule_as_strict_as_it_can_be(kind: str) -> None:
    assert said(kind) == []


@pytest.mark.parametrize("kind", SNP_KINDS)
@pytest.mark.parametrize(("change", "sentence"), SNP_SENTENCES)
def test_what_weakens_a_rule_for_amds_reports_is_said(
    kind: str, change: dict[str, Any], sentence: str
) -> None:
    assert said(kind, **change) == [sentence]


@pytest.mark.parametrize("kind", TD_KINDS)
@pytest.mark.parametrize(("change", "sentence"), TD_SENTENCES)
def test_what_weakens_a_rule_for_trust_domains_is_said(
    kind: str, change: dict[str, Any], sentence: str
) -> None:
    assert said(kind, **change) == [sentence]


@pytest.mark.parametrize("kind", AZURE_KINDS)
@pytest.mark.parametrize("demanded", [{}, {"tpm-enabled": True}, {"secure-boot": False}])
def test_a_vm_that_need_not_boot_securely_is_said(kind: str, demanded: dict[str, Any]) -> None:
    assert said(kind, vm_configuration=demanded) == [SECURE_BOOT]
    assert said(kind, vm_configuration={**demanded, "secure-boot": True}) == []


@pytest.mark.parametrize(("change", "sentence"), GPU_SENTENCES)
def test_what_weakens_a_rule_for_gpus_is_said(change: dict[str, Any], sentence: str) -> None:
    gpu = {name: value for name, value in {**GPU, **change}.items() if value is not None}
    assert said("intel-tdx-quote", gpu=gpu) == [sentence]


def test_a_certified_virtual_tpm_whose_revocation_is_not_demanded_is_said() -> None:
    assert said("tpm2-quote", revocation="as_supplied") == [
        "revocation is as_supplied: a revoked virtual TPM's certificate may pass"
    ]
    # Listed keys have no certificate that could be revoked.
    listed = {name: value for name, value in RULES["tpm2-quote"].items() if name != "roots"}
    rule = {"kind": "tpm2-quote", **listed, "aks": ["ab" * 32], "revocation": "as_supplied"}
    assert weaknesses(policy(rule)) == []


def test_a_sentence_that_holds_of_two_rules_is_said_once() -> None:
    weak = {"kind": "amd-sev-snp-report", **SNP, "revocation": "as_supplied"}
    other = {**weak, "vmpl": {"max": 2}}
    first, second = weaknesses(policy(weak, other))
    assert first.startswith("revocation is as_supplied")
    assert second.startswith("vmpl.max is 2")


def test_check_says_them_within_a_terminals_width(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    weak = {"kind": "azure-vtpm-snp", **SNP, **PCRS, "vm_configuration": {}}
    weak |= {"products": ["Milan"], "min_tcb": {"Milan": {}}}
    path.write_text(json.dumps(document(weak)))
    code, out, _ = run("policy", "check", path)
    assert code == 0
    told = " ".join(out.split())
    for sentence in weaknesses(parse_policy(path.read_bytes())):
        assert f"warning: {sentence}" in told
    assert "warning: accepts AMD Milan" in told
    assert max(map(len, out.splitlines())) <= COLUMNS


def test_each_is_one_sentence_of_one_line() -> None:
    for _, sentence in (*SNP_SENTENCES, *TD_SENTENCES, *GPU_SENTENCES, ({}, SECURE_BOOT)):
        assert len(sentence) <= COLUMNS
        assert ". " not in sentence

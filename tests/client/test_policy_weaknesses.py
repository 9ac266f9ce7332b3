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
SHARED = {"measurements": ["sha256:" + "ab" * 32], "posture": {"seccomp": "applied"}}
FLOOR = {"bl": 10, "tee": 0, "snp": 23, "ucode": 84}
SNP = {
    "min_tcb": {"Genoa": FLOOR},
    "products": ["Genoa"],
    "image": {"measurement_in": [VALUE]},
    "require": ["alias_check_complete", "ecc_en"],
    "min_abi": "1.51",
    "min_committed_fw": "1.55.40",
}
TD = {
    "image": {"any_of": [dict.fromkeys(("mr_td", "rt_mr0", "rt_mr1", "rt_mr2"), VALUE)]},
    "tcb": {"min_eval_number": 18},
    "platform": {"ppid_allow": ["ab" * 16]},
}
GPU = {
    "architectures": ["HOPPER"], "models": ["GH100"], "driver_in": ["550.90.07"],
    "vbios_in": ["96.00.9F.00.01"], "modes": ["spt"], "rim": "required", "rim_ocsp": "required",
    "ocsp": "required", "count": 1,
}  # fmt: skip
PCRS = {"pcrs": {"4": ["cd" * 32]}}
RULES: dict[str, dict[str, Any]] = {
    "amd-sev-snp-report": SNP,
    "intel-tdx-quote": {**TD, "gpu": GPU},
    "azure-vtpm-snp": {**SNP, **PCRS},
    "azure-vtpm-tdx": {**TD, **PCRS},
    "aws-nitro-document": {"image": {"any_of": [{"pcr0": VALUE}]}, "pcr8_in": [VALUE]},
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
        {"products": ["Milan"], "min_tcb": {"Milan": FLOOR}},
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
        {"min_tcb": {"Genoa": {"bl": 1, "snp": 0}}},
        "min_tcb.Genoa sets no floor for snp, ucode: holes may be open",
    ),
    (
        {"min_abi": None},
        "min_abi is absent: the guest may allow firmware of any ABI",
    ),
    (
        {"min_committed_fw": None},
        "min_committed_fw is absent: the host may go back to firmware of any version",
    ),
    (
        {"signer": ["vcek", "vlek"], "csp_in": ["CN=Cloud"]},
        "signer accepts vlek: a provider's key for its whole fleet, which names no chip",
    ),
    (
        {"require": ["alias_check_complete"]},
        "require leaves out ecc_en: memory may be without error correction",
    ),
    (
        {"cxl_allowed": True},
        "cxl_allowed is true: memory may be on devices outside of the package",
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
        {"platform": None},
        "platform.ppid_allow is absent: any genuine machine will do, a stranger's too",
    ),
    (
        {"platform": {"fmspc_allow": ["b0c06f000000"]}},
        "platform.ppid_allow is absent: any genuine machine will do, a stranger's too",
    ),
    (
        {"tcb": {"min_eval_number": 18, "allow_advisories": ["INTEL-SA-00001"]}},
        "tcb.allow_advisories is not empty: the holes it names may be open",
    ),
    *(
        (
            {"td": {name: True}},
            f"td.{name} is true: the TD may use more of the CPU than a worker needs",
        )
        for name in ("pks", "kl", "perfmon")
    ),
    (
        {"td": {"xfam_allow_mask": "ff" * 8}},
        "td.xfam_allow_mask allows features of no known use",
    ),
    (
        {"td": {"vmid": ["01"]}},
        "td.vmid names virtual machines within a TD: what is above them nobody judged",
    ),
    (
        {"td": {"dev_info": [VALUE]}},
        "td.dev_info names devices: they are outside of what the report measures",
    ),
    (
        {"td": {"attributes_eq": "00" * 8}},
        "td.attributes_eq has no SEPT_VE_DISABLE: the host can interrupt the TD by #VE",
    ),
    *(
        ({"td": {"attributes_eq": (1 << 28 | bit).to_bytes(8, "little").hex()}}, sentence)
        for bit, sentence in (
            (
                1 << 29,
                "td.attributes_eq has MIGRATABLE: another TD may move the worker with its keys",
            ),
            (1 << 30, "td.attributes_eq has PKS: the TD may use more than a worker needs"),
            (1 << 31, "td.attributes_eq has KL: the TD may use more than a worker needs"),
            (1 << 63, "td.attributes_eq has PERFMON: the TD may use more than a worker needs"),
            (1 << 17, "td.attributes_eq has SERVTD_EXT: service TDs may be bound anew"),
            (1 << 40, "td.attributes_eq has bits of no known use"),
        )
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
    (
        {"modes": ["spt", "unstated"]},
        "gpu.modes accepts unstated: nobody knows how links between GPUs are kept",
    ),
    ({"models": "any"}, "gpu.models is any: nobody decided on what passes"),
    ({"driver_in": "any"}, "gpu.driver_in is any: nobody decided on what passes"),
    ({"vbios_in": "any"}, "gpu.vbios_in is any: nobody decided on what passes"),
    (
        {"count": "any"},
        "gpu.count is any: GPUs may be fewer than those that were given to the worker",
    ),
]
NITRO_SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        {"max_age_s": "any"},
        "max_age_s is any: a document counts however old it was when it was bound",
    ),
    ({"pcr8_in": None}, "pcr8_in is absent: whoever can build the same image may sign it"),
]
POSTURE_SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        {"posture": None},
        "posture demands no control: the worker need not have confined itself",
    ),
    ({"posture": {}}, "posture demands no control: the worker need not have confined itself"),
    (
        {"posture": {"seccomp": "applied", "mlock": "unavailable"}},
        "posture.mlock is unavailable: the worker may run without that control",
    ),
]


def document(*rules: dict[str, Any]) -> dict[str, Any]:
    accept = [{"measurements": SHARED["measurements"], **rule} for rule in rules]
    return {**SoftwareTee().demands, "expires": 2**33, "accept": accept}


def policy(*rules: dict[str, Any]) -> Policy:
    return parse_policy(json.dumps(document(*rules)).encode())


def said(kind: str, **changes: Any) -> list[str]:
    rule = {"kind": kind, **SHARED, **RULES[kind], **changes}
    return weaknesses(policy({name: value for name, value in rule.items() if value is not None}))


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


def test_gpus_of_any_mode_are_said_to_be_of_either_weak_one() -> None:
    assert said("intel-tdx-quote", gpu={**GPU, "modes": "any"}) == [
        "gpu.modes accepts ppcie: links between GPUs are in clear text",
        "gpu.modes accepts unstated: nobody knows how links between GPUs are kept",
    ]


@pytest.mark.parametrize(("change", "sentence"), NITRO_SENTENCES)
def test_what_weakens_a_rule_for_enclaves_is_said(change: dict[str, Any], sentence: str) -> None:
    assert said("aws-nitro-document", **change) == [sentence]


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize(("change", "sentence"), POSTURE_SENTENCES)
def test_a_worker_that_need_not_confine_itself_is_said(
    kind: str, change: dict[str, Any], sentence: str
) -> None:
    assert said(kind, **change) == [sentence]


def test_posture_is_said_of_software_too() -> None:
    rule = SoftwareTee().rule
    assert weaknesses(policy(rule)) == []
    assert weaknesses(policy({**rule, "posture": {}})) == [POSTURE_SENTENCES[0][1]]


def test_the_key_of_any_provider_is_said_beside_that_there_is_one() -> None:
    first, second = said("amd-sev-snp-report", signer=["vlek"], csp_in="any")
    assert first.startswith("signer accepts vlek")
    assert second == "csp_in is any: the key of any provider will do"


def test_attributes_stated_whole_are_judged_instead_of_those_named() -> None:
    """What stands beside them counts for nothing, so it is neither a weakness nor a strength."""
    strict = "0000001000000000"
    beside = {"sept_ve_disable": False, "migratable": True, "pks": True}
    assert said("intel-tdx-quote", td={**beside, "attributes_eq": strict}) == []
    found = said("intel-tdx-quote", td={"attributes_eq": "0000026000000000"})
    for name in ("SEPT_VE_DISABLE", "MIGRATABLE", "PKS", "SERVTD_EXT"):
        assert sum(f" {name}:" in sentence for sentence in found) == 1
    assert len(found) == 4


def test_a_certified_virtual_tpm_whose_revocation_is_not_demanded_is_said() -> None:
    assert said("tpm2-quote", revocation="as_supplied") == [
        "revocation is as_supplied: a revoked virtual TPM's certificate may pass"
    ]
    # Listed keys have no certificate that could be revoked.
    listed = {name: value for name, value in RULES["tpm2-quote"].items() if name != "roots"}
    rule = {
        "kind": "tpm2-quote",
        **SHARED,
        **listed,
        "aks": ["ab" * 32],
        "revocation": "as_supplied",
    }
    assert weaknesses(policy(rule)) == []


def test_a_sentence_that_holds_of_two_rules_is_said_once() -> None:
    weak = {"kind": "amd-sev-snp-report", **SHARED, **SNP, "revocation": "as_supplied"}
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
    for _, sentence in (
        *SNP_SENTENCES, *TD_SENTENCES, *GPU_SENTENCES, *NITRO_SENTENCES, *POSTURE_SENTENCES,
        ({}, SECURE_BOOT),
    ):  # fmt: skip
        assert len(sentence) <= COLUMNS
        assert ". " not in sentence

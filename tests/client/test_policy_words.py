"""`policy explain`: no two policies that demand different things read alike."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.hardware_tee import SnpTee, TdxTee
from simulators.tee import SoftwareTee

from attestation.policy import Policy, parse_policy
from attestation.rules import azure, nitro, nvidia, snp, tdx, tpm_quote
from attestation.schemes import SCHEMES
from client.policy_members import deny_members, policy_members, rule_members
from client.policy_words import explain
from wire.errors import PolicyError
from wire.verifier_key import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Iterator

VKEYS = [
    VerifierKey(name, bytes([number] * 32)).vkey
    for number, name in enumerate(("log.example", "log.example", "log.examplex"))
]
TAG = "sha256:" + "ab" * 32
ROOT, OTHER_ROOT = SnpTee().rule["roots"][0], TdxTee().rule["roots"][0]


def value(seed: int, length: int = 48) -> str:
    return bytes((seed + place) % 256 for place in range(length)).hex()


SHARED = {"measurements": [TAG, "sha256:" + "cd" * 32], "posture": {"seccomp": "applied"}}
GPU = {
    "architectures": ["HOPPER"], "models": ["GH100"],
    "driver_in": [f"550.90.0{n}" for n in range(6)], "vbios_in": ["96.00.9F.00.01"],
    "modes": ["spt"], "rim": "required", "rim_ocsp": "required", "ocsp": "required",
    "ocsp_hold": "refuse", "unknown_fields": "refuse", "count": 8,
    "roots": [ROOT],
}  # fmt: skip
IMAGES = {
    "any_of": [
        {name: value(seed + place) for place, name in enumerate(
            ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3", "mr_config_id", "mr_owner",
             "mr_owner_config"))}
        for seed in (1, 20)
    ]
}  # fmt: skip
TDX = {
    "image": IMAGES,
    "tcb": {
        "statuses": ["UpToDate", "OutOfDate"], "allow_advisories": ["INTEL-SA-00001"],
        "deny_advisories": ["INTEL-SA-00002"], "min_eval_number": 18, "grace_days": 3,
    },
    "platform": {
        "fmspc_allow": [value(1, 6)], "fmspc_deny": [value(2, 6)], "ppid_allow": [value(3, 16)],
        "dynamic": "deny", "cached_keys": "deny", "smt": "deny",
    },
    "td": {
        "sept_ve_disable": True, "migratable": False, "pks": False, "kl": False, "perfmon": False,
        "attributes_eq": "0000001000000000", "xfam_allow_mask": "e718060000000000",
        "service_td": [value(5)], "mr_seam": [value(6), value(7)],
        "service_td_attributes": [value(8, 8), value(9, 8)], "vmid": ["01", "02"],
        "dev_info": [value(10), value(11)], "origin": [value(12, 44), value(13, 44)],
    },
}  # fmt: skip
SNP = {
    "image": {"measurement_in": [value(seed) for seed in range(7)]},
    "products": ["Genoa", "Turin"],
    "min_tcb": {"Genoa": {"bl": 10, "tee": 0, "snp": 23, "ucode": 84}, "Turin": {"fmc": 1}},
    "signer": ["vcek", "vlek"], "csp_in": ["CN=Cloud, O=Cloud", "other"], "vmpl": {"max": 0},
    "migrate_ma": False, "smt": False, "cxl_allowed": False, "require": ["alias_check_complete"],
    "forbid": ["smt_en"], "policy_require": ["rapl_dis"], "min_abi": "1.51",
    "min_committed_fw": "1.55.40", "min_guest_svn": 1, "id_key_in": [value(1)],
    "author_key_in": [value(2)], "chip_id_in": [value(3, 64)], "revocation": "required",
    "mitigations": "000000000000003f",
}  # fmt: skip
VTPM = {
    "pcrs": {"4": [value(seed, 32) for seed in range(6)], "7": [value(9, 32)]},
    "bank": "sha256",
}
AZURE = {**VTPM, "vm_configuration": {"secure-boot": True, "console": "yes"}}
NITRO = {
    "image": {"any_of": [{"pcr0": value(1), "pcr1": value(2), "pcr2": value(3)}]},
    "pcr8_in": [value(4)], "pcr3_in": [value(5)], "max_age_s": 300,
}  # fmt: skip
QUOTE = {**VTPM, "aks": [value(1, 32)], "revocation": "required", "event_log": "optional"}
OWN = {"roots": [ROOT, SnpTee("other").rule["roots"][0]]}
# One value is ever accepted (`simulated`: beside these roots); those of PAIRED go with another's.
FIXED = {"v", "min_version", "kind", "alg", "simulated"}
PAIRED = {"rim", "bank", "products", "signer"}
ALWAYS_SO = {"debug", "digest"}

RULES: dict[str, dict[str, Any]] = {
    "intel-tdx-quote": {**SHARED, **TDX, "gpu": GPU},
    "amd-sev-snp-report": {**SHARED, **SNP, "simulated": True, **OWN},
    "aws-nitro-document": {**SHARED, **NITRO},
    "azure-vtpm-snp": {**SHARED, **SNP, **AZURE},
    "azure-vtpm-tdx": {**SHARED, **TDX, **AZURE},
    "tpm2-quote": {**SHARED, **QUOTE, "simulated": False, **OWN},
    "tpm2": {**SHARED, "pcr": 11, "roots": [ROOT, OTHER_ROOT]},
    "software": {**SHARED, "roots": ["A" * 43, "B" * 42 + "E"]},
}
DEMANDS = {
    **SoftwareTee().demands,
    "expires": 2**33, "min_version": 1, "require_pq": True, "k": 3, "min_workers": 3,
    "allow_software": False, "allow_simulated": False,
    "models": [{"name": "m", "digest": TAG}, {"name": "n"}],
    "directory": {"keys": [{"kid": "d", "alg": "ed25519", "pk": "A" * 43}]},
    "log": {"origin": "log.example", "vkeys": VKEYS},
    "deny": {
        "bh": ["A" * 43], "measurements": [TAG], "kids": ["A" * 43], "chip_ids": [value(1, 64)],
        "ppids": [value(2, 16)], "serials": ["9a"], "keys": [value(n, 32) for n in range(6)],
    },
    "freshness": {
        "beacon_max_age_s": 60, "directory_max_age_s": 60, "require_beacon": False,
        "result_ttl_s": 60, "collateral_max_age_s": 60,
    },
}  # fmt: skip
WORDS = (
    "any", "required", "as_supplied", "optional", "not_checked", "accept", "refuse", "none",
    "sha384", "vlek", "Milan", "HOPPER", "BLACKWELL", "ppcie", "OutOfDate", "ConfigurationNeeded",
    "applied", "degraded", "unavailable", "tsme_en", "ecc_en", "single_socket", "1.50",
    "1.55.39", "9", "yes", "A" * 42 + "E", TAG, OTHER_ROOT, True, False, 0,
)  # fmt: skip


def document(kind: str) -> dict[str, Any]:
    return {**copy.deepcopy(DEMANDS), "accept": [{"kind": kind, **copy.deepcopy(RULES[kind])}]}


def demands(obj: object) -> Policy | None:
    """What a document demands; None where it is no policy."""
    try:
        return replace(parse_policy(json.dumps(obj).encode()), digest="")
    except PolicyError:
        return None


def places(obj: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the leaves of a document are, and its objects and arrays."""
    if path:
        yield path
    if isinstance(obj, dict | list):
        for key in obj if isinstance(obj, dict) else range(len(obj)):
            yield from places(obj[key], (*path, key))


def others(found: Any) -> Iterator[Any]:
    """Other values that may stand in a place."""
    if isinstance(found, bool):
        yield not found
    elif isinstance(found, int):
        yield from (found + 1, found - 1)
    elif isinstance(found, str):
        for at in {0, len(found) // 2, len(found) - 1}:
            for sign in "05g":
                yield found[:at] + sign + found[at + 1 :]
        yield found + "x"
    elif isinstance(found, list):
        yield from (found[:-1], found[1:], [*found, *map(extended, found[-1:])])
        return
    else:
        return
    yield from WORDS


def extended(item: Any) -> Any:
    """An item like one that is there, and another one."""
    if isinstance(item, str):
        return item[:-1] + ("0" if item[-1] != "0" else "1")
    return item


def changed(obj: dict[str, Any], path: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """The document with another value in one place, and without what stands there."""

    def place() -> tuple[dict[str, Any], Any]:
        whole = copy.deepcopy(obj)
        parent: Any = whole
        for key in path[:-1]:
            parent = parent[key]
        return whole, parent

    _, parent = place()
    for other in others(parent[path[-1]]):
        whole, parent = place()
        parent[path[-1]] = other
        yield whole
    whole, parent = place()
    del parent[path[-1]]
    yield whole


@pytest.mark.parametrize("kind", RULES)
def test_any_change_of_a_demand_changes_the_words(kind: str) -> None:
    obj = document(kind)
    policy = demands(obj)
    assert policy is not None
    words = explain(policy)
    silent = set()
    for path in places(obj):
        if kind != "software" and path[0] != "accept":
            continue  # what all policies have is said once
        told = 0
        for other in map(demands, changed(obj, path)):
            if other is not None and other != policy:
                assert explain(other) != words, path
                told += 1
        if not told and is_leaf(obj, path):
            silent.add([key for key in path if isinstance(key, str)][-1])
    assert silent <= FIXED | PAIRED


def is_leaf(obj: Any, path: tuple[Any, ...]) -> bool:
    for key in path:
        obj = obj[key]
    return not isinstance(obj, dict | list)


def test_so_does_a_change_of_two_members_that_go_together() -> None:
    gpus, quote = document("intel-tdx-quote"), document("tpm2-quote")
    del gpus["accept"][0]["gpu"]["rim_ocsp"]
    gpus["accept"][0]["gpu"]["rim"] = "not_checked"
    quote["accept"][0] |= {"bank": "sha384", "pcrs": {"4": [value(1)]}}
    plain = document("tpm2-quote")
    plain["accept"][0]["pcrs"] = {"4": [value(1, 32)]}
    for one, two in ((gpus, document("intel-tdx-quote")), (quote, plain)):
        found = [demands(one), demands(two)]
        assert None not in found
        assert found[0] != found[1]
    words = [dict(explain(parse_policy(json.dumps(obj).encode()))[1][1]) for obj in (gpus, quote)]
    assert words[0]["gpu.rim"] == "not_checked"
    assert words[1]["bank"] == "sha384"


def stated(members: Any) -> Any:
    """Members without those that are absent; a list of nothing is one, where none may be named."""
    if isinstance(members, list):
        return [stated(item) for item in members]
    if not isinstance(members, dict):
        return members
    named = {"fmspc_deny", "service_td_attributes", "vmid", "dev_info", "origin"}
    return {
        name: stated(value)
        for name, value in members.items()
        if value is not None and not (value == [] and name in named)
    }


LEAST = {
    "intel-tdx-quote": {"image": IMAGES, "tcb": {"min_eval_number": 0}, "gpu": {
        "architectures": ["HOPPER"], "models": "any", "driver_in": "any", "vbios_in": "any",
        "modes": "any", "rim": "not_checked", "ocsp": "not_checked", "count": "any"}},
    "amd-sev-snp-report": {
        "image": SNP["image"], "min_tcb": {"Genoa": {}, "Turin": {}}, "signer": ["vlek"],
        "csp_in": "any", "require": [], "revocation": "as_supplied"},
    "azure-vtpm-snp": {
        "image": SNP["image"], "min_tcb": {"Genoa": {}, "Turin": {}}, "pcrs": VTPM["pcrs"],
        "vm_configuration": {}},
    "aws-nitro-document": {"image": NITRO["image"], "max_age_s": "any"},
    "tpm2-quote": {
        "pcrs": VTPM["pcrs"], "aks": [value(1, 32)], "simulated": True,
        "revocation": "as_supplied", "event_log": "required"},
}  # fmt: skip


@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("kind", RULES)
def test_the_members_said_are_those_of_a_policy_that_demands_the_same(
    kind: str, least: bool
) -> None:
    """So they have the names and values that a policy file has, and none is left out."""
    obj = document(kind)
    if least and kind in LEAST:
        obj["accept"] = [{"kind": kind, "measurements": [TAG], **copy.deepcopy(LEAST[kind])}]
    policy = demands(obj)
    assert policy is not None
    (rule,) = policy.accept
    again = stated(rule_members(rule))
    for place in (again, again.get("gpu", {})):
        source = obj["accept"][0] if place is again else obj["accept"][0].get("gpu", {})
        place |= {"roots": source["roots"]} if "roots" in source else {}
    whole = {**obj, **stated(policy_members(policy)), "accept": [again]}
    whole["deny"] = stated(deny_members(policy.deny))
    assert demands(whole) == policy


@pytest.mark.parametrize("kind", RULES)
def test_every_member_of_a_rule_is_said_and_constants_too(kind: str) -> None:
    policy = demands(document(kind))
    assert policy is not None
    names = {name for name, _ in explain(policy)[1][1]}
    tops = {name.partition(".")[0].partition("[")[0] for name in names}
    assert {name for name in RULES[kind] if name != "roots"} <= tops
    required, optional = SCHEMES[kind].rule_keys if kind in SCHEMES else ((), ())
    assert {*required, *optional} <= tops
    debug = {"amd-sev-snp-report": "debug", "azure-vtpm-snp": "debug", "intel-tdx-quote":
             "td.debug", "azure-vtpm-tdx": "td.debug", "aws-nitro-document": "debug"}  # fmt: skip
    if kind in debug:
        assert (debug[kind], "false") in explain(policy)[1][1]


def test_bits_that_attributes_stated_whole_replace_are_said_to_be() -> None:
    obj = document("intel-tdx-quote")
    policy = demands(obj)
    assert policy is not None
    assert ("td.sept_ve_disable", "true (attributes_eq decides)") in explain(policy)[1][1]
    del obj["accept"][0]["td"]["attributes_eq"]
    policy = demands(obj)
    assert policy is not None
    assert ("td.sept_ve_disable", "true") in explain(policy)[1][1]


@pytest.mark.parametrize("kind", SCHEMES)
def test_the_examples_state_all_that_a_rule_of_a_kind_may_say(kind: str) -> None:
    if SCHEMES[kind].carries is None:
        return
    required, optional = SCHEMES[kind].rule_keys
    assert {*required, *optional} - RULES[kind].keys() - ALWAYS_SO == set()


def test_the_examples_state_all_that_is_within_a_member() -> None:
    assert {*nvidia.GPU_LIST_KEYS, *nvidia.OPTIONAL_KEYS} <= GPU.keys()
    assert {*SNP} == {*snp.KEYS[0], *snp.KEYS[1]} - ALWAYS_SO
    assert {*TDX} == {*tdx.KEYS[0], *tdx.KEYS[1]}
    assert {*NITRO} == {*nitro.KEYS[0], *nitro.KEYS[1]} - ALWAYS_SO
    assert {*QUOTE} == {*tpm_quote.KEYS[0], *tpm_quote.KEYS[1]}
    assert {*AZURE} == {*azure.REQUIRED, *azure.OPTIONAL}


@pytest.mark.parametrize(
    ("kind", "simulated", "level"),
    [
        ("amd-sev-snp-report", True, "simulated"),
        ("tpm2-quote", True, "simulated"),
        ("tpm2-quote", False, "vtpm"),
        ("tpm2", None, "simulated"),
        ("software", None, "software"),
        ("aws-nitro-document", None, "hardware"),
        ("intel-tdx-quote", None, "simulated"),  # its GPUs' roots are the policy's own
    ],
)
def test_the_trust_said_is_what_a_verdict_will_have(
    kind: str, simulated: bool | None, level: str
) -> None:
    obj = document(kind)
    if simulated is not None:
        obj["accept"][0]["simulated"] = simulated
    policy = demands(obj)
    assert policy is not None
    assert ("kind", f"{kind}, trust {level}") in explain(policy)[1][1]


@pytest.mark.parametrize(
    ("one", "two"),
    [(["a, b"], ["a", "b"]), (["none"], None), (['"a"'], ["a"]), (["a "], ["a"])],
)
def test_words_of_a_policy_are_told_from_ours(one: list[str], two: list[str] | None) -> None:
    obj = document("amd-sev-snp-report")
    texts = []
    for listed in (one, two):
        obj["accept"][0] |= {"csp_in": listed} if listed else {"signer": ["vcek"]}
        if not listed:
            del obj["accept"][0]["csp_in"]
        policy = demands(obj)
        assert policy is not None
        texts.append(explain(policy))
    assert texts[0] != texts[1]


@pytest.mark.parametrize("kind", RULES)
def test_the_command_prints_every_digest_whole(kind: str, run: Any, tmp_path: Any) -> None:
    obj = document(kind)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(obj))
    code, out, _ = run("policy", "explain", path)
    assert code == 0
    for _, lines in explain(parse_policy(path.read_bytes())):
        for _, text in lines:
            for word in text.split():
                assert word in out
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in out.splitlines())

"""Azure and vTPM evidence that real machines made, and genuine parts that do not belong together.

The samples come from $ANCHORHOLD_VECTORS (index.json).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from attestation.anchors import NONE, Anchors
from attestation.examined import Examined, Expected, Question
from attestation.formats.hcl_report import parse_hcl_report
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import azure_snp, azure_tdx, tpm_quote

SCHEMES = {module.SCHEME.kind: module.SCHEME for module in (azure_snp, azure_tdx, tpm_quote)}
MILAN, MILAN2, OTHER = "azure-snp-milan-v1", "azure-snp-milan-v2", "azure-snp-quote-of-other-vm"
TDX, TDX_COLLATERAL = "azure-tdx-v1", "tdx-v4-azure-sept-ve-off"
GCE, COCO = "gce-cos-85-nonce9009", "tpm2-coco-rsa"
SNP_RULE = {
    "products": ["Milan"],
    "min_tcb": {"Milan": {}},
    "image": "any",
    "smt": True,
    "migrate_ma": True,
    "revocation": "as_supplied",
    "pcrs": {},
}
TDX_RULE = {"image": "any", "pcrs": {}}
TPM_RULE = {"pcrs": {}, "aks": "as_supplied", "revocation": "as_supplied"}
RULES = {"azure-vtpm-snp": SNP_RULE, "azure-vtpm-tdx": TDX_RULE, "tpm2-quote": TPM_RULE}


class Sample:
    """One vector: its files by role, and expectations."""

    def __init__(self, vectors: dict[str, Any], name: str) -> None:
        self.vector = vectors[name]
        self.scheme = SCHEMES[self.vector["kind"]]
        root = vectors["root"]
        self.files = {r: (root / path).read_bytes() for r, path in self.vector["files"].items()}
        pins = {bytes.fromhex(entry["sha256_der"]) for entry in _roots(root)}
        self.anchors = self.scheme.anchors if self.scheme.anchors.pins else Anchors(frozenset(pins))

    def examine(self, files: dict[str, bytes] | None = None, **changes: Any) -> Examined:
        held = self.files if files is None else files
        roles = {*self.scheme.evidence[0], *self.scheme.evidence[1]}
        nonce = self.vector["inputs"].get("expected_nonce_hex")
        honest: dict[str, Any] = {
            "evidence": {role: data for role, data in held.items() if role in roles},
            "collateral": {r: data for r, data in held.items() if r in self.scheme.collateral},
            "anchors": self.anchors,
            "now": int(datetime.fromisoformat(self.vector["verify_at"]).timestamp()),
            "expected": Expected(nonce=None if nonce is None else bytes.fromhex(nonce)),
        }
        return self.scheme.examine(Question(**{**honest, **changes}))

    def judge(self, facts: Any, **demands: Any) -> set[str]:
        ledger = Ledger()
        required, optional = self.scheme.rule_keys
        obj = {**RULES[self.scheme.kind], **demands}
        rule = self.scheme.rule(Members(obj, "rule", required=required, optional=optional))
        self.scheme.judge(ledger, facts, rule, 0)
        return {reason.code for reason in ledger.reasons}


def _roots(folder: Any) -> Any:
    return json.loads((folder / "index.json").read_bytes())["roots"].values()


def _names(vectors: dict[str, Any]) -> list[str]:
    found = [n for n, v in vectors.items() if isinstance(v, dict) and v.get("kind") in SCHEMES]
    assert len(found) >= 8
    return found


def _codes(examined: Examined) -> list[str]:
    return [reason.code for reason in examined.reasons]


def test_every_sample_gives_the_expected_verdict_reason_and_claims(vectors: dict[str, Any]) -> None:
    for name in _names(vectors):
        sample = Sample(vectors, name)
        expected = sample.vector["expected"]
        examined = sample.examine()
        assert examined.authentic is expected["authentic"], (name, _codes(examined))
        state = sample.judge(examined.facts)
        accepted = not examined.reasons and not state
        assert accepted is (expected["strict"] == "accept"), (name, state)
        if not accepted:
            assert state.union(_codes(examined)).intersection(expected["reasons"]), name
        found = json.loads(json.dumps(dict(examined.claims)))
        assert _missing(expected["claims"], found) == [], name


def _missing(expected: Any, found: Any, path: str = "") -> list[str]:
    if not isinstance(expected, dict) or not isinstance(found, dict):
        return [] if expected == found else [path]
    return [
        wrong
        for key, value in expected.items()
        for wrong in _missing(value, found.get(key), f"{path}.{key}")
    ]


def test_the_quote_of_another_vm_is_the_only_thing_wrong(vectors: dict[str, Any]) -> None:
    examined = Sample(vectors, OTHER).examine()
    assert _codes(examined) == ["signature_invalid"]
    assert [check.step for check in examined.checks if not check.ok] == ["azure 4 quote signature"]


@pytest.mark.parametrize(
    ("role", "codes"),
    [
        ("hcl_report", {"signature_invalid", "chip_id_mismatch"}),
        ("quote_msg", {"signature_invalid"}),
        ("quote_sig", {"signature_invalid"}),
        ("pcrs", {"pcr_digest_mismatch"}),
        ("vcek", {"signature_invalid", "chip_id_mismatch"}),
    ],
)
def test_one_part_of_another_genuine_vm_is_refused(
    vectors: dict[str, Any], role: str, codes: set[str]
) -> None:
    sample, other = Sample(vectors, MILAN), Sample(vectors, MILAN2)
    found = set(_codes(sample.examine({**sample.files, role: other.files[role]})))
    assert found
    assert found & codes


def test_a_td_quote_without_collateral_is_intels_and_never_accepted(
    vectors: dict[str, Any],
) -> None:
    sample = Sample(vectors, TDX)
    examined = sample.examine()
    assert examined.authentic is True
    state = sample.judge(examined.facts, td={"sept_ve_disable": False})
    assert state == {"collateral_missing", "tcb_not_proved"}


def test_with_its_platforms_collateral_the_td_quote_is_out_of_date(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, TDX)
    donor = vectors[TDX_COLLATERAL]
    collateral = {
        role: (vectors["root"] / path).read_bytes()
        for role, path in donor["files"].items()
        if role in sample.scheme.collateral
    }
    now = int(datetime.fromisoformat(donor["verify_at"]).timestamp())
    examined = sample.examine({**sample.files, **collateral}, now=now)
    assert _codes(examined) == []
    assert {"sept_ve_disable_off", "tcb_out_of_date"} <= sample.judge(examined.facts)


def test_the_chain_of_a_genuine_td_quote_counts_only_if_pinned(vectors: dict[str, Any]) -> None:
    assert "untrusted_root" in _codes(Sample(vectors, TDX).examine(anchors=NONE))


def test_a_genuine_certificate_counts_only_under_a_pinned_root(vectors: dict[str, Any]) -> None:
    assert _codes(Sample(vectors, GCE).examine(anchors=NONE)) == ["untrusted_root"]


def test_a_genuine_quote_by_a_key_nobody_knows_is_refused(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, COCO)
    files = {role: data for role, data in sample.files.items() if role != "ak_spki"}
    assert _codes(sample.examine(files)) == ["collateral_missing"]
    assert sample.judge(sample.examine().facts, aks=["00" * 32]) == {"ak_not_accepted"}


@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384"])
def test_each_quote_of_a_genuine_machine_counts(vectors: dict[str, Any], bank: str) -> None:
    sample = Sample(vectors, GCE)
    files = {role: data for role, data in sample.files.items() if role != "attestation_pb"}
    raw = bytearray(files[f"quote_{bank}"])
    raw[50] ^= 1  # in extraData or the clock: signed, whatever it is
    changed = {**files, f"quote_{bank}": bytes(raw), "pcrs": _pcrs(sample)}
    assert "signature_invalid" in _codes(sample.examine(changed))
    assert _codes(sample.examine({**files, "pcrs": _pcrs(sample)})) == []


def _pcrs(sample: Sample) -> bytes:
    quotes = sample.vector["expected"]["claims"]["quotes"]
    return json.dumps({bank: entry["pcrs"] for bank, entry in quotes.items()}).encode()


def test_the_message_alone_gives_the_same_verdict_as_its_parts(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, GCE)
    files = {r: sample.files[r] for r in ("attestation_pb", "root", "intermediate")}
    examined = sample.examine(files)
    assert _codes(examined) == []
    assert examined.claims == sample.examine().claims


def test_the_log_of_another_boot_of_a_genuine_machine_is_refused(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, GCE)
    path = vectors["eventlog-cos-101-amd-sev"]["files"]["event_log"]
    files = {role: data for role, data in sample.files.items() if role != "attestation_pb"}
    files |= {"event_log": (vectors["root"] / path).read_bytes(), "pcrs": _pcrs(sample)}
    assert _codes(sample.examine(files)) == ["event_log_mismatch"]


def test_any_flipped_bit_of_genuine_variable_data_is_refused(vectors: dict[str, Any]) -> None:
    for name in (MILAN, TDX):
        sample = Sample(vectors, name)
        raw = sample.files["hcl_report"]
        length = len(parse_hcl_report(raw).variable)
        for at in range(1236, 1236 + length, 53):
            flipped = bytearray(raw)
            flipped[at] ^= 1
            assert _codes(sample.examine({**sample.files, "hcl_report": bytes(flipped)})), at


def test_the_milan_machines_are_refused_unless_milan_is_named(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, MILAN)
    genoa = {"products": ["Genoa"], "min_tcb": {"Genoa": {}}}
    assert sample.judge(sample.examine().facts, **genoa) >= {"product_not_accepted"}

"""Which general code of an index is reported beside one of ours, and where it is not.

A code with several causes is a case of a general one only where what refused it says so.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from simulators.amd import LEVELS, Amd
from simulators.intel import Intel
from simulators.vendor_samples import QUOTE, changed, files_of, needs_samples
from simulators.vtpm import Vtpm, VtpmMaker

from attestation.conformance.codes import CASES, generalised
from attestation.reasons import CODES
from attestation.result import Reason
from attestation.schemes import snp, tpm_quote
from attestation.verify.crl import check_crl
from attestation.verify.intel_collateral import check_list_issuers
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attestation.examined import Examined

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "spec" / "evidence.md"


def pairs(found: Examined) -> list[tuple[str, str]]:
    """What was reported, and for which general code it stands."""
    return [(reason.code, reason.case_of) for reason in found.reasons]


def said() -> Iterator[tuple[str, str]]:
    """The general code and the reported one of each refusal in the source that names both."""
    for path in (ROOT / "attestation").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            for word in call.keywords:
                if word.arg == "case_of" and isinstance(word.value, ast.Constant):
                    (code,) = _codes_in(call) - {word.value.value}
                    yield str(word.value.value), code


def _codes_in(call: ast.Call) -> set[str]:
    texts = {node.value for node in ast.walk(call) if isinstance(node, ast.Constant)}
    return {text for text in texts if isinstance(text, str) and text in CODES}


# ---- the table


def test_the_codes_are_ours_and_the_specification_lists_them() -> None:
    text = SPEC.read_text(encoding="utf-8")
    table = text[text.index("### 9.4 ") :]
    where = set(said())
    assert {general for general, _ in where} <= set(CASES)
    for general, always in CASES.items():
        cases = {general, *always, *(code for named, code in where if named == general)}
        row = next(line for line in table.splitlines() if line.startswith(f"| `{general}` |"))
        assert cases == set(row.replace("|", " ").replace(",", " ").split("`")[1::2])
        assert cases <= set(CODES)


@pytest.mark.parametrize(
    ("found", "general"),
    [
        (["crl_expired"], ["collateral_expired"]),
        (["attestation_key_not_bound"], ["signature_invalid"]),
        (["collateral_expired"], []),  # the general is no case of the special
        (["crl_expired", "collateral_expired"], []),  # it is there already
        (["crl_expired", "crl_not_yet_valid"], ["collateral_expired"]),
        (["collateral_missing", "crl_invalid", "product_mismatch", "chip_id_mismatch"], []),
        (["alg_none", "debug_enabled", "evidence_malformed"], []),
        ([], []),
    ],
)
def test_the_general_code_of_a_case_is_reported_beside_it(
    found: list[str], general: list[str]
) -> None:
    reasons = [Reason(code, "why", f"step {code}") for code in found]
    told = generalised(reasons)
    assert [reason.code for reason in told] == general
    if told:
        assert (told[0].detail, told[0].step) == (f"{found[0]} is a case of it", reasons[0].step)


@pytest.mark.parametrize("code", ["untrusted_root", "report_data_mismatch", "fwid_mismatch"])
def test_what_no_step_found_is_a_case_of_nothing(code: str) -> None:
    assert generalised([Reason(code, "why")]) == ()
    assert len(generalised([Reason(code, "why", "snp 2 root")])) == 1


@pytest.mark.parametrize("general", ["chain_invalid", "unknown_signing_key"])
def test_a_refusal_may_say_of_what_it_is_a_case(general: str) -> None:
    for reason in (
        Reason("collateral_missing", "found none", "tpm 2 key", general),
        Reason("crl_invalid", "why", "step", general),
    ):
        (told,) = generalised([Reason("debug_enabled", "why", "another step"), reason])
        assert (told.code, told.step) == (general, reason.step)
    there = [Reason("crl_invalid", "why", "step", general), Reason(general, "why", "step")]
    assert generalised(there) == ()


# ---- who says so


@pytest.mark.parametrize("absent", [{"endorsement_cert"}, {"ca"}, {"ca", "root"}])
def test_a_chain_that_lacks_a_part_is_no_chain(absent: set[str]) -> None:
    amd = Amd("Genoa")
    evidence, collateral = (
        {role: data for role, data in given.items() if role not in absent}
        for given in (amd.chip().evidence(), amd.collateral())
    )
    found = snp.SCHEME.examine(amd.question(evidence, collateral))
    assert pairs(found) == [("collateral_missing", "chain_invalid")]


def test_a_certificate_or_chain_of_another_product_is_not_this_reports() -> None:
    amd = Amd("Genoa")
    milan = amd.chip().evidence(cpuid=(0x19, 0x01, 1))
    found = snp.SCHEME.examine(amd.question(milan))
    assert ("product_mismatch", "chain_invalid") in pairs(found)
    other = amd.chip(extensions=Amd("Turin").extensions(LEVELS["Turin"], hwid=bytes(8)))
    found = snp.SCHEME.examine(amd.question(other.evidence()))
    assert ("product_mismatch", "chain_invalid") in pairs(found)


def test_a_report_that_no_firmware_of_the_product_makes_is_in_no_wrong_chain() -> None:
    turin = Amd("Turin")
    found = snp.SCHEME.examine(turin.question(turin.chip().evidence(version=2, cpuid=None)))
    assert ("product_mismatch", "") in pairs(found)


def test_another_chips_certificate_is_in_the_wrong_chain_and_no_chip_id_in_none() -> None:
    amd = Amd("Genoa")
    found = snp.SCHEME.examine(amd.question(amd.chip(hwid=bytes(range(64))).evidence()))
    assert pairs(found) == [("chip_id_mismatch", "chain_invalid")]
    masked = amd.chip(hwid=bytes(64)).evidence(chip_id=bytes(64))
    found = snp.SCHEME.examine(amd.question(masked))
    assert pairs(found) == [("chip_id_mismatch", "")]


def test_a_list_is_of_the_chain_only_if_its_issuer_is() -> None:
    amd = Amd("Genoa")
    for crl, general in (
        (amd.crl(issuer="ARK-Milan"), "chain_invalid"),
        (amd.crl(signer=amd.ask_key), "chain_invalid"),
        (b"\x30\x03\x02\x01\x01", ""),
    ):
        question = amd.question(amd.chip().evidence(), amd.collateral(crl=crl))
        assert pairs(snp.SCHEME.examine(question)) == [("crl_invalid", general)]


def test_every_lists_issuer_is_the_certificates_own_and_signed_it() -> None:
    maker = VtpmMaker()
    issuer, root = load_certificate(maker.issuer), load_certificate(maker.root)
    other = load_certificate(VtpmMaker("another").root)
    check_crl(maker.crl("root"), root, [issuer], maker.now)
    for crl, signer in ((maker.crl("root"), issuer), (maker.crl("root"), other)):
        with pytest.raises(AttestationError) as caught:
            check_crl(crl, signer, [issuer], maker.now)
        assert (caught.value.reasons, caught.value.case_of) == (("crl_invalid",), "chain_invalid")
    with pytest.raises(AttestationError) as caught:
        check_crl(maker.crl("root") + b"\0", root, [issuer], maker.now)
    assert (caught.value.reasons, caught.value.case_of) == (("crl_invalid",), "")


def test_an_issuer_that_may_not_sign_lists_is_not_the_lists() -> None:
    intel = Intel()
    intel.platform_ca.crl_sign = False
    unable = load_certificate(intel.platform_ca.der(intel.now))
    crl = intel.crl(intel.platform_ca, [])
    for check in (
        lambda: check_list_issuers((unable,)),
        lambda: check_crl(crl, unable, [], intel.now),
    ):
        with pytest.raises(AttestationError, match="may not sign lists") as caught:
            check()
        assert caught.value.case_of == "chain_invalid"


def test_an_attestation_key_lacks_a_root_or_whoever_vouches_for_it() -> None:
    maker = VtpmMaker()
    evidence = Vtpm(maker).evidence()
    found = tpm_quote.SCHEME.examine(maker.question(evidence, collateral={}))
    assert pairs(found) == [("collateral_missing", "chain_invalid")]
    del evidence["ak_cert"]
    found = tpm_quote.SCHEME.examine(maker.question(evidence))
    assert pairs(found) == [("collateral_missing", "unknown_signing_key")]


def test_a_list_of_nobody_in_the_chain_is_in_no_chain_of_it() -> None:
    maker = VtpmMaker()
    leaf = maker.certificate(
        "", "vTPM root", Vtpm(maker).key, maker.root_key, ca=False, eku="2.23.133.8.3"
    )
    crls = {"crl_intermediate": maker.crl("root"), "crl_root": maker.crl("root")}
    question = maker.question(
        Vtpm(maker, cert=leaf).evidence(), collateral={"root": maker.root, **crls}
    )
    assert pairs(tpm_quote.SCHEME.examine(question)) == [("crl_invalid", "chain_invalid")]


# ---- in published samples


@needs_samples
@pytest.mark.parametrize(
    ("name", "absent", "general"),
    [
        ("azure-tdx-v1", "", set()),
        ("tdx-v4-uptodate-b0c06f", "collateral", set()),
        ("snp-genoa-v3", "endorsement_cert", {"chain_invalid"}),
        ("snp-genoa-v3", "ca", {"chain_invalid"}),
        ("tpm2-coco-rsa", "ak_spki", {"unknown_signing_key"}),
        ("gce-cos-85-nonce9009", "root", {"chain_invalid"}),
    ],
)
def test_what_is_missing_says_which_general_code_it_stands_for(
    name: str, absent: str, general: set[str]
) -> None:
    found = changed(name, lambda sample: sample["files"].pop(absent, None))
    codes = {reason.code for reason in found.reasons}
    assert "collateral_missing" in codes
    assert codes & {"chain_invalid", "unknown_signing_key"} == general


@needs_samples
def test_a_sample_is_told_the_code_of_the_index_and_the_one_that_is_ours() -> None:
    def late(sample: dict[str, Any]) -> None:
        sample["verify_at"] = "2021-01-01T00:00:00Z"
        sample["expected"] = {
            "authentic": False, "strict": "reject", "reasons": ["collateral_expired"]
        }  # fmt: skip

    outcome = changed(QUOTE, late)
    assert {"collateral_not_yet_valid", "collateral_expired"} <= {
        reason.code for reason in outcome.reasons
    }
    assert outcome.ok, outcome.faults


@needs_samples
def test_the_report_data_of_azures_own_rule_is_the_relying_partys_value() -> None:
    """Stated by the sample or not: the kind always checks it."""
    quote = files_of(QUOTE)
    for rule in ("keep", "drop"):

        def another(sample: dict[str, Any], rule: str = rule) -> None:
            sample["files"]["td_quote"] = quote["quote"]
            if rule == "drop":
                del sample["inputs"]["binding"]

        found = changed("azure-tdx-v1", another)
        steps = {reason.code: reason.step for reason in found.reasons}
        assert found.authentic is False
        assert steps["nonce_mismatch"] == steps["report_data_mismatch"] != ""

"""What the account says beside the verdict: which steps did not run, what others relied on."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from simulators.amd import Amd
from simulators.corim import CCA_PLATFORM, CorimPublisher, component, environment, tagged
from simulators.gpu_tee import GPUS, SnpGpuTee
from simulators.hardware_tee import SnpTee
from simulators.hcl import Paravisor, td_report
from simulators.intel import NOW, Intel
from simulators.nras import NOW as NRAS_NOW
from simulators.nras import NrasService
from simulators.tokens import Issuer, unsigned
from simulators.verdicts import accepted, rejected
from simulators.vtpm import NONCE, Vtpm, VtpmMaker

from attestation.anchors import NONE
from attestation.evidence import Evidence
from attestation.examined import Examined, Question
from attestation.formats.container import encode_container
from attestation.formats.ear import TRUSTEE_PROFILE
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import (
    azure_snp,
    azure_tdx,
    cc_log,
    corim,
    ear,
    nras,
    sgx,
    snp,
    tdx,
    tpm_quote,
)
from wire.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attestation.result import Check
    from attestation.scheme import Scheme

JUNK = b"no evidence"
ISSUER = Issuer("ES384")


def not_run(checks: Iterable[Check]) -> list[str]:
    return [check.step for check in checks if check.ok is None]


def details(scheme: Scheme, found: Examined, now: int, **demands: Any) -> dict[str, str]:
    """Step to detail of an examination and its judgement, all of which passed."""
    required, optional = scheme.rule_keys
    members = Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    ledger = Ledger()
    scheme.judge(ledger, found.facts, scheme.rule(members), now)
    assert (found.reasons, ledger.reasons) == ((), [])
    return {check.step: check.detail for check in (*found.checks, *ledger.checks)}


# ---- steps that did not run


def ask(evidence: dict[str, bytes], **collateral: bytes) -> Question:
    return Question(evidence, NONE, NOW, collateral)


def paravisor(kind: int) -> dict[str, bytes]:
    return Paravisor(lambda report_data: td_report(report_data, bytes(48))).evidence(
        NONCE, kind=kind
    )


def compact(document: dict[str, Any], key: Issuer = ISSUER) -> dict[str, bytes]:
    return {"token": key.sign(document).encode()}


EAR: dict[str, Any] = {
    "eat_profile": TRUSTEE_PROFILE,
    "iat": NOW,
    "exp": NOW + 300,
    "ear.verifier-id": {"developer": "somebody", "build": "1"},
    "submods": {"cpu0": {"ear.status": "affirming"}},
}


@pytest.mark.parametrize(
    ("scheme", "question", "steps"),
    [
        (azure_snp.SCHEME, ask({"hcl_report": JUNK}), ["azure 3-6"]),
        (azure_tdx.SCHEME, ask({"hcl_report": JUNK, "td_quote": JUNK}), ["azure 2-6"]),
        (azure_tdx.SCHEME, ask({**paravisor(4), "td_quote": JUNK}), ["tdx 2-13", "azure 2-6"]),
        (cc_log.SCHEME, ask({"quote": JUNK, "event_log": JUNK}), ["cc 2-3"]),
        (corim.SCHEME, ask({"corim": JUNK}), ["corim 2-5"]),
        (
            corim.SCHEME,
            ask({"corim": CorimPublisher().signed()}),
            ["corim 2 signer", "corim 3 signature"],
        ),
        (
            corim.SCHEME,
            ask({"corim": CorimPublisher().signed()}, public_key=JUNK),
            ["corim 3 signature"],
        ),
        (ear.SCHEME, ask({"token": JUNK}), ["ear 2-9"]),
        (ear.SCHEME, ask({"token": unsigned(EAR).encode()}), ["ear 4-6 key and signature"]),
        (ear.SCHEME, ask(compact(EAR), jwks=JUNK), ["ear 5-6 key and signature"]),
        (nras.SCHEME, ask({"eat": JUNK}), ["nras 2-11"]),
        (nras.SCHEME, ask({"eat": NrasService().bundle()}), ["nras 4-5 key and signature"]),
        (snp.SCHEME, ask({"report": JUNK}), ["snp 2-11"]),
        (tdx.SCHEME, ask({"quote": JUNK}), ["tdx 2-13"]),
        (sgx.SCHEME, ask({"quote": JUNK}), ["sgx 2-13"]),
        (tpm_quote.SCHEME, ask(Vtpm(VtpmMaker()).evidence()), ["tpm 3"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else getattr(value, "kind", "of"),
)
def test_the_account_names_each_step_that_did_not_run(
    scheme: Scheme, question: Question, steps: list[str]
) -> None:
    found = scheme.examine(question)
    assert found.authentic is False
    assert not_run(found.checks) == steps


def test_tokens_that_nobody_signed_are_told_before_their_keys_are_asked_for() -> None:
    service = NrasService()
    service.header["alg"] = "ES256"
    found = nras.examine(Question({"eat": service.bundle()}, NONE, NRAS_NOW))
    assert not_run(found.checks) == ["nras 3-5 key and signature"]


def test_certificates_that_do_not_parse_are_told() -> None:
    amd = Amd("Genoa")
    found = snp.examine(amd.question(amd.chip().evidence(), {"ca": JUNK}))
    assert not_run(found.checks)[:2] == ["snp 3 certificate", "snp 4 chain"]


def test_steps_of_a_quote_that_its_missing_collateral_leaves_out_are_told() -> None:
    intel = Intel()
    found = tdx.examine(Question({"quote": intel.quote()}, intel.anchors(), NOW))
    assert not_run(found.checks) == [
        "tdx 3 collateral", "tdx 6 dcap-qvl", "tdx 10-11", "tdx 12 tcb",
    ]  # fmt: skip


def test_hardware_evidence_without_facts_is_told() -> None:
    tee = SnpTee()
    tee.roles["report"] = JUNK
    assert "17-19" in not_run(rejected(tee.appraise()).checks)


def test_gpu_evidence_that_does_not_parse_is_told() -> None:
    tee = SnpGpuTee()
    binding = tee.binding()
    shown = Evidence(GPUS, encode_container({"evidence_list": JUNK}, tee.parts))
    verdict = rejected(tee.appraise(binding_raw=binding, evidence=[tee.evidence(binding), shown]))
    assert "23 GPUs" in not_run(verdict.checks)


# ---- what a step relied on


def test_the_account_of_a_manifest_says_whose_key_and_what_was_checked() -> None:
    publisher = CorimPublisher(members={3: tagged(32, CCA_PLATFORM)})
    publisher.reference(environment(), component())
    key = {"public_key": publisher.public_key}
    said = details(
        corim.SCHEME,
        corim.examine(Question({"corim": publisher.signed()}, NONE, NOW, key)),
        NOW,
        validity="ignored",
    )
    assert all(said.values())
    assert (said["corim 6 signed"], said["corim 7 time"]) == ("signed", "ignored")
    assert said["corim 9 digests"] == "1 digests"
    assert said["corim 10 profile rules"] == "keeps 1 of 1 profiles"
    plain = CorimPublisher()
    key = {"public_key": plain.public_key}
    found = corim.examine(Question({"corim": plain.signed()}, NONE, NOW, key))
    said = details(corim.SCHEME, found, NOW)
    assert said["corim 10 profile rules"] == "declares no profile with rules"
    unsigned_one = corim.examine(Question({"corim": plain.unsigned()}, NONE, NOW))
    said = details(corim.SCHEME, unsigned_one, NOW, signed="any")
    assert said["corim 6 signed"] == "unsigned, as accepted"


def test_the_account_of_a_result_names_the_key_and_the_status() -> None:
    found = ear.examine(ask(compact(EAR | {"dbgstat": "disabled"}), jwks=ISSUER.jwks()))
    said = details(ear.SCHEME, found, NOW, keys=[f"sha256:{ISSUER.fingerprint()}"])
    assert all(said.values())
    assert said["ear 10 key"] == f"sha256:{ISSUER.fingerprint()}"
    assert (said["ear 16 status"], said["ear 18 debug"]) == ("affirming", "disabled")
    found = ear.examine(ask(compact(EAR), jwks=ISSUER.jwks()))
    assert details(ear.SCHEME, found, NOW, keys="as_supplied")["ear 18 debug"] == "not stated"


def test_the_account_of_a_verdict_names_version_and_result() -> None:
    service = NrasService()
    found = nras.examine(Question({"eat": service.bundle()}, NONE, NRAS_NOW,
                                  {"jwks": service.jwks()}))  # fmt: skip
    said = details(nras.SCHEME, found, NRAS_NOW)
    assert all(said.values())
    assert (said["nras 12 claims version"], said["nras 13 overall result"]) == ("3.0", "true")


@pytest.mark.parametrize("listed", [True, False])
def test_the_account_of_a_quote_says_how_its_key_is_trusted(listed: bool) -> None:
    maker = VtpmMaker()
    tpm = Vtpm(maker)
    question = maker.question(tpm.evidence())
    if listed:
        question = maker.question(tpm.evidence(ak_cert=None), collateral={"ak_spki": tpm.spki})
    demands = {"pcrs": {}, "revocation": "as_supplied", "aks": [sha256(tpm.spki).hexdigest()]}
    said = details(tpm_quote.SCHEME, tpm_quote.examine(question), NOW, **demands)
    assert all(said.values())
    assert said["tpm 2 key"] == ("trusted beforehand" if listed else "certified")
    wanted = "a key trusted beforehand is revoked by no longer listing it"
    assert said["tpm 11 revocation"] == (wanted if listed else "not demanded")


def test_the_account_of_gpus_names_their_architecture() -> None:
    verdict = accepted(SnpGpuTee().appraise())
    said = {check.step: check.detail for check in verdict.checks}
    assert all(said.values())
    assert said["composite 4 one architecture"] == "HOPPER"

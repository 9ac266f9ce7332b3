"""Kinds at the edges of their steps: one second, one byte, one certificate more or less."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.amd import Amd
from simulators.corim import CorimPublisher, element, environment
from simulators.event_log import EventLog
from simulators.gpu_tee import SnpGpuTee
from simulators.intel import NOW, Intel
from simulators.nitro import NitroEnclave, NitroVendor
from simulators.nras import NOW as NRAS_NOW
from simulators.nras import NrasService
from simulators.nvidia import Nvidia
from simulators.tee import SoftwareTee
from simulators.tokens import Issuer
from simulators.tpm import TpmMaker
from simulators.verdicts import accepted, rejected
from simulators.vtpm import Vtpm, VtpmMaker, ec_key

from attestation.anchors import NONE, Anchors
from attestation.binding import parse_binding
from attestation.evidence import Evidence
from attestation.examined import FOREVER, Examined, Expected, Question
from attestation.formats.ear import TRUSTEE_PROFILE
from attestation.formats.tcg_event_log import parse_event_log
from attestation.hardware import prove_gpus
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.proof import Proof
from attestation.replay import replay
from attestation.rules.intel import PlatformRule, judge_platform
from attestation.schemes import corim, ear, nitro, nras, nvidia_gpu, sgx, snp, tdx, tpm_quote
from attestation.verify.tpm_key import load_spki
from wire.errors import AttestationError, PolicyError

if TYPE_CHECKING:
    from attestation.scheme import Scheme


def rule(scheme: Scheme, demands: dict[str, Any]) -> Any:
    required, optional = scheme.rule_keys
    return scheme.rule(
        Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    )


def judged(scheme: Scheme, found: Examined, now: int = NOW, **demands: Any) -> list[str]:
    ledger = Ledger()
    scheme.judge(ledger, found.facts, rule(scheme, demands), now)
    return codes(ledger)


def codes(found: Examined | Ledger) -> list[str]:
    return [reason.code for reason in found.reasons]


# ---- Intel


def test_an_enclave_may_have_a_zero_byte_in_its_measurement_and_not_only_zeros() -> None:
    intel = Intel("sgx")
    intel.body["mrenclave"] = bytes(1) + bytes([7]) * 31
    assert judged(sgx.SCHEME, sgx.examine(intel.question()), enclave="any") == []
    intel.body["mrenclave"] = bytes(32)
    found = judged(sgx.SCHEME, sgx.examine(intel.question()), enclave="any")
    assert found == ["measurement_zero"]


def test_the_platform_of_an_enclave_is_judged() -> None:
    found = sgx.examine(Intel("sgx").question())
    denied = {"fmspc_deny": [Intel("sgx").fmspc.hex()]}
    assert judged(sgx.SCHEME, found, enclave="any", platform=denied) == ["platform_denied"]


def test_an_evaluation_number_may_be_exactly_the_least() -> None:
    found = tdx.examine(Intel().question())
    number = found.facts.tcb.eval_number
    assert judged(tdx.SCHEME, found, image="any", tcb={"min_eval_number": number}) == []
    codes = judged(tdx.SCHEME, found, image="any", tcb={"min_eval_number": number + 1})
    assert codes == ["tcb_eval_number_too_low"]


def test_a_platform_that_no_certificate_names_is_not_accepted() -> None:
    ledger = Ledger()
    judge_platform(ledger, "tdx", None, PlatformRule(None, frozenset(), None, ()))
    assert codes(ledger) == ["platform_not_accepted"]


# ---- AMD


@pytest.fixture(scope="module")
def amd() -> Amd:
    return Amd("Genoa")


def identified(amd: Amd, chip_id: bytes) -> list[str]:
    evidence = amd.chip().evidence(chip_id=chip_id)
    return [text for text in snp.examine(amd.question(evidence)).identities if "chip_id" in text]


def test_a_chip_is_named_by_its_eight_bytes_too_if_no_other_is_set(amd: Amd) -> None:
    eight = bytes(range(1, 9))
    padded = eight.ljust(64, b"\0")
    assert identified(amd, padded) == [f"chip_id:{padded.hex()}", f"chip_id:{eight.hex()}"]
    for at in (8, 9, 63):
        longer = bytearray(padded)
        longer[at] = 1
        assert identified(amd, bytes(longer)) == [f"chip_id:{longer.hex()}"]
    assert identified(amd, bytes(64)) == []


def test_each_identity_that_a_rule_lists_is_compared(amd: Amd) -> None:
    digest = "ab" * 48
    least = {"min_tcb": {"Genoa": {}, "Turin": {}}, "image": "any", "revocation": "as_supplied"}

    def found(key: str, **lies: Any) -> list[str]:
        examined = snp.examine(amd.question(amd.chip().evidence(**lies)))
        return judged(snp.SCHEME, examined, **least, **{key: [digest]})

    listed = bytes.fromhex(digest)
    assert found("id_key_in") == ["id_key_not_accepted"]
    assert found("id_key_in", id_key_digest=listed) == []
    assert found("author_key_in", author_key_digest=listed, flags=1) == []
    assert found("author_key_in", author_key_digest=listed) == ["author_key_not_accepted"]
    assert found("author_key_in", flags=1) == ["author_key_not_accepted"]


# ---- Nitro


def test_a_register_of_an_enclave_may_hold_a_zero_byte() -> None:
    vendor = NitroVendor(NOW)
    enclave = NitroEnclave(vendor)
    enclave.pcrs[0] = bytes(1) + bytes([7]) * 47
    question = Question({"document": enclave.document()}, vendor.anchors, NOW)
    assert judged(nitro.SCHEME, nitro.examine(question), image="any") == []


# ---- tokens of other verifiers


ISSUER = Issuer("ES384")


def result(**claims: Any) -> Examined:
    submod = {
        "ear.status": "affirming",
        "ear.appraisal-policy-id": "p1",
        "ear.trustworthiness-vector": {"hardware": 2},
    }
    honest = {
        "eat_profile": TRUSTEE_PROFILE, "iss": "verifier", "iat": NOW, "exp": NOW + 300,
        "ear.verifier-id": {"developer": "somebody", "build": "1"}, "submods": {"cpu0": submod},
    }  # fmt: skip
    document = {name: value for name, value in {**honest, **claims}.items() if value is not None}
    evidence = {"token": ISSUER.sign(document).encode()}
    return ear.examine(Question(evidence, NONE, NOW, {"jwks": ISSUER.jwks()}))


def test_a_result_may_be_exactly_as_old_as_the_rule_allows() -> None:
    aged = {"keys": "as_supplied", "max_age_s": 100}
    assert judged(ear.SCHEME, result(iat=NOW - 100), **aged) == []
    assert judged(ear.SCHEME, result(iat=NOW - 101), **aged) == ["evidence_stale"]


def test_a_result_that_states_no_end_has_none() -> None:
    found = result(exp=None)
    assert (codes(found), found.not_after) == ([], FOREVER)


def test_a_device_has_a_name_of_up_to_128_characters() -> None:
    service = NrasService(devices=2)
    service.devices["GPU-0"]["ueid"] = "7" * 128
    service.devices["GPU-1"]["ueid"] = "7" * 129
    question = Question({"eat": service.bundle()}, NONE, NRAS_NOW, {"jwks": service.jwks()})
    found = [text for text in nras.examine(question).identities if text.startswith("ueid:")]
    assert found == [f"ueid:{'7' * 128}"]


# ---- reference values


def imported(publisher: CorimPublisher, now: int) -> list[str]:
    found = corim.examine(
        Question({"corim": publisher.signed()}, NONE, now, {"public_key": publisher.public_key})
    )
    return judged(corim.SCHEME, found, now)


def test_a_manifest_holds_in_its_first_and_its_last_second() -> None:
    publisher = CorimPublisher(not_before=NOW, not_after=NOW + 10)
    assert imported(publisher, NOW) == []
    assert imported(publisher, NOW + 10) == []
    assert imported(publisher, NOW - 1) == ["manifest_not_yet_valid"]
    assert imported(publisher, NOW + 11) == ["manifest_expired"]


def certified(*carried: str) -> tuple[bytes, dict[str, bytes]]:
    """A manifest by a certified key, with these of its certificates in it."""
    maker = TpmMaker(NOW, "publisher")
    publisher = CorimPublisher()
    made = {
        "leaf": maker.certificate(
            "leaf", "publisher issuer", publisher.key, maker.issuer_key, ca=False
        ),
        "issuer": maker.issuer,
        "root": maker.root,
    }
    publisher.headers[33] = [made[name] for name in carried]
    return publisher.signed(), made


def pinned(signed: bytes, der: bytes) -> Examined:
    return corim.examine(
        Question({"corim": signed}, Anchors(frozenset({hashlib.sha256(der).digest()})), NOW)
    )


def test_the_certificate_of_the_signing_key_is_no_root_even_if_pinned() -> None:
    signed, made = certified("leaf", "issuer")
    assert codes(pinned(signed, made["leaf"])) == ["untrusted_root"]


def test_the_certificate_next_to_the_signers_may_be_the_pinned_one() -> None:
    signed, made = certified("leaf", "issuer")
    assert codes(pinned(signed, made["issuer"])) == []


def test_a_manifest_that_nobody_vouches_for_names_no_end() -> None:
    publisher = CorimPublisher()
    unknown = corim.examine(Question({"corim": publisher.signed()}, NONE, NOW))
    assert (codes(unknown), unknown.not_after) == (["unknown_signing_key"], FOREVER)
    other = {"public_key": b"no key"}
    found = corim.examine(Question({"corim": publisher.signed()}, NONE, NOW, other))
    assert (codes(found), found.not_after) == (["key_set_malformed"], FOREVER)


def test_a_measurement_without_any_value_does_not_parse() -> None:
    publisher = CorimPublisher().reference(environment(), element("cca.rotpk.CM.2.3", {}))
    found = corim.examine(Question({"corim": publisher.signed()}, NONE, NOW))
    assert codes(found) == ["evidence_malformed"]


# ---- TPMs


def test_a_key_with_a_certificate_and_a_root_counts_as_certified_though_it_is_listed() -> None:
    maker = VtpmMaker()
    tpm = Vtpm(maker)
    listed = hashlib.sha256(tpm.spki).digest()
    honest = maker.question(tpm.evidence())
    question = replace(honest, collateral={**honest.collateral, "aks": listed})
    found = tpm_quote.examine(question)
    assert (codes(found), found.facts.key.certified) == ([], True)
    alone = {role: raw for role, raw in question.collateral.items() if role != "root"}
    found = tpm_quote.examine(replace(question, collateral=alone))
    assert (codes(found), found.facts.key.certified) == ([], False)


def test_a_key_that_the_relying_party_brings_was_checked_against_no_list() -> None:
    found = load_spki(Vtpm(VtpmMaker(), ec_key("brought")).spki)
    assert (found.certified, found.revocation_checked) == (False, False)


# ---- event logs


@pytest.mark.parametrize("bank", ["sha512", "sm3_256"])
def test_a_bank_that_a_log_lacks_or_nobody_replays_is_the_callers_mistake(bank: str) -> None:
    log = EventLog(("sha256",))
    log.measure(4, b"loader")
    parsed = parse_event_log(log.encode())
    assert set(replay(parsed, "sha256")) == {4}
    with pytest.raises(ValueError, match="the log has no bank"):
        replay(replace(parsed, banks=("sha256", "sm3_256")), bank)


# ---- the appraisal


def test_four_items_of_evidence_are_looked_at_and_five_are_not() -> None:
    tee = SoftwareTee()
    binding = tee.binding()
    own = tee.evidence(binding)
    others = [Evidence(f"unknown-{n}", b"") for n in range(4)]
    accepted(tee.appraise(binding_raw=binding, evidence=[own, *others[:3]]))
    rejected(tee.appraise(binding_raw=binding, evidence=[own, *others]))


def test_a_binding_of_another_role_is_judged_to_its_end() -> None:
    tee = SoftwareTee()
    tee.facts |= {"role": "gateway", "aud": "somebody else"}
    verdict = rejected(tee.appraise())
    assert {reason.step for reason in verdict.reasons} >= {"1 binding", "2 audience"}


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_gpus_make_a_simulated_worker(simulated: bool) -> None:
    tee = SnpGpuTee()
    binding = tee.binding()
    demands: Any = tee.policy().accept[0]
    demands = replace(demands, gpu_anchors=replace(demands.gpu_anchors, simulated=simulated))
    items = {item.kind: item for item in tee.presented(binding)}
    proof = prove_gpus(
        Ledger(),
        items,
        demands,
        Proof(tee.kind, tee.measurement(), FOREVER, "hardware"),
        parse_binding(binding),
        tee.collateral(),
        tee.now,
        frozenset(),
    )
    assert proof.trust == ("simulated" if simulated else "hardware")


# ---- NVIDIA


GPU = {
    "architectures": ["HOPPER"], "models": "any", "driver_in": "any", "vbios_in": "any",
    "modes": "any", "rim": "not_checked", "ocsp": "not_checked",
}  # fmt: skip


def shown(vendor: Nvidia) -> Any:
    """What a judgement takes of one GPU of this vendor's."""
    device = vendor.gpu()
    nonce = bytes(range(32))
    found = nvidia_gpu.SCHEME.examine(
        Question(
            {"evidence": device.report(nonce), "cert_chain": device.chain()},
            vendor.anchors,
            vendor.now,
            expected=Expected(nonce=nonce),
        )
    )
    assert codes(found) == []
    return found.facts


def met(fleet: Any, now: int) -> list[str]:
    ledger = Ledger()
    nvidia_gpu.SCHEME.judge(ledger, fleet, rule(nvidia_gpu.SCHEME, GPU), now)
    return codes(ledger)


def test_a_device_of_an_unknown_product_meets_no_demand_and_breaks_no_step() -> None:
    vendor = Nvidia()
    fleet = shown(vendor)
    unknown = tuple(replace(one, family=None) for one in fleet.devices)
    assert met(replace(fleet, devices=unknown), vendor.now) == ["product_not_accepted"]


def test_over_no_device_at_all_no_demand_holds() -> None:
    vendor = Nvidia()
    fleet = shown(vendor)
    assert met(fleet, vendor.now) == []
    assert met(replace(fleet, devices=()), vendor.now) == ["gpu_count"]


# ---- the ledger


def test_of_several_codes_the_first_is_the_reason() -> None:
    def refuse() -> str:
        raise AttestationError("refused", reasons=("first", "second"))

    ledger = Ledger()
    assert ledger.run("step", refuse) is False
    assert codes(ledger) == ["first"]

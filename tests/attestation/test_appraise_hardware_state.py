"""The same workers: what they run on, what vouches for it, and what a policy may say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.amd import Amd
from simulators.hardware_tee import (
    KINDS,
    AzureSnpTee,
    AzureTdxTee,
    HardwareTee,
    NitroTee,
    SnpTee,
    TdxTee,
    pem,
)
from simulators.intel_parts import DAY, stamp
from simulators.nitro import NitroVendor
from simulators.snp_report import table
from simulators.tee import NOW
from simulators.verdicts import accepted, refused_for, rejected

from attestation.evidence import Evidence
from attestation.formats.container import encode_container
from attestation.result import AppraisedEvidence, Refused
from attestation.schemes import SCHEMES
from wire.errors import PolicyError
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = sha256_tag(b"something else")
every_kind = pytest.mark.parametrize("make", KINDS)


def foreign(verdict: AppraisedEvidence | Refused, *codes: str) -> Refused:
    """The same for evidence that is not genuine; what it was made for is then not asked."""
    assert rejected(verdict).codes[0] == codes[0]
    return refused_for(verdict, *codes)


# ---------------------------------------------------------------- state and collateral


def _debug(tee: HardwareTee) -> None:
    if isinstance(tee, SnpTee):
        tee.lies["policy"] = 1 << 17 | 1 << 19
    elif isinstance(tee, TdxTee):
        tee.body["td_attributes"] = (1 << 28 | 1).to_bytes(8, "little")
    elif isinstance(tee, NitroTee):
        tee.enclave.pcrs |= {number: bytes(48) for number in range(3)}


@every_kind
def test_debug_is_refused_and_the_claims_say_so(make: type[HardwareTee]) -> None:
    tee = make()
    _debug(tee)
    verdict = rejected(tee.appraise())
    assert "debug_enabled" in verdict.codes
    assert set(verdict.codes) <= {"debug_enabled", "image_not_accepted"}
    claims = verdict.claims[tee.kind]
    assert claims.get("policy_decoded", claims)["debug"] is True


@every_kind
def test_debug_cannot_be_allowed(make: type[HardwareTee]) -> None:
    tee = make()
    tee.rule |= {"td": {"debug": True}} if issubclass(make, TdxTee) else {"debug": True}
    with pytest.raises(PolicyError, match="debug"):
        tee.policy()


@every_kind
def test_claims_are_told_whatever_the_evidence_was_refused(make: type[HardwareTee]) -> None:
    honest = accepted(make().appraise()).claims[make.kind]
    for change in (_unlisted, _other_image, _not_allowed, _untrusted):
        tee = make()
        change(tee)
        verdict = tee.appraise()
        assert isinstance(verdict, Refused)
        assert set(verdict.claims) == {tee.kind}
        found = verdict.claims[tee.kind]
        assert found
        # What is concluded from collateral is not claimed where none of it counts.
        assert set(found) == set(honest) or (change is _untrusted and set(found) < set(honest))


def _unlisted(tee: HardwareTee) -> None:
    tee.rule["measurements"] = [OTHER]


def _other_image(tee: HardwareTee) -> None:
    tee.facts["image"] = OTHER


def _not_allowed(tee: HardwareTee) -> None:
    del tee.demands["allow_simulated"]


def _untrusted(tee: HardwareTee) -> None:
    del tee.rule["roots"]


@pytest.mark.parametrize("make", [SnpTee, TdxTee, AzureSnpTee, AzureTdxTee])
def test_without_collateral_nothing_is_accepted(make: type[HardwareTee]) -> None:
    verdict = make().appraise(collateral={})
    assert isinstance(verdict, Refused)
    assert "collateral_missing" in verdict.codes or "untrusted_root" in verdict.codes


def test_a_document_of_nitro_needs_none() -> None:
    accepted(NitroTee().appraise(collateral={}))


@pytest.mark.parametrize("make", [SnpTee, TdxTee, AzureSnpTee, AzureTdxTee])
def test_collateral_for_another_kind_is_not_looked_at(make: type[HardwareTee]) -> None:
    tee = make()
    other = "intel-sgx-quote" if make is TdxTee else "aws-nitro-document"
    rejected(tee.appraise(collateral={other: tee.collateral()[tee.kind]}))


_NO_CHAIN = {"collateral_missing", "revocation_not_checked"}


@pytest.mark.parametrize(
    ("make", "role", "codes"),
    [
        (SnpTee, "endorsement_cert", _NO_CHAIN),
        (SnpTee, "crl", {"revocation_not_checked"}),
        (AzureSnpTee, "vcek", _NO_CHAIN),
        (AzureSnpTee, "crl", {"revocation_not_checked"}),
        (TdxTee, "collateral", {"collateral_missing", "tcb_not_proved"}),
    ],
)
def test_each_missing_piece_is_named(make: type[HardwareTee], role: str, codes: set[str]) -> None:
    tee = make()
    tee.statements[role] = None
    refused_for(tee.appraise(), *codes)


@pytest.mark.parametrize("way", ["endorsement_cert", "auxblob"])
def test_the_worker_may_bring_its_own_certificates(way: str) -> None:
    """They are hints: where a certificate comes from makes it neither better nor worse."""
    tee = SnpTee()
    given = {"vcek": tee.chip.cert, "ask": tee.amd.ask, "ark": tee.amd.root}
    tee.roles[way] = tee.chip.cert if way == "endorsement_cert" else table(given)
    tee.statements["endorsement_cert"] = None
    if way == "auxblob":
        tee.statements |= {"ca": None, "root": None}
    accepted(tee.appraise())
    tee.rule["roots"] = [pem(Amd("Genoa", NOW, "another").root)]
    assert "untrusted_root" in rejected(tee.appraise()).codes


@pytest.mark.parametrize("make", [SnpTee, AzureSnpTee])
def test_a_revoked_certificate_authority_is_refused(make: type[SnpTee]) -> None:
    tee = make()
    tee.revoked = [0x20002]
    foreign(tee.appraise(), "revoked", "revocation_not_checked")


@pytest.mark.parametrize("make", [SnpTee, AzureSnpTee])
def test_another_chips_certificate_is_refused(make: type[SnpTee]) -> None:
    tee = make()
    role = "vcek" if make is AzureSnpTee else "endorsement_cert"
    tee.statements[role] = make("another").chip.cert
    foreign(tee.appraise(), "chip_id_mismatch", "signature_invalid")


def test_a_revoked_platform_is_refused() -> None:
    tee = TdxTee()
    tee.intel.revoked_pck.append(tee.intel.pck.serial)
    verdict = rejected(tee.appraise())
    assert "revoked" in verdict.codes


def test_statements_about_another_platform_family_are_refused() -> None:
    tee, other = TdxTee(), TdxTee()
    other.intel.tcb_info["fmspc"] = "00806f050000"
    tee.statements["collateral"] = other.intel.collateral()
    verdict = rejected(tee.appraise())
    assert verdict.codes[0] == "collateral_fmspc_mismatch"


def test_firmware_below_the_floor_is_refused() -> None:
    tee = SnpTee()
    tee.rule["min_tcb"] = {"Genoa": {"snp": 24}, "Turin": {}}
    refused_for(tee.appraise(), "tcb_out_of_date")


def test_a_platform_that_intel_calls_out_of_date_is_refused() -> None:
    tee = TdxTee()
    tee.intel.components[0] = 3
    verdict = rejected(tee.appraise())
    assert "tcb_out_of_date" in verdict.codes


# ---------------------------------------------------------------- how long a verdict holds


@every_kind
def test_a_verdict_ends_with_the_policys_life_of_results(make: type[HardwareTee]) -> None:
    tee = make()
    tee.demands["freshness"] = {"result_ttl_s": 60}
    assert accepted(tee.appraise()).expires == NOW + 60


@every_kind
def test_a_verdict_ends_with_the_binding(make: type[HardwareTee]) -> None:
    tee = make()
    tee.facts["exp"] = NOW + 50
    assert accepted(tee.appraise()).expires == NOW + 50


def _short_leaf(tee: SnpTee) -> None:
    tee.chip = tee.amd.chip(end=40)


def _short_list(tee: SnpTee) -> None:
    tee.crl["end"] = 40


def _short_pck(tee: TdxTee) -> None:
    tee.intel.pck.end = 40


def _short_pck_list(tee: TdxTee) -> None:
    tee.intel.crl_window = (-60, 40)


def _short_tcb_info(tee: TdxTee) -> None:
    tee.intel.tcb_info["nextUpdate"] = stamp(NOW + 40)


def _short_enclave(tee: NitroTee) -> None:
    vendor = NitroVendor(NOW)
    vendor.facts["enclave"]["end"] = 40
    tee.on(vendor)


ENDS = [
    (SnpTee, _short_leaf), (SnpTee, _short_list), (AzureSnpTee, _short_leaf),
    (AzureSnpTee, _short_list), (TdxTee, _short_pck), (TdxTee, _short_pck_list),
    (TdxTee, _short_tcb_info), (NitroTee, _short_enclave),
]  # fmt: skip


@pytest.mark.parametrize(("make", "shorten"), ENDS)
def test_a_verdict_ends_with_the_first_certificate_or_statement(
    make: type[HardwareTee], shorten: Callable[[Any], None]
) -> None:
    tee = make()
    shorten(tee)
    assert accepted(tee.appraise()).expires == NOW + 40
    assert accepted(tee.appraise(now=NOW + 39)).expires == NOW + 40


@pytest.mark.parametrize(("make", "shorten"), ENDS)
def test_what_has_ended_is_refused(make: type[HardwareTee], shorten: Callable[[Any], None]) -> None:
    tee = make()
    shorten(tee)
    verdict = rejected(tee.appraise(now=NOW + 41))
    ended = {"certificate_not_valid_at_time", "crl_expired", "collateral_expired"}
    assert ended & set(verdict.codes)


def test_a_document_is_as_old_as_its_binding_when_that_began() -> None:
    """It is made once for a binding; the binding's own end bounds its use."""
    tee = NitroTee()
    accepted(tee.appraise(now=NOW + 3000))
    tee = NitroTee()
    tee.enclave.timestamp_ms = (NOW - 299) * 1000
    accepted(tee.appraise())
    tee = NitroTee()
    tee.enclave.timestamp_ms = (NOW - 301) * 1000
    refused_for(tee.appraise(), "evidence_stale")


def _outdated(tee: TdxTee, since: int) -> None:
    """Something newer than what runs there was published then; the policy allows a day."""
    newest, older = tee.intel.tcb_info["tcbLevels"][:2]
    newest["tcbDate"], older["tcbDate"] = stamp(since), stamp(since - 400 * DAY)
    tee.intel.components = [3, 3, *tee.intel.components[2:]]
    tee.intel.pcesvn = 11
    tee.rule["tcb"] |= {"grace_days": 1, "allow_advisories": ["INTEL-SA-00960"]}


@pytest.mark.parametrize("make", [TdxTee, AzureTdxTee])
def test_a_verdict_that_rests_on_grace_ends_with_it(make: type[TdxTee]) -> None:
    tee = make()
    _outdated(tee, NOW - DAY + 40)
    assert accepted(tee.appraise()).expires == NOW + 40
    assert accepted(tee.appraise(now=NOW + 39)).expires == NOW + 40
    refused_for(tee.appraise(now=NOW + 40), "tcb_out_of_date")


@pytest.mark.parametrize("make", [TdxTee, AzureTdxTee])
def test_no_binding_begins_early_enough_to_lengthen_grace(make: type[TdxTee]) -> None:
    tee = make()
    _outdated(tee, NOW - DAY - 1)
    tee.facts |= {"nbf": NOW - DAY + 3600, "exp": NOW + 3600}
    tee.demands["not_before"] = NOW - 2 * DAY
    refused_for(tee.appraise(), "tcb_out_of_date")
    accepted(tee.appraise(now=NOW - 2))


def test_a_document_of_the_future_is_refused() -> None:
    tee = NitroTee()
    tee.enclave.timestamp_ms = (NOW + 121) * 1000
    refused_for(tee.appraise(), "evidence_not_yet_valid")


# ---------------------------------------------------------------- policies


NOT_CARRYING = sorted(kind for kind, scheme in SCHEMES.items() if scheme.carries is None)


@pytest.mark.parametrize("kind", NOT_CARRYING)
def test_no_policy_accepts_a_worker_for_a_kind_that_cannot_name_it(kind: str) -> None:
    tee = SnpTee()
    tee.demands["accept"] = [{**tee.rule, "kind": kind}]
    with pytest.raises(PolicyError, match="names no worker"):
        tee.policy()


def test_gpus_alone_are_among_those() -> None:
    assert "nvidia-gpu-spdm-list" in NOT_CARRYING
    assert not {make.kind for make in KINDS} & set(NOT_CARRYING)


@every_kind
@pytest.mark.parametrize("member", ["measurements", "image"])
def test_a_rule_must_state_what_it_accepts(make: type[HardwareTee], member: str) -> None:
    tee = make()
    del tee.rule[member]
    with pytest.raises(PolicyError, match=member):
        tee.policy()


@every_kind
def test_a_rule_with_a_member_of_another_kind_is_refused(make: type[HardwareTee]) -> None:
    tee = make()
    tee.rule["pcr8_in" if make is not NitroTee else "min_tcb"] = {}
    with pytest.raises(PolicyError):
        tee.policy()


# ---------------------------------------------------------------- any change at all

_SHOWN: list[HardwareTee] = [make() for make in KINDS]
# The TD report in an HCL report is for its own machine: all but two fields of it are never read.
_WHOLE = [tee for tee in _SHOWN if not isinstance(tee, AzureTdxTee)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_byte_of_the_evidence_can_be_another(data: st.DataObject) -> None:
    tee = data.draw(st.sampled_from(_WHOLE))
    binding = tee.binding()
    body = bytearray(tee.evidence(binding).body)
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= 1 << data.draw(st.integers(0, 7))
    rejected(tee.appraise(binding_raw=binding, evidence=[Evidence(tee.kind, bytes(body))]))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_byte_of_what_is_appraised_raises(data: st.DataObject) -> None:
    tee = data.draw(st.sampled_from(_SHOWN))
    roles = {
        role: data.draw(st.binary(min_size=1, max_size=64))
        for role in SCHEMES[tee.kind].evidence[0]
    }
    junk = {role: data.draw(st.binary(max_size=64)) for role in SCHEMES[tee.kind].collateral}
    evidence = [Evidence(tee.kind, encode_container(roles, tee.parts))]
    for collateral in (tee.collateral(), {tee.kind: junk}):
        assert isinstance(tee.appraise(evidence=evidence, collateral=collateral), Refused)
    assert isinstance(tee.appraise(collateral={tee.kind: junk}), Refused) or (
        isinstance(tee, NitroTee)
    )

"""Steps 10 to 22 for vendors' hardware, as a worker shows it: one fact changed a test.

What each vendor's report must say in itself has tests beside its format; here it is whether the
evidence speaks for this worker, under this policy.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.amd import Amd
from simulators.hardware_tee import (
    AzureSnpTee,
    HardwareTee,
    NitroTee,
    SnpTee,
    TdxTee,
    pem,
)
from simulators.intel import Intel
from simulators.intel_parts import stamp
from simulators.nitro import NitroVendor
from simulators.tee import NOW, SoftwareTee
from simulators.vtpm import NONCE

from attestation.evidence import Evidence
from attestation.formats.container import encode_container
from attestation.measurement import digest_bytes
from attestation.posture import Control
from attestation.registers import NITRO_PCR, nitro_pcr_event, rtmr_event, rtmr_value
from attestation.result import AppraisedEvidence, Refused
from attestation.schemes import SCHEMES
from wire.errors import PolicyError
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: list[type[HardwareTee]] = [SnpTee, TdxTee, NitroTee, AzureSnpTee]
OTHER = sha256_tag(b"something else")
# How a register that holds something else is called.
REGISTER = {
    SnpTee: "host_data_mismatch",
    TdxTee: "measurement_mismatch",
    NitroTee: "measurement_mismatch",
    AzureSnpTee: "pcr_mismatch",
}
every_kind = pytest.mark.parametrize("make", KINDS)


def accepted(verdict: AppraisedEvidence | Refused) -> AppraisedEvidence:
    assert isinstance(verdict, AppraisedEvidence), verdict
    return verdict


def refused(verdict: AppraisedEvidence | Refused, *codes: str) -> Refused:
    """The refusal, for these reasons and no others; some check says each."""
    assert isinstance(verdict, Refused), "accepted"
    assert set(verdict.codes) == set(codes), verdict.reasons
    assert {reason.step for reason in verdict.reasons} <= {
        check.step for check in verdict.checks if check.ok is not True
    }
    return verdict


def foreign(verdict: AppraisedEvidence | Refused, *codes: str) -> Refused:
    """The same for evidence that is not genuine: then it is made for no binding either."""
    assert isinstance(verdict, Refused)
    assert verdict.codes[0] == codes[0]
    return refused(verdict, *codes, "report_data_mismatch")


# ---------------------------------------------------------------- accepted


@every_kind
def test_honest_evidence_is_accepted_whole(make: type[HardwareTee]) -> None:
    tee = make()
    verdict = accepted(tee.appraise())
    assert verdict.kind == tee.kind
    assert verdict.measurement == tee.measurement()
    assert all(check.ok is True for check in verdict.checks)
    ours = [check.step.split()[0] for check in verdict.checks if check.step[0].isdigit()]
    assert ours == [*map(str, range(12)), "17", "19", "20", "21", "22"]
    assert verdict.claims[tee.kind]
    assert json.loads(json.dumps(verdict.claims[tee.kind]))
    assert verdict.identities


@every_kind
def test_under_roots_of_the_policys_own_trust_is_never_hardware(make: type[HardwareTee]) -> None:
    assert SCHEMES[make.kind].trust == "hardware"
    assert accepted(make().appraise()).trust == "simulated"


@every_kind
def test_evidence_of_a_kind_the_policy_does_not_name_counts_for_nothing(
    make: type[HardwareTee],
) -> None:
    tee = make()
    binding = tee.binding()
    beside = Evidence("software", b"not looked at")
    verdict = accepted(tee.appraise(binding_raw=binding, evidence=[beside, tee.evidence(binding)]))
    assert verdict.kind == tee.kind
    assert list(verdict.claims) == [tee.kind]


@every_kind
def test_one_policy_accepts_many_platforms(make: type[HardwareTee]) -> None:
    first, second = make("one"), make("two")
    one = accepted(first.appraise())
    two = accepted(second.appraise(policy=first.policy()))
    assert one.bh != two.bh
    platforms = [
        {name for name in found.identities if name.startswith(("chip_id:", "ppid:"))}
        for found in (one, two)
    ]
    assert not platforms[0] & platforms[1]


def test_a_rule_of_another_kind_that_is_not_met_does_not_harm() -> None:
    tee, other = SnpTee(), SoftwareTee()
    tee.demands |= {"accept": [other.rule, tee.rule], "allow_software": True}
    binding = tee.binding()
    other.facts = tee.facts
    strange = Evidence("software", other.evidence(b"another binding").body)
    shown = [strange, tee.evidence(binding)]
    assert accepted(tee.appraise(binding_raw=binding, evidence=shown)).trust == "simulated"


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
    verdict = tee.appraise(now=NOW + 41)
    assert isinstance(verdict, Refused)
    ended = {"certificate_not_valid_at_time", "crl_expired", "collateral_expired"}
    assert ended & set(verdict.codes)


# ---------------------------------------------------------------- steps 10 and 11


@every_kind
@pytest.mark.parametrize("others", [{}, {"allow_software": True}])
def test_step_10_refuses_simulated_vendors_unless_the_policy_allows_them(
    make: type[HardwareTee], others: dict[str, bool]
) -> None:
    tee = make()
    del tee.demands["allow_simulated"]
    tee.demands |= others
    refused(tee.appraise(), "simulated_not_allowed")


@every_kind
def test_a_rule_without_roots_trusts_the_real_vendor_alone(make: type[HardwareTee]) -> None:
    tee = make()
    del tee.rule["roots"], tee.demands["allow_simulated"]
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert verdict.codes[0] == "untrusted_root"
    assert "simulated_not_allowed" not in verdict.codes


LOOKALIKES: list[tuple[type[HardwareTee], Callable[[], bytes]]] = [
    (SnpTee, lambda: Amd("Genoa", NOW, "another").root),
    (AzureSnpTee, lambda: Amd("Genoa", NOW, "another").root),
    (TdxTee, lambda: Intel(now=NOW).root_der()),
    (NitroTee, lambda: NitroVendor(NOW).root),
]


@pytest.mark.parametrize(("make", "root"), LOOKALIKES)
def test_a_root_of_the_same_name_with_another_key_is_no_root(
    make: type[HardwareTee], root: Callable[[], bytes]
) -> None:
    tee = make()
    tee.rule["roots"] = [pem(root())]
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert verdict.codes[0] == "untrusted_root"


@every_kind
def test_step_10_refuses_evidence_shown_twice(make: type[HardwareTee]) -> None:
    tee = make()
    binding = tee.binding()
    item = tee.evidence(binding)
    refused(tee.appraise(binding_raw=binding, evidence=[item, item]), "evidence_repeated")


@every_kind
def test_step_10_refuses_only_other_kinds(make: type[HardwareTee]) -> None:
    tee = make()
    item = Evidence("tpm2", tee.evidence(tee.binding()).body)
    refused(tee.appraise(evidence=[item]), "kind_not_accepted")
    refused(tee.appraise(evidence=[]), "kind_not_accepted")


@every_kind
def test_step_11_refuses_another_kinds_evidence_under_this_name(make: type[HardwareTee]) -> None:
    tee = make()
    other: HardwareTee = NitroTee() if make is not NitroTee else TdxTee()
    binding = tee.binding()
    item = Evidence(tee.kind, other.evidence(binding).body)
    refused(tee.appraise(binding_raw=binding, evidence=[item]), "evidence_malformed")


@every_kind
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"parts":{}}'])
def test_step_11_refuses_what_is_no_container(make: type[HardwareTee], body: bytes) -> None:
    tee = make()
    verdict = refused(tee.appraise(evidence=[Evidence(tee.kind, body)]), "evidence_malformed")
    assert [check.ok for check in verdict.checks if check.step == "12-19"] == [None]


@every_kind
def test_step_11_refuses_a_role_the_kind_does_not_have(make: type[HardwareTee]) -> None:
    tee = make()
    tee.roles["root"] = b"collateral does not come with the evidence"
    refused(tee.appraise(), "evidence_malformed")


@every_kind
def test_no_byte_of_the_pieces_is_without_meaning(make: type[HardwareTee]) -> None:
    tee = make()
    binding = tee.binding()
    for role, data in tee.signed(binding).items():
        tee = make()
        tee.roles[role] = data + b"\x01"
        assert isinstance(tee.appraise(), Refused), role
        tee = make()
        tee.roles[role] = data[:-1] if role != "hcl_report" else data[:1400]
        assert isinstance(tee.appraise(), Refused), role


# ---------------------------------------------------------------- step 17: which worker


@every_kind
def test_step_17_refuses_evidence_for_another_binding(make: type[HardwareTee]) -> None:
    tee, other = make(), make()
    other.facts["epoch"] = 1
    verdict = tee.appraise(evidence=[other.evidence(other.binding())])
    assert isinstance(verdict, Refused)
    assert set(verdict.codes) <= {"report_data_mismatch", "nonce_mismatch"}


@every_kind
def test_step_17_refuses_genuine_evidence_beside_an_attackers_key(make: type[HardwareTee]) -> None:
    tee = make()
    genuine = tee.evidence(tee.binding())
    tee.facts["kems"] = [make("attacker").kem("647a-0001-0002")]
    verdict = tee.appraise(evidence=[genuine])
    assert isinstance(verdict, Refused)
    assert set(verdict.codes) <= {"report_data_mismatch", "nonce_mismatch"}


@pytest.mark.parametrize("data", [bytes(64), hashlib.sha512(b"other").digest()])
def test_step_17_refuses_other_report_data(data: bytes) -> None:
    snp, tdx = SnpTee(), TdxTee()
    snp.lies["report_data"] = tdx.body["report_data"] = data
    refused(snp.appraise(), "report_data_mismatch")
    refused(tdx.appraise(), "report_data_mismatch")


@pytest.mark.parametrize(
    ("asked", "codes"),
    [
        ({"nonce": None}, {"nonce_mismatch"}),
        ({"nonce": NONCE}, {"nonce_mismatch"}),
        ({"user_data": None}, set()),
        ({"user_data": bytes(64)}, set()),
    ],
)
def test_step_17_refuses_a_document_that_names_only_half_of_it(
    asked: dict[str, bytes | None], codes: set[str]
) -> None:
    tee = NitroTee()
    tee.asked = asked
    refused(tee.appraise(), *codes, "report_data_mismatch")


def test_step_17_refuses_a_quote_over_another_nonce() -> None:
    tee = AzureSnpTee()
    tee.quoted = NONCE
    refused(tee.appraise(), "nonce_mismatch", "report_data_mismatch")


# ---------------------------------------------------------------- step 19: which code


@every_kind
def test_step_19_refuses_a_register_with_another_measurement(make: type[HardwareTee]) -> None:
    tee = make()
    tee.carried = tee.measurement_of(first_party=OTHER)
    if isinstance(tee, NitroTee):
        tee.on(tee.enclave.vendor)
    if isinstance(tee, AzureSnpTee):
        tee.vm.tpm.registers["sha256"][11] = bytes(32)
        tee.vm.tpm.measure(11, digest_bytes(tee.carried))
    refused(tee.appraise(), REGISTER[make])


@every_kind
def test_step_19_refuses_parts_that_the_register_does_not_hold(make: type[HardwareTee]) -> None:
    """The policy accepts what the parts say; the hardware says that something else was started."""
    tee = make()
    tee.parts = {**tee.parts, "model": OTHER}
    tee.facts["image"] = tee.measurement()
    tee.rule["measurements"] = [tee.measurement()]
    refused(tee.appraise(), REGISTER[make])


@every_kind
def test_step_19_refuses_parts_changed_on_the_way(make: type[HardwareTee]) -> None:
    tee = make()
    tee.shown_parts = {**tee.parts, "model": OTHER}
    refused(tee.appraise(), REGISTER[make], "image_mismatch", "measurement_not_accepted")


def test_step_19_refuses_rtmr3_extended_twice() -> None:
    tee = TdxTee()
    once = rtmr_value(digest_bytes(tee.measurement()))
    later = rtmr_event(digest_bytes(OTHER))
    tee.body["rt_mr3"] = hashlib.sha384(once + later).digest()
    refused(tee.appraise(), "measurement_mismatch")


@pytest.mark.parametrize("value", [bytes(48), b"\xff" * 48])
def test_step_19_refuses_an_rtmr3_that_was_not_extended_so(value: bytes) -> None:
    tee = TdxTee()
    tee.body["rt_mr3"] = value
    refused(tee.appraise(), "measurement_mismatch")


def test_step_19_refuses_the_measurement_in_another_register() -> None:
    tee = TdxTee()
    tee.body |= {"rt_mr2": rtmr_value(digest_bytes(tee.measurement())), "rt_mr3": bytes(48)}
    tee.rule["image"] = "any"
    refused(tee.appraise(), "measurement_mismatch")


def test_step_19_refuses_host_data_without_the_label() -> None:
    tee = SnpTee()
    tee.lies["host_data"] = digest_bytes(tee.measurement())
    refused(tee.appraise(), "host_data_mismatch")


def test_step_19_refuses_a_guest_started_without_host_data() -> None:
    tee = SnpTee()
    tee.lies["host_data"] = bytes(32)
    refused(tee.appraise(), "host_data_mismatch")


def test_step_19_refuses_a_document_without_register_16() -> None:
    tee = NitroTee()
    tee.enclave.locked.discard(NITRO_PCR)  # extended, but anybody could extend it further
    refused(tee.appraise(), "pcr_missing")


def test_step_19_refuses_register_16_extended_twice() -> None:
    tee = NitroTee()
    tee.enclave.locked.discard(NITRO_PCR)
    tee.enclave.extend(NITRO_PCR, nitro_pcr_event(digest_bytes(OTHER)))
    tee.enclave.lock(NITRO_PCR)
    refused(tee.appraise(), "measurement_mismatch")


def test_step_19_refuses_register_16_never_extended() -> None:
    tee = NitroTee()
    tee.enclave.pcrs[NITRO_PCR] = bytes(48)
    refused(tee.appraise(), "measurement_mismatch")


def test_step_19_refuses_register_11_extended_twice() -> None:
    tee = AzureSnpTee()
    tee.vm.tpm.measure(11, digest_bytes(OTHER))
    refused(tee.appraise(), "pcr_mismatch")


# ---------------------------------------------------------------- steps 20 to 22


@every_kind
def test_step_20_refuses_a_binding_that_claims_another_image(make: type[HardwareTee]) -> None:
    tee = make()
    tee.facts["image"] = OTHER
    refused(tee.appraise(), "image_mismatch")


@every_kind
def test_step_21_refuses_a_measurement_the_policy_does_not_list(make: type[HardwareTee]) -> None:
    tee = make()
    tee.rule["measurements"] = [OTHER]
    refused(tee.appraise(), "measurement_not_accepted")


@every_kind
def test_step_21_refuses_a_denied_measurement_though_it_is_listed(make: type[HardwareTee]) -> None:
    tee = make()
    tee.demands["deny"] = {"measurements": [tee.measurement()]}
    refused(tee.appraise(), "denied")


DENIED = [
    (SnpTee, "chip_ids", "chip_id"), (SnpTee, "keys", "key"), (AzureSnpTee, "chip_ids", "chip_id"),
    (AzureSnpTee, "keys", "key"), (TdxTee, "ppids", "ppid"), (TdxTee, "keys", "key"),
    (TdxTee, "serials", "serial"), (NitroTee, "keys", "key"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "member", "name"), DENIED)
def test_step_21_refuses_each_identity_that_is_denied(
    make: type[HardwareTee], member: str, name: str
) -> None:
    found = accepted(_numbered(make()).appraise()).identities
    values = [value for key, _, value in (item.partition(":") for item in found) if key == name]
    assert values
    for value in values:
        tee = _numbered(make())
        tee.demands["deny"] = {member: [value]}
        refused(tee.appraise(), "denied")
        tee = _numbered(make())
        tee.demands["deny"] = {member: [value[:-2] + ("00" if value[-2:] != "00" else "01")]}
        accepted(tee.appraise())


@pytest.mark.parametrize("serial", [0x1234567890, 0x123456789])
def test_a_certificate_of_any_serial_number_can_be_denied(serial: int) -> None:
    """Numbers are written in whole octets, on lists and in evidence."""
    tee = TdxTee()
    tee.intel.pck.serial = serial
    tee.demands["deny"] = {"serials": [serial.to_bytes(5, "big").hex()]}
    refused(tee.appraise(), "denied")


def _numbered(tee: HardwareTee) -> HardwareTee:
    """Real certificates have long serial numbers."""
    if isinstance(tee, TdxTee):
        tee.intel.pck.serial = 0x1234567890ABCDEF
    return tee


@every_kind
def test_step_22_refuses_a_weaker_posture_though_the_hardware_is_good(
    make: type[HardwareTee],
) -> None:
    tee = make()
    tee.controls["seccomp"] = Control("unavailable")
    refused(tee.appraise(), "posture_below_policy")


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
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert "debug_enabled" in verdict.codes
    assert set(verdict.codes) <= {"debug_enabled", "image_not_accepted"}
    claims = verdict.claims[tee.kind]
    assert claims.get("policy_decoded", claims)["debug"] is True


@every_kind
def test_debug_cannot_be_allowed(make: type[HardwareTee]) -> None:
    tee = make()
    tee.rule |= {"td": {"debug": True}} if make is TdxTee else {"debug": True}
    with pytest.raises(PolicyError, match="debug"):
        tee.policy()


@every_kind
def test_claims_are_told_whatever_the_evidence_was_refused_for(make: type[HardwareTee]) -> None:
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


@pytest.mark.parametrize("make", [SnpTee, TdxTee, AzureSnpTee])
def test_without_collateral_nothing_is_accepted(make: type[HardwareTee]) -> None:
    verdict = make().appraise(collateral={})
    assert isinstance(verdict, Refused)
    assert "collateral_missing" in verdict.codes or "untrusted_root" in verdict.codes


def test_a_document_of_nitro_needs_none() -> None:
    accepted(NitroTee().appraise(collateral={}))


@pytest.mark.parametrize("make", [SnpTee, TdxTee, AzureSnpTee])
def test_collateral_for_another_kind_is_not_looked_at(make: type[HardwareTee]) -> None:
    tee = make()
    other = "intel-sgx-quote" if make is TdxTee else "aws-nitro-document"
    verdict = tee.appraise(collateral={other: tee.collateral()[tee.kind]})
    assert isinstance(verdict, Refused)


_NO_CHAIN = {"collateral_missing", "revocation_not_checked", "report_data_mismatch"}


@pytest.mark.parametrize(
    ("make", "role", "codes"),
    [
        (SnpTee, "endorsement_cert", _NO_CHAIN),
        (SnpTee, "crl", {"revocation_not_checked"}),
        (AzureSnpTee, "vcek", _NO_CHAIN),
        (AzureSnpTee, "crl", {"revocation_not_checked"}),
        (TdxTee, "collateral", {"collateral_missing", "tcb_not_proved", "report_data_mismatch"}),
    ],
)
def test_each_missing_piece_is_named(make: type[HardwareTee], role: str, codes: set[str]) -> None:
    tee = make()
    tee.statements[role] = None
    refused(tee.appraise(), *codes)


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
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert "revoked" in verdict.codes


def test_statements_about_another_platform_family_are_refused() -> None:
    tee, other = TdxTee(), TdxTee()
    other.intel.tcb_info["fmspc"] = "00806f050000"
    tee.statements["collateral"] = other.intel.collateral()
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert verdict.codes[0] == "collateral_fmspc_mismatch"


def test_firmware_below_the_floor_is_refused() -> None:
    tee = SnpTee()
    tee.rule["min_tcb"] = {"Genoa": {"snp": 24}, "Turin": {}}
    refused(tee.appraise(), "tcb_out_of_date")


def test_a_platform_that_intel_calls_out_of_date_is_refused() -> None:
    tee = TdxTee()
    tee.intel.components[0] = 3
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert "tcb_out_of_date" in verdict.codes


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


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_byte_of_the_evidence_can_be_another(data: st.DataObject) -> None:
    tee = data.draw(st.sampled_from(_SHOWN))
    binding = tee.binding()
    body = bytearray(tee.evidence(binding).body)
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= 1 << data.draw(st.integers(0, 7))
    verdict = tee.appraise(binding_raw=binding, evidence=[Evidence(tee.kind, bytes(body))])
    assert isinstance(verdict, Refused)


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

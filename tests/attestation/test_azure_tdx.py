"""`azure-vtpm-tdx`: genuine evidence is accepted, and each test below changes one fact of it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from simulators.hcl import Paravisor, td_report
from simulators.intel import DAY, NOW, Intel, key, stamp
from simulators.vtpm import NONCE, pcrs_json, rsa_key

from attestation.anchors import Anchors
from attestation.examined import Examined, Expected, Question
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.azure_tdx import SCHEME
from wire.errors import AttestationError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable

WORKER = hashlib.sha256(b"worker").digest()
ZERO = "00" * 32
RULE = {"image": "any", "pcrs": {}}


class Vm:
    """A TD under a paravisor.

    Attributes:
        intel: its platform; `paravisor`: its virtual TPM and HCL report.
    """

    def __init__(self, key: Any = None) -> None:
        self.intel = Intel()
        self.paravisor = Paravisor(self._report, key)
        self.paravisor.tpm.measure(11, WORKER)

    def _report(self, report_data: bytes) -> bytes:
        self.intel.body["report_data"] = report_data
        return td_report(report_data, self.intel.body["mr_td"])

    def evidence(self, nonce: bytes = NONCE, **lies: Any) -> dict[str, bytes]:
        roles = self.paravisor.evidence(nonce, **{"kind": 4, **lies})
        return {**roles, "td_quote": self.intel.quote()}

    def question(self, evidence: dict[str, bytes] | None = None, **changes: Any) -> Question:
        held = self.evidence() if evidence is None else evidence
        honest: dict[str, Any] = {
            "evidence": held,
            "anchors": self.intel.anchors(),
            "now": NOW,
            "collateral": {"collateral": self.intel.collateral()},
            "expected": Expected(nonce=NONCE),
        }
        return Question(**{**honest, **changes})

    def examine(self, evidence: dict[str, bytes] | None = None, **changes: Any) -> Examined:
        return SCHEME.examine(self.question(evidence, **changes))


def _codes(examined: Examined) -> list[str]:
    assert examined.authentic is (not examined.reasons)
    return [reason.code for reason in examined.reasons]


def _judge(facts: Any, **demands: Any) -> list[str]:
    ledger = Ledger()
    SCHEME.judge(ledger, facts, _rule({**RULE, **demands}), NOW)
    assert ledger.accepted is (not ledger.reasons)
    return [reason.code for reason in ledger.reasons]


def _rule(demands: dict[str, Any]) -> Any:
    required, optional = SCHEME.rule_keys
    members = Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    return SCHEME.rule(members)


def test_a_fresh_quote_by_the_key_that_the_td_quote_names_is_accepted() -> None:
    examined = Vm().examine()
    assert (_codes(examined), examined.bound) == ([], True)
    assert examined.claims["tee"] == "TDX"
    assert examined.claims["fmspc"] == Intel().fmspc.hex()
    assert _judge(examined.facts) == []
    assert {identity.split(":")[0] for identity in examined.identities} == {
        "ppid", "serial", "key"
    }  # fmt: skip


# -- collateral -----------------------------------------------------------------------------------


def test_without_collateral_the_quote_is_intels_and_its_state_is_refused() -> None:
    examined = Vm().examine(collateral={})
    assert (_codes(examined), examined.bound) == ([], True)
    assert _judge(examined.facts) == ["collateral_missing", "tcb_not_proved"]


def test_no_rule_accepts_a_state_that_no_collateral_proves() -> None:
    facts = Vm().examine(collateral={}).facts
    statuses = ["UpToDate", "OutOfDate", "SWHardeningNeeded", "ConfigurationNeeded"]
    codes = _judge(facts, tcb={"statuses": statuses, "grace_days": 366}, vm_configuration={})
    assert codes == ["collateral_missing", "tcb_not_proved"]


def test_without_collateral_a_forged_quote_is_still_refused() -> None:
    vm = Vm()
    evidence = vm.evidence()
    flipped = bytearray(evidence["td_quote"])
    flipped[200] ^= 1
    assert "signature_invalid" in _codes(
        vm.examine({**evidence, "td_quote": bytes(flipped)}, collateral={})
    )
    other = Anchors(frozenset({bytes(32)}))
    assert "untrusted_root" in _codes(vm.examine(anchors=other, collateral={}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mrsigner", hashlib.sha256(b"whoever has a platform").digest()),
        ("isvprodid", b"\1\0"),
        ("attributes", bytes.fromhex("1700000000000000e700000000000000")),
    ],
)
@pytest.mark.parametrize("collateral", [True, False])
def test_with_and_without_collateral_only_intels_enclave_quotes(
    field: str, value: bytes, collateral: bool
) -> None:
    vm = Vm()
    vm.intel.qe_report[field] = value
    given = {} if collateral else {"collateral": {}}
    assert set(_codes(vm.examine(**given))) == {"qe_identity_mismatch"}


@pytest.mark.parametrize("fact", ["quoting enclave", "attestation key", "chain", "time", "tail"])
def test_without_collateral_each_step_of_the_quote_is_still_taken(fact: str) -> None:
    vm = Vm()
    changes: dict[str, Any] = {"collateral": {}}
    if fact == "quoting enclave":
        vm.intel.header["vendor"] = bytes(16)
    elif fact == "attestation key":
        vm.intel.vouched_key = key()
    elif fact == "chain":
        vm.intel.pck.signer = key()
    elif fact == "time":
        vm.intel.pck.end = -60
    else:
        vm.intel.trailing = b"\1"
    expected = {
        "quoting enclave": "qe_vendor_unknown", "attestation key": "attestation_key_not_bound",
        "chain": "chain_invalid", "time": "certificate_not_valid_at_time", "tail": "trailing_bytes",
    }  # fmt: skip
    assert set(_codes(vm.examine(**changes))) == {expected[fact]}


def test_collateral_that_is_given_in_part_is_refused() -> None:
    vm = Vm()
    vm.evidence()
    roles = vm.intel.roles()
    for missing in roles:
        part = {role: data for role, data in roles.items() if role != missing}
        assert _codes(vm.examine(collateral=part)) == ["collateral_malformed"]
    assert _codes(vm.examine(collateral=roles)) == []


def test_collateral_that_has_expired_is_refused() -> None:
    vm = Vm()
    assert "collateral_expired" in _codes(vm.examine(now=NOW + 60 * DAY))


def test_a_revoked_platform_is_refused() -> None:
    vm = Vm()
    vm.intel.revoked_pck.append(vm.intel.pck.serial)
    assert "revoked" in _codes(vm.examine())


def test_an_out_of_date_platform_is_authentic_and_refused() -> None:
    vm = Vm()
    vm.intel.body["tee_tcb_svn"] = bytes([3, 1, 3]) + bytes(13)
    examined = vm.examine()
    assert _codes(examined) == []
    assert "tcb_out_of_date" in _judge(examined.facts)


@pytest.mark.parametrize(("bits", "code"), [(0, "sept_ve_disable_off"), (1, "debug_enabled")])
def test_the_tds_own_state_is_judged(bits: int, code: str) -> None:
    vm = Vm()
    vm.intel.body["td_attributes"] = (bits or 0).to_bytes(8, "little")
    assert code in _judge(vm.examine(collateral={}).facts)


# -- from the quote to the nonce ------------------------------------------------------------------


def test_a_td_quote_of_another_vm_is_refused() -> None:
    vm, other = Vm(), Vm(rsa_key("another vm"))
    other.evidence()
    vm.evidence()
    vm.intel.body["report_data"] = other.intel.body["report_data"]
    evidence = {**vm.paravisor.evidence(kind=4, report=_td(vm)), "td_quote": vm.intel.quote()}
    evidence["td_quote"] = _requoted(vm, other.intel.body["report_data"])
    assert _codes(vm.examine(evidence)) == ["td_report_mismatch", "report_data_mismatch"]


def _td(vm: Vm) -> bytes:
    digest = hashlib.sha256(vm.paravisor.variable_data()).digest().ljust(64, b"\0")
    return td_report(digest, vm.intel.body["mr_td"])


def _requoted(vm: Vm, report_data: bytes) -> bytes:
    vm.intel.body["report_data"] = report_data
    return vm.intel.quote()


def test_a_td_report_of_another_image_is_refused() -> None:
    vm = Vm()
    evidence = vm.evidence()
    raw = bytearray(evidence["hcl_report"])
    raw[32 + 528] ^= 1
    assert _codes(vm.examine({**evidence, "hcl_report": bytes(raw)})) == ["td_report_mismatch"]


def test_a_vtpm_quote_of_another_vm_is_refused() -> None:
    vm, other = Vm(), Vm(rsa_key("another vm"))
    theirs = other.evidence()
    evidence = vm.evidence()
    evidence.update({role: theirs[role] for role in ("quote_msg", "quote_sig")})
    assert _codes(vm.examine(evidence)) == ["signature_invalid"]


def test_variable_data_that_the_quote_does_not_vouch_for_is_refused() -> None:
    vm = Vm()
    evidence = vm.evidence()
    raw = evidence["hcl_report"].replace(b'"console-enabled":false', b'"console-enabled":true ')
    assert _codes(vm.examine({**evidence, "hcl_report": raw})) == ["report_data_mismatch"]


def test_report_data_that_goes_on_after_the_hash_is_refused() -> None:
    vm = Vm()
    digest = hashlib.sha256(vm.paravisor.variable_data()).digest()
    evidence = vm.evidence(report_data=digest + b"\1" * 32)
    assert _codes(vm.examine(evidence)) == ["report_data_mismatch"]


def test_a_quote_for_another_nonce_is_refused() -> None:
    vm = Vm()
    examined = vm.examine(vm.evidence(b"another"))
    assert (_codes(examined), examined.bound) == (["nonce_mismatch"], False)


def test_a_register_value_that_is_not_quoted_is_refused() -> None:
    vm = Vm()
    values = {**vm.paravisor.tpm.registers["sha256"], 11: b"\1" * 32}
    evidence = {**vm.evidence(), "pcrs": pcrs_json({"sha256": values})}
    assert _codes(vm.examine(evidence)) == ["pcr_digest_mismatch"]


def flips(vm: Vm, evidence: dict[str, bytes], places: Iterable[int]) -> list[int]:
    """Those of some bytes of the TD quote of which a bit can be flipped without a refusal."""
    accepted = []
    for at in places:
        flipped = bytearray(evidence["td_quote"])
        flipped[at] ^= 1 << at % 8
        if not _codes(vm.examine({**evidence, "td_quote": bytes(flipped)})):
            accepted.append(at)
    return accepted


def test_a_flipped_bit_in_any_byte_before_the_certificates_is_refused() -> None:
    """Header, body, quoting enclave's report, both signatures, and every length between them."""
    vm = Vm()
    evidence = vm.evidence()
    raw = evidence["td_quote"]
    assert flips(vm, evidence, range(raw.index(b"-----BEGIN"))) == []


def test_a_flipped_bit_in_each_line_of_the_certificates_is_refused() -> None:
    """What is between the lines is not signed: any white space may stand there."""
    vm = Vm()
    evidence = vm.evidence()
    raw = evidence["td_quote"]
    lines = [match.span() for match in re.finditer(rb"[A-Za-z0-9+/=]{5,}(?=\n)", raw)]
    assert len(lines) > 30
    assert (
        flips(vm, evidence, [begin + (at % (end - begin)) for at, (begin, end) in enumerate(lines)])
        == []
    )


# -- format and state -----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["hcl_report", "quote_msg", "quote_sig", "pcrs", "td_quote"])
def test_a_missing_role_is_refused(role: str) -> None:
    vm = Vm()
    evidence = {name: data for name, data in vm.evidence().items() if name != role}
    assert _codes(vm.examine(evidence)) == ["evidence_malformed"]


@pytest.mark.parametrize("kind", [1, 2, 3, 5])
def test_a_report_of_another_tee_is_refused(kind: int) -> None:
    vm = Vm()
    assert _codes(vm.examine(vm.evidence(kind=kind))) == ["evidence_malformed"]


def test_bytes_after_the_td_report_are_refused() -> None:
    vm = Vm()
    evidence = vm.evidence()
    raw = bytearray(evidence["hcl_report"])
    raw[32 + 1100] = 1
    assert _codes(vm.examine({**evidence, "hcl_report": bytes(raw)})) == ["evidence_malformed"]


def test_a_td_quote_that_does_not_parse_is_malformed() -> None:
    vm = Vm()
    assert _codes(vm.examine({**vm.evidence(), "td_quote": b"x" * 700})) != []
    sgx = Intel("sgx").quote()
    assert _codes(vm.examine({**vm.evidence(), "td_quote": sgx})) != []


def test_a_vm_without_secure_boot_is_refused() -> None:
    vm = Vm()
    vm.paravisor.variable["vm-configuration"]["secure-boot"] = False
    assert _judge(vm.examine().facts) == ["vm_configuration_not_accepted"]


def test_a_register_of_another_value_is_refused() -> None:
    assert _judge(Vm().examine().facts, pcrs={"11": [ZERO]}) == ["pcr_not_accepted"]


def test_the_measurement_stands_in_register_11_and_not_in_rtmr3() -> None:
    carries = SCHEME.carries
    assert carries is not None
    assert carries(Vm().examine().facts, WORKER) == "register 11 holds the measurement"
    with pytest.raises(AttestationError) as caught:
        carries(Vm().examine().facts, bytes(32))
    assert caught.value.reasons == ("pcr_mismatch",)


@pytest.mark.parametrize("name", ["image", "pcrs"])
def test_a_rule_must_state_image_and_registers(name: str) -> None:
    with pytest.raises(PolicyError):
        _rule({stated: value for stated, value in RULE.items() if stated != name})


def test_what_the_td_quote_needs_is_asked_for() -> None:
    assert [need.role for need in SCHEME.needs(Vm().evidence())] == ["collateral"]
    assert SCHEME.needs({}) == ()


@pytest.mark.parametrize("early", [0, 60])
@pytest.mark.parametrize("skew", [0, 60])
def test_intels_statements_may_be_ahead_by_the_questions_skew(early: int, skew: int) -> None:
    vm = Vm()
    vm.intel.tcb_info["issueDate"] = stamp(NOW + early)
    found = _codes(vm.examine(skew=skew))
    assert found == ([] if early <= skew else ["collateral_not_yet_valid"])

"""Steps 10 to 22 for vendors' hardware, as a worker shows it: one fact changed a test.

What each vendor's report must say in itself has tests beside its format; here it is whether the
evidence speaks for this worker, under this policy.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
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
from simulators.intel import Intel
from simulators.nitro import NitroVendor
from simulators.tee import NOW, SoftwareTee
from simulators.verdicts import accepted, refused_for, rejected
from simulators.vtpm import NONCE

from attestation.evidence import Evidence
from attestation.posture import Control
from attestation.schemes import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Callable

every_kind = pytest.mark.parametrize("make", KINDS)


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


@every_kind
@pytest.mark.parametrize("others", [{}, {"allow_software": True}])
def test_step_10_refuses_simulated_vendors_unless_the_policy_allows_them(
    make: type[HardwareTee], others: dict[str, bool]
) -> None:
    tee = make()
    del tee.demands["allow_simulated"]
    tee.demands |= others
    refused_for(tee.appraise(), "simulated_not_allowed")


@every_kind
def test_a_rule_without_roots_trusts_the_real_vendor_alone(make: type[HardwareTee]) -> None:
    tee = make()
    del tee.rule["roots"], tee.demands["allow_simulated"]
    verdict = rejected(tee.appraise())
    assert verdict.codes[0] == "untrusted_root"
    assert "simulated_not_allowed" not in verdict.codes


LOOKALIKES: list[tuple[type[HardwareTee], Callable[[], bytes]]] = [
    (SnpTee, lambda: Amd("Genoa", NOW, "another").root),
    (AzureSnpTee, lambda: Amd("Genoa", NOW, "another").root),
    (TdxTee, lambda: Intel(now=NOW).root_der()),
    (AzureTdxTee, lambda: Intel(now=NOW).root_der()),
    (NitroTee, lambda: NitroVendor(NOW).root),
]


@pytest.mark.parametrize(("make", "root"), LOOKALIKES)
def test_a_root_of_the_same_name_with_another_key_is_no_root(
    make: type[HardwareTee], root: Callable[[], bytes]
) -> None:
    tee = make()
    tee.rule["roots"] = [pem(root())]
    verdict = rejected(tee.appraise())
    assert verdict.codes[0] == "untrusted_root"


@every_kind
def test_step_10_refuses_evidence_shown_twice(make: type[HardwareTee]) -> None:
    tee = make()
    binding = tee.binding()
    item = tee.evidence(binding)
    refused_for(tee.appraise(binding_raw=binding, evidence=[item, item]), "evidence_repeated")


@every_kind
def test_step_10_refuses_only_other_kinds(make: type[HardwareTee]) -> None:
    tee = make()
    item = Evidence("tpm2", tee.evidence(tee.binding()).body)
    refused_for(tee.appraise(evidence=[item]), "kind_not_accepted")
    refused_for(tee.appraise(evidence=[]), "kind_not_accepted")


@every_kind
def test_step_11_refuses_another_kinds_evidence_under_this_name(make: type[HardwareTee]) -> None:
    tee = make()
    other: HardwareTee = NitroTee() if make is not NitroTee else TdxTee()
    binding = tee.binding()
    item = Evidence(tee.kind, other.evidence(binding).body)
    refused_for(tee.appraise(binding_raw=binding, evidence=[item]), "evidence_malformed")


@every_kind
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"parts":{}}'])
def test_step_11_refuses_what_is_no_container(make: type[HardwareTee], body: bytes) -> None:
    tee = make()
    verdict = refused_for(tee.appraise(evidence=[Evidence(tee.kind, body)]), "evidence_malformed")
    assert [check.ok for check in verdict.checks if check.step == "12-19"] == [None]


@every_kind
def test_step_11_refuses_a_role_the_kind_does_not_have(make: type[HardwareTee]) -> None:
    tee = make()
    tee.roles["root"] = b"collateral does not come with the evidence"
    refused_for(tee.appraise(), "evidence_malformed")


@every_kind
def test_no_byte_of_the_pieces_is_without_meaning(make: type[HardwareTee]) -> None:
    tee = make()
    binding = tee.binding()
    for role, data in tee.signed(binding).items():
        tee = make()
        tee.roles[role] = data + b"\x01"
        rejected(tee.appraise())
        tee = make()
        tee.roles[role] = data[:-1] if role != "hcl_report" else data[:1400]
        rejected(tee.appraise())


@every_kind
def test_step_17_refuses_evidence_for_another_binding(make: type[HardwareTee]) -> None:
    tee, other = make(), make()
    other.facts["epoch"] = 1
    verdict = rejected(tee.appraise(evidence=[other.evidence(other.binding())]))
    assert set(verdict.codes) <= {"report_data_mismatch", "nonce_mismatch"}


@every_kind
def test_step_17_refuses_genuine_evidence_beside_an_attackers_key(make: type[HardwareTee]) -> None:
    tee = make()
    genuine = tee.evidence(tee.binding())
    tee.facts["kems"] = [make("attacker").kem("647a-0001-0002")]
    verdict = rejected(tee.appraise(evidence=[genuine]))
    assert set(verdict.codes) <= {"report_data_mismatch", "nonce_mismatch"}


@pytest.mark.parametrize("data", [bytes(64), hashlib.sha512(b"other").digest()])
def test_step_17_refuses_other_report_data(data: bytes) -> None:
    snp, tdx = SnpTee(), TdxTee()
    snp.lies["report_data"] = tdx.body["report_data"] = data
    refused_for(snp.appraise(), "report_data_mismatch")
    refused_for(tdx.appraise(), "report_data_mismatch")


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
    refused_for(tee.appraise(), *(codes or {"report_data_mismatch"}))


@pytest.mark.parametrize("make", [AzureSnpTee, AzureTdxTee])
def test_step_17_refuses_a_quote_over_another_nonce(
    make: type[AzureSnpTee] | type[AzureTdxTee],
) -> None:
    tee = make()
    tee.quoted = NONCE
    refused_for(tee.appraise(), "nonce_mismatch")


DENIED = [
    (SnpTee, "chip_ids", "chip_id"), (SnpTee, "keys", "key"), (AzureSnpTee, "chip_ids", "chip_id"),
    (AzureSnpTee, "keys", "key"), (TdxTee, "ppids", "ppid"), (TdxTee, "keys", "key"),
    (TdxTee, "serials", "serial"), (AzureTdxTee, "ppids", "ppid"), (AzureTdxTee, "keys", "key"),
    (NitroTee, "keys", "key"),
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
        refused_for(tee.appraise(), "denied")
        tee = _numbered(make())
        tee.demands["deny"] = {member: [value[:-2] + ("00" if value[-2:] != "00" else "01")]}
        accepted(tee.appraise())


@pytest.mark.parametrize("serial", [0x1234567890, 0x123456789])
def test_a_certificate_of_any_serial_number_can_be_denied(serial: int) -> None:
    """Numbers are written in whole octets, on lists and in evidence."""
    tee = TdxTee()
    tee.intel.pck.serial = serial
    tee.demands["deny"] = {"serials": [serial.to_bytes(5, "big").hex()]}
    refused_for(tee.appraise(), "denied")


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
    refused_for(tee.appraise(), "posture_below_policy")

"""`tpm2-quote`: register values and event logs are those that the quote is of, and no others."""

from __future__ import annotations

import base64
import json

import pytest
from simulators.event_log import EventLog
from simulators.verdicts import codes_of
from simulators.vtpm import NONCE, Vtpm, pcrs_json
from simulators.vtpm_verdicts import BANKS, MAKER, examine, measured, of_banks


@pytest.mark.parametrize("register", [0, 11, 16, 23])
def test_a_register_value_beside_the_quote_that_is_not_its_own_is_refused(register: int) -> None:
    tpm = measured()
    values = {**tpm.registers["sha256"], register: b"\1" * 32}
    evidence = tpm.evidence(pcrs=pcrs_json({"sha256": values}))
    assert codes_of(examine(evidence)) == ["pcr_digest_mismatch"]


def test_two_registers_swapped_are_refused() -> None:
    tpm = measured()
    values = dict(tpm.registers["sha256"])
    values[11], values[12] = values[12], values[11]
    evidence = tpm.evidence(pcrs=pcrs_json({"sha256": values}))
    assert codes_of(examine(evidence)) == ["pcr_digest_mismatch"]


def test_register_values_that_the_quote_does_not_select_are_refused() -> None:
    tpm = measured()
    message, signature = tpm.quote(NONCE, selected=range(11))
    evidence = tpm.evidence(quote_msg=message, quote_sig=signature)
    assert codes_of(examine(evidence)) == ["pcr_selection"]


def test_the_digest_of_another_selection_with_the_same_values_is_refused() -> None:
    """CVE-2022-0317: the digest alone does not say which registers it is of."""
    tpm = measured()
    message, signature = tpm.quote(NONCE, selected=(8, 9))
    honest = {number: tpm.registers["sha256"][number] for number in (8, 9)}
    same_digest = {10: honest[8], 12: honest[9]}
    for values, codes in ((honest, []), (same_digest, ["pcr_selection"])):
        evidence = tpm.evidence(
            quote_msg=message, quote_sig=signature, pcrs=pcrs_json({"sha256": values})
        )
        assert codes_of(examine(evidence)) == codes


def test_selected_registers_that_are_not_given_are_refused() -> None:
    tpm = measured()
    evidence = tpm.evidence(pcrs=tpm.pcrs(selected=range(23)))
    assert codes_of(examine(evidence)) == ["pcr_selection"]


def test_a_quote_without_register_values_is_refused() -> None:
    assert codes_of(examine(measured().evidence(pcrs=None))) == ["pcr_selection"]


def _asked_for_more(tpm: Vtpm, *banks: str) -> dict[str, bytes]:
    """Evidence whose quote names banks that this TPM does not keep, as `tpm2_quote` gets it."""
    message, signature = tpm.quote(NONCE, unallocated=banks)
    return tpm.evidence(quote_msg=message, quote_sig=signature)


@pytest.mark.parametrize("banks", [("sha1",), ("sha1", "sha384", "sha512")])
def test_banks_that_a_quote_names_without_registers_are_no_banks_of_it(
    banks: tuple[str, ...],
) -> None:
    tpm = measured()
    evidence = _asked_for_more(tpm, *banks)
    found = examine(evidence)
    assert codes_of(found) == []
    assert list(found.claims["quotes"]) == ["sha256"]
    assert found.claims == examine(tpm.evidence()).claims
    assert [check.detail for check in found.checks if check.step == "tpm 5 registers"] == [
        "24 registers of sha256"
    ]


def test_the_same_quote_may_come_under_its_banks_name_or_in_json() -> None:
    tpm = measured()
    evidence = _asked_for_more(tpm, "sha1")
    named = {**evidence, "quote_sha256": evidence["quote_msg"], "sig_sha256": evidence["quote_sig"]}
    del named["quote_msg"], named["quote_sig"]
    assert codes_of(examine(named)) == []
    parts = {name: evidence.pop(f"quote_{name}") for name in ("msg", "sig")}
    values = [value.hex() for value in tpm.registers["sha256"].values()]
    quote = {
        "message": base64.b64encode(parts["msg"]).decode(),
        "signature": base64.b64encode(parts["sig"]).decode(),
        "pcrs": values,
    }
    del evidence["pcrs"]
    evidence["evidence"] = json.dumps({"tpm_quote": quote}).encode()
    assert codes_of(examine(evidence)) == []


def test_a_bank_without_registers_may_stand_empty_among_the_values() -> None:
    tpm = measured()
    evidence = _asked_for_more(tpm, "sha1")
    values = {"sha1": {}, "sha256": tpm.registers["sha256"]}
    assert codes_of(examine({**evidence, "pcrs": pcrs_json(values)})) == []


def test_values_of_a_bank_that_the_quote_does_not_cover_are_nobodys() -> None:
    """Tools list every bank that a TPM keeps, whatever was quoted."""
    tpm = measured(banks=BANKS)
    for evidence in (tpm.evidence(), _asked_for_more(tpm, "sha1")):
        found = examine({**evidence, "pcrs": tpm.pcrs(BANKS)})
        assert codes_of(found) == []
        assert found.claims == examine(evidence).claims
        assert list(found.claims["quotes"]) == ["sha256"]


def test_values_of_another_bank_only_are_none() -> None:
    tpm = measured(banks=BANKS)
    found = examine(tpm.evidence(pcrs=tpm.pcrs(("sha384",))))
    assert codes_of(found) == ["pcr_selection"]
    assert found.claims["quotes"]["sha256"]["pcrs"] == {}


def test_a_quote_of_no_register_at_all_is_refused() -> None:
    tpm = measured()
    for banks in ((), ("sha1",)):
        message, signature = tpm.quote(NONCE, selected=(), unallocated=banks)
        for pcrs in (tpm.pcrs(), None):
            evidence = tpm.evidence(quote_msg=message, quote_sig=signature, pcrs=pcrs)
            assert codes_of(examine(evidence)) == ["pcr_selection"]


def test_a_bank_without_registers_in_one_quote_may_have_some_in_another() -> None:
    tpm = measured(banks=("sha1", "sha256"))
    evidence = of_banks(tpm, ("sha1", "sha256"))
    message, signature = tpm.quote(NONCE, unallocated=("sha1",))
    evidence |= {"quote_sha256": message, "sig_sha256": signature}
    assert codes_of(examine(evidence)) == []


def test_values_cut_elsewhere_that_give_the_same_digest_are_refused() -> None:
    tpm = measured()
    values = dict(tpm.registers["sha256"])
    joined = values[0] + values[1]
    values[0], values[1] = joined[:31], joined[31:]
    evidence = tpm.evidence(pcrs=pcrs_json({"sha256": values}))
    assert codes_of(examine(evidence)) == ["evidence_malformed"]


def test_a_list_of_the_first_registers_is_that_of_a_quote_of_them() -> None:
    """Some clouds' guests quote registers 0 to 14 and list no others."""
    tpm = measured()
    values = [tpm.registers["sha256"][number].hex() for number in range(15)]
    listed = json.dumps({"alg": "sha256", "pcrs": values}).encode()
    message, signature = tpm.quote(NONCE, selected=range(15))
    evidence = tpm.evidence(quote_msg=message, quote_sig=signature, pcrs=listed)
    assert examine(evidence).authentic is True
    assert codes_of(examine(tpm.evidence(pcrs=listed))) == ["pcr_selection"]


def _booted(banks: tuple[str, ...] = ("sha256",)) -> tuple[Vtpm, EventLog]:
    log = EventLog(banks)
    log.locality(3)
    for register in (0, 4, 7, 9):
        log.measure(register, b"event of %d" % register)
    tpm = Vtpm(MAKER, banks=banks)
    tpm.boot(log)
    return tpm, log


def test_a_log_that_replays_to_the_quoted_registers_is_authentic() -> None:
    examined = examine(_booted()[0].evidence())
    assert codes_of(examined) == []
    assert examined.checks[-1].step == "tpm 7 event log"
    assert examined.claims["events"] == 5


@pytest.mark.parametrize("register", [0, 4, 7, 9])
def test_a_log_of_another_boot_is_refused(register: int) -> None:
    tpm, log = _booted()
    log.measure(register, b"what was not measured")
    assert codes_of(examine(tpm.evidence())) == ["event_log_mismatch"]


def test_a_log_with_an_event_left_out_is_refused() -> None:
    tpm, log = _booted()
    log.measure(4, b"measured, and then denied")
    tpm.boot(log)
    evidence = tpm.evidence()
    log.events.pop()
    assert codes_of(examine({**evidence, "event_log": log.encode()})) == ["event_log_mismatch"]


def test_a_log_that_claims_another_startup_locality_is_refused() -> None:
    tpm, log = _booted()
    del log.events[0]
    log.started_from = 0
    assert codes_of(examine(tpm.evidence())) == ["event_log_mismatch"]


def test_a_log_that_matches_in_one_bank_only_is_refused() -> None:
    tpm, log = _booted(("sha1", "sha256"))
    evidence = of_banks(tpm, ("sha1", "sha256"))
    assert codes_of(examine(evidence)) == []
    log.events[1][2]["sha256"] = bytes(32)
    assert codes_of(examine({**evidence, "event_log": log.encode()})) == ["event_log_mismatch"]


def test_a_log_that_no_quoted_register_confirms_is_refused() -> None:
    tpm = measured()
    for log in (EventLog(("sha384",)), EventLog(("sha256",))):
        if log.banks == ("sha384",):
            log.measure(4, b"in a bank that is not quoted")
        evidence = tpm.evidence(event_log=log.encode())
        assert codes_of(examine(evidence)) == ["event_log_mismatch"]

"""Intel's steps by themselves: behind a second verifier, a step that says nothing is not missed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from simulators.intel import Intel
from simulators.intel_parsed import Parsed
from simulators.intel_parts import DAY, Certificate, key, pem, raw_sign

from attestation.formats.dcap_bodies import TdReport
from attestation.formats.pck import parse_chain
from attestation.verify import intel_collateral as statements
from attestation.verify.dcap_quote import check_signature, verify_quoting_enclave
from attestation.verify.intel_tcb import converge, evaluate
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Callable


def refused(step: Callable[[], object], code: str) -> None:
    with pytest.raises(AttestationError) as caught:
        step()
    assert caught.value.reasons == (code,)


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed.of(Intel())


# ---- statements


def test_statements_hold_from_their_first_to_their_last_second(parsed: Parsed) -> None:
    """The first is earlier by what two honest clocks may differ."""
    info, identity = parsed.info, parsed.identity
    for now in (info.issued - CLOCK_SKEW_S, info.issued, info.expires):
        assert statements.check_statement_dates(info, identity, now) == info.expires
    earlier = replace(identity, expires=info.expires - 1)
    assert statements.check_statement_dates(info, earlier, info.issued) == info.expires - 1


@pytest.mark.parametrize("which", ["info", "identity"])
def test_each_statement_is_refused_a_second_outside_its_time(parsed: Parsed, which: str) -> None:
    now = parsed.intel.now
    for change, code in (
        ({"issued": now + CLOCK_SKEW_S + 1}, "collateral_not_yet_valid"),
        ({"expires": now - 1}, "collateral_expired"),
    ):
        both = {"info": parsed.info, "identity": parsed.identity}
        both[which] = replace(both[which], **change)
        refused(lambda both=both: statements.check_statement_dates(now=now, **both), code)


@pytest.mark.parametrize("change", [{"id": "SGX"}, {"fmspc": bytes(6)}, {"pceid": b"\1\0"}])
def test_tcb_info_of_something_else_does_not_match(
    parsed: Parsed, change: dict[str, object]
) -> None:
    other = replace(parsed, info=replace(parsed.info, **change))
    refused(other.match, "collateral_fmspc_mismatch")


def test_an_identity_of_the_other_quoting_enclave_does_not_match(parsed: Parsed) -> None:
    other = replace(parsed, identity=replace(parsed.identity, id="QE"))
    refused(other.match, "qe_identity_wrong_type")


def test_the_first_of_the_two_lists_to_end_is_told() -> None:
    intel = Intel()
    later = Intel()
    later.crl_window = (-DAY, 60 * DAY)
    intel.edits["pck_crl"] = lambda _: later.crl(later.platform_ca, [])
    found = Parsed.of(intel).collateral
    assert statements.check_list_dates(found, intel.now) == intel.now + 30 * DAY


def test_the_first_of_the_two_signers_to_end_is_told() -> None:
    intel, longer = Intel(), Intel()
    intel.tcb_signer.end = 40 * DAY
    longer.tcb_signer.end = 50 * DAY
    first, second = Parsed.of(intel).collateral, Parsed.of(longer).collateral
    both = replace(first, qe_chain=second.qe_chain)
    assert statements.check_signers(both, intel.now) == intel.now + 40 * DAY


# ---- signatures


def test_a_signature_over_other_bytes_does_not_verify() -> None:
    signer = Intel().attestation_key
    public, signature = signer.public_key(), raw_sign(signer, b"signed")
    check_signature(public, signature, b"signed", "quote")
    refused(lambda: check_signature(public, signature, b"other", "quote"), "signature_invalid")


@pytest.mark.parametrize("which", ["tcb_info_signature", "qe_identity_signature"])
def test_each_statements_signature_is_verified(parsed: Parsed, which: str) -> None:
    root, now = parsed.intel.root_der(), parsed.intel.now
    statements.verify_signatures(parsed.collateral, root, now)
    honest: bytes = getattr(parsed.collateral, which)
    broken = replace(parsed.collateral, **{which: honest[:-1] + bytes([honest[-1] ^ 1])})
    refused(lambda: statements.verify_signatures(broken, root, now), "signature_invalid")


# ---- levels


@pytest.mark.parametrize("where", ["platform", "qe"])
def test_a_revoked_level_is_refused(parsed: Parsed, where: str) -> None:
    newest, *older = parsed.info.levels if where == "platform" else parsed.identity.levels
    levels = (replace(newest, status="Revoked"), *older)
    if where == "platform":
        other = replace(parsed, info=replace(parsed.info, levels=levels))
    else:
        other = replace(parsed, identity=replace(parsed.identity, levels=levels))
    refused(other.evaluate, "tcb_revoked")


def with_td(parsed: Parsed, **change: object) -> Parsed:
    assert isinstance(parsed.quote.body, TdReport)
    return replace(parsed, quote=replace(parsed.quote, body=replace(parsed.quote.body, **change)))


def test_a_module_by_another_signer_is_refused(parsed: Parsed) -> None:
    refused(with_td(parsed, mr_signer_seam=b"\1" * 48).evaluate, "tdx_module_mismatch")


def test_a_module_with_another_attribute_is_refused(parsed: Parsed) -> None:
    refused(with_td(parsed, seam_attributes=b"\1" + bytes(7)).evaluate, "tdx_module_mismatch")


def test_a_module_attribute_without_agreed_meaning_is_refused_and_a_known_one_is_not(
    parsed: Parsed,
) -> None:
    (module,) = parsed.info.modules
    known = replace(module, attributes=b"\1" + bytes(7), mask=b"\x0f" + bytes(7))
    agreed = replace(parsed, info=replace(parsed.info, modules=(known,)))
    assert with_td(agreed, seam_attributes=b"\1" + bytes(7)).evaluate() == "UpToDate"
    refused(with_td(agreed, seam_attributes=b"\x11" + bytes(7)).evaluate, "tdx_module_mismatch")


def test_a_level_is_outdated_since_the_first_newer_one(parsed: Parsed) -> None:
    newest, older = parsed.info.levels
    day = newest.since
    levels = (
        replace(newest, since=day, svn=15),
        replace(newest, since=day - 100, svn=14),
        replace(older, since=day - 200, svn=13),
    )
    other = replace(parsed, info=replace(parsed.info, levels=levels))
    verdict = evaluate(other.quote, other.pck, other.info, other.identity)
    assert verdict.outdated_since == day - 100


@pytest.mark.parametrize("status", ["ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"])
def test_out_of_date_and_in_need_of_configuration_are_both_told(status: str) -> None:
    assert converge("OutOfDate", status) == "OutOfDateConfigurationNeeded"
    assert converge(status, "OutOfDate") == "OutOfDateConfigurationNeeded"


def test_a_modules_own_number_is_judged_by_its_own_levels(parsed: Parsed) -> None:
    newest, older = parsed.info.levels
    assert isinstance(parsed.quote.body, TdReport)
    assert parsed.quote.body.tee_tcb_svn[1] == 1, "a module that has levels of its own"
    levels = (replace(newest, tdx_components=(255, 255, *newest.tdx_components[2:])), older)
    other = replace(parsed, info=replace(parsed.info, levels=levels))
    assert other.evaluate() == "UpToDate"


def test_the_lower_of_the_two_evaluation_numbers_is_told(parsed: Parsed) -> None:
    for info, identity in ((17, 18), (18, 17)):
        verdict = evaluate(
            parsed.quote,
            parsed.pck,
            replace(parsed.info, eval_number=info),
            replace(parsed.identity, eval_number=identity),
        )
        assert verdict.eval_number == 17


@pytest.mark.parametrize(
    "change",
    [
        {"attributes": b"\x01" + bytes(15)},
        {"attributes": b"\x11\x01" + bytes(14)},
        {"miscselect": b"\x01" + bytes(3)},
        {"mrsigner": bytes(32)},
        {"isvprodid": 9},
    ],
    ids=["attribute off", "attribute on", "miscselect", "signer", "product"],
)
def test_a_quoting_enclave_unlike_its_description_is_refused(
    parsed: Parsed, change: dict[str, object]
) -> None:
    report = replace(parsed.quote.qe_report, **change)
    other = replace(parsed, quote=replace(parsed.quote, qe_report=report))
    refused(other.evaluate, "qe_identity_mismatch")


def test_an_attribute_that_the_mask_leaves_free_is_no_difference(parsed: Parsed) -> None:
    report = replace(parsed.quote.qe_report, attributes=b"\x11" + bytes(14) + b"\1")
    other = replace(parsed, quote=replace(parsed.quote, qe_report=report))
    assert other.evaluate() == "UpToDate"


@pytest.mark.parametrize("svn", [11, 3])
def test_what_runs_now_is_judged_by_its_module_too(svn: int) -> None:
    """Launched out of date; now the platform is up to date, and its module is or is not."""
    parsed = Parsed.of(Intel(version=5))
    launched, now = bytes([3, 1, 3]) + bytes(13), bytes([svn, 1, 4]) + bytes(13)
    other = with_td(parsed, tee_tcb_svn=launched, tee_tcb_svn2=now)
    assert other.evaluate() == ("TDRelaunchAdvised" if svn == 11 else "OutOfDate")


@pytest.mark.parametrize(
    ("change", "code"),
    [({"module": None}, "tdx_module_mismatch"), ({"modules": ()}, "tdx_module_mismatch")],
    ids=["no module", "not this one"],
)
def test_a_module_that_intel_does_not_describe_is_refused(
    parsed: Parsed, change: dict[str, object], code: str
) -> None:
    refused(replace(parsed, info=replace(parsed.info, **change)).evaluate, code)


def test_a_level_without_tdx_components_says_nothing_of_a_td(parsed: Parsed) -> None:
    levels = tuple(replace(level, tdx_components=()) for level in parsed.info.levels)
    other = replace(parsed, info=replace(parsed.info, levels=levels))
    refused(other.evaluate, "tcb_level_not_found")


def test_a_td_that_runs_on_a_revoked_level_now_is_refused() -> None:
    parsed = Parsed.of(Intel(version=5))
    newest, older = parsed.info.levels
    levels = (newest, replace(older, status="Revoked"))
    revoked_now = replace(parsed, info=replace(parsed.info, levels=levels))
    now = bytes([3, 1, 3]) + bytes(13)
    refused(with_td(revoked_now, tee_tcb_svn2=now).evaluate, "tcb_revoked")


def test_a_pck_on_another_curve_vouches_for_nothing(parsed: Parsed) -> None:
    intel = Intel()
    intel.pck.key = ec.generate_private_key(ec.SECP384R1())
    certificate = load_certificate(intel.pck.der(intel.now))
    refused(lambda: verify_quoting_enclave(parsed.quote, certificate), "chain_invalid")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"qe_vendor_id": bytes(16)}, "qe_vendor_unknown"),
        ({"qe_signature": bytes(63) + b"\1"}, "signature_invalid"),
        ({"qe_auth": b"other"}, "attestation_key_not_bound"),
    ],
)
def test_each_link_from_pck_to_attestation_key_counts(
    parsed: Parsed, change: dict[str, object], code: str
) -> None:
    pck = parsed.pck.certificate
    assert verify_quoting_enclave(parsed.quote, pck) == "ISVSVN 8"
    refused(lambda: verify_quoting_enclave(replace(parsed.quote, **change), pck), code)


def test_a_first_module_is_judged_by_the_platforms_levels_whole(parsed: Parsed) -> None:
    older = with_td(parsed, tee_tcb_svn=bytes([10, 0, 4]) + bytes(13))
    assert older.evaluate() == "OutOfDate"
    newest = with_td(parsed, tee_tcb_svn=bytes([11, 0, 4]) + bytes(13))
    assert newest.evaluate() == "UpToDate"


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_outside_the_mask_of_a_modules_attributes_may_be_set(
    parsed: Parsed, bit: int
) -> None:
    (module,) = parsed.info.modules
    masked = replace(module, mask=bytes([0xFF & ~(1 << bit)]) + module.mask[1:])
    other = replace(parsed, info=replace(parsed.info, modules=(masked,)))
    refused(
        with_td(other, seam_attributes=bytes([1 << bit]) + bytes(7)).evaluate, "tdx_module_mismatch"
    )


def with_pck_issuer(parsed: Parsed, ca: Certificate) -> Parsed:
    """The PCK's list comes from this CA, of the same root."""
    chain = pem(ca.der(parsed.intel.now), parsed.intel.root_der())
    collateral = replace(parsed.collateral, pck_chain=parse_chain(chain, "PCK CRL chain"))
    return replace(parsed, collateral=collateral)


def test_a_ca_whose_certificate_was_issued_again_is_still_the_pcks(parsed: Parsed) -> None:
    again = with_pck_issuer(parsed, parsed.intel.platform_ca)
    assert again.collateral.pck_chain.ders[0] not in parsed.chain.ders
    assert again.match()


def test_a_list_of_a_ca_of_another_name_is_not_the_pcks(parsed: Parsed) -> None:
    other = Certificate("Intel SGX PCK Processor CA", key(), parsed.intel.root, serial=15)
    refused(with_pck_issuer(parsed, other).match, "chain_invalid")


def test_a_list_of_a_ca_of_the_same_name_under_another_root_is_not_the_pcks(
    parsed: Parsed,
) -> None:
    refused(with_pck_issuer(parsed, Intel().platform_ca).match, "chain_invalid")


def test_an_issuer_chain_with_one_more_link_to_the_root_is_refused(parsed: Parsed) -> None:
    more = replace(parsed.collateral, tcb_chain=parsed.collateral.pck_chain)
    longer = replace(more.tcb_chain, ders=(*more.tcb_chain.ders, parsed.chain.ders[0]))
    refused(replace(parsed, collateral=replace(more, tcb_chain=longer)).match, "chain_invalid")


def test_a_relaunch_into_a_platform_in_need_of_configuration_is_told_as_that() -> None:
    parsed = Parsed.of(Intel(version=5))
    newest, older = parsed.info.levels
    levels = (replace(newest, status="ConfigurationNeeded"), older)
    other = replace(parsed, info=replace(parsed.info, levels=levels))
    launched = with_td(other, tee_tcb_svn=bytes([3, 1, 3]) + bytes(13))
    assert launched.evaluate() == "TDRelaunchAdvisedConfigurationNeeded"


def test_a_first_module_by_another_signer_is_refused(parsed: Parsed) -> None:
    first = with_td(parsed, tee_tcb_svn=bytes([11, 0, 4]) + bytes(13))
    refused(with_td(first, mr_signer_seam=b"\1" * 48).evaluate, "tdx_module_mismatch")


def test_the_two_statements_may_have_signers_of_their_own(parsed: Parsed) -> None:
    intel, now = parsed.intel, parsed.intel.now
    other = Certificate("Intel SGX TCB Signing", key(), intel.root, ca=False, serial=16)
    chain = parse_chain(pem(other.der(now), intel.root_der()), "QE identity chain")
    mixed = replace(
        parsed.collateral,
        qe_chain=chain,
        qe_identity_signature=raw_sign(other.key, parsed.collateral.qe_identity),
    )
    statements.verify_signatures(mixed, intel.root_der(), now)
    wrong = replace(mixed, qe_chain=parsed.collateral.qe_chain)
    refused(lambda: statements.verify_signatures(wrong, intel.root_der(), now), "signature_invalid")


def test_an_rsa_pck_vouches_for_nothing(parsed: Parsed) -> None:
    intel = Intel()
    intel.pck.key = rsa.generate_private_key(65_537, 2048)
    certificate = load_certificate(intel.pck.der(intel.now))
    refused(lambda: verify_quoting_enclave(parsed.quote, certificate), "chain_invalid")


def test_the_first_of_what_is_outdated_counts(parsed: Parsed) -> None:
    newest, older = parsed.info.levels
    first, second = parsed.identity.levels
    platform = (replace(newest, svn=15, since=2000), replace(older, svn=13, since=1000))
    enclave = (replace(first, svn=9, since=1500), replace(second, svn=8, since=1000))
    other = evaluate(
        parsed.quote,
        parsed.pck,
        replace(parsed.info, levels=platform),
        replace(parsed.identity, levels=enclave),
    )
    assert other.outdated_since == 1500

"""`tpm2-quote`: genuine quotes for the nonce are accepted, and nothing is bound by any other."""

from __future__ import annotations

import hashlib

from simulators.verdicts import codes_of
from simulators.vtpm import NONCE, NOW
from simulators.vtpm_verdicts import MAKER, examine, measured, of_banks

from attestation.anchors import NONE, Anchors
from attestation.examined import FOREVER, Expected
from attestation.schemes.tpm_quote import SCHEME

YEAR = 365 * 24 * 3600


def test_a_certified_quote_for_the_nonce_is_authentic_and_bound() -> None:
    examined = examine(measured().evidence())
    assert (examined.authentic, examined.reasons, examined.bound) == (True, (), True)
    assert all(check.ok for check in examined.checks)
    assert [check.step.split()[1] for check in examined.checks] == ["1", "2", "3", "4", "5", "6"]
    assert examined.not_after == NOW + YEAR
    fingerprint = hashlib.sha256(measured().spki).hexdigest()
    assert examined.identities == (f"key:{fingerprint}",)


def test_quotes_of_several_banks_are_all_verified() -> None:
    tpm = measured(banks=("sha1", "sha256", "sha384"))
    assert codes_of(examine(of_banks(tpm))) == []
    for bank in ("sha1", "sha256", "sha384"):
        evidence = of_banks(tpm)
        evidence[f"sig_{bank}"] = evidence["sig_sha1" if bank != "sha1" else "sig_sha256"]
        assert codes_of(examine(evidence)) == ["signature_invalid"]


def test_without_a_demand_nothing_is_bound() -> None:
    examined = examine(measured().evidence(), expected=Expected())
    assert (examined.authentic, examined.bound) == (True, False)


def test_a_key_trusted_beforehand_needs_no_certificate() -> None:
    tpm = measured()
    examined = examine(tpm.evidence(ak_cert=None), anchors=NONE, collateral={"ak_spki": tpm.spki})
    assert codes_of(examined) == []
    assert examined.not_after == FOREVER


def test_a_quote_for_another_nonce_is_refused() -> None:
    examined = examine(measured().evidence(hashlib.sha256(b"another").digest()))
    assert (codes_of(examined), examined.bound) == (["nonce_mismatch"], False)


def test_a_quote_without_a_nonce_answers_no_nonce() -> None:
    for expected in (Expected(nonce=NONCE), Expected(nonce=b"")):
        assert codes_of(examine(measured().evidence(b""), expected=expected)) == ["nonce_mismatch"]


def test_a_quote_without_a_nonce_is_genuine_and_bound_to_nothing() -> None:
    examined = examine(measured().evidence(b""), expected=Expected())
    assert (examined.authentic, examined.bound) == (True, False)
    assert examined.claims["extra_data"] == ""


def test_the_beginning_of_the_nonce_is_not_the_nonce() -> None:
    for nonce in (NONCE[:31], NONCE + b"\0"):
        assert codes_of(examine(measured().evidence(nonce))) == ["nonce_mismatch"]


def test_one_quote_for_the_nonce_does_not_vouch_for_another_without() -> None:
    tpm = measured(banks=("sha1", "sha256", "sha384"))
    evidence = of_banks(tpm)
    message, signature = tpm.quote(b"an older nonce", "sha384")
    evidence.update({"quote_sha384": message, "sig_sha384": signature})
    assert codes_of(examine(evidence)) == ["nonce_mismatch"]


def test_report_data_cannot_be_demanded_without_a_nonce() -> None:
    examined = examine(measured().evidence(), expected=Expected(report_data=bytes(64)))
    assert (codes_of(examined), examined.bound) == (["report_data_mismatch"], False)


def test_the_policys_root_is_not_called_a_simulators() -> None:
    assert SCHEME.trust == "vtpm"
    assert Anchors(MAKER.anchors.pins).simulated is False
    assert SCHEME.needs(measured().evidence()) == ()

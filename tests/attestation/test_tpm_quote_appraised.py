"""Workers with a TPM that a policy's own roots or lists vouch for: who is trusted, the policy says.

Nothing that travels with the evidence may choose its judge, the collateral neither.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from simulators.hardware_tee import AzureSnpTee, HardwareTee, QuoteTee, SnpTee, pem
from simulators.tee import NOW, refused
from simulators.vtpm import Vtpm, VtpmMaker, ec_key

from attestation.binding import report32
from attestation.policy import parse_policy
from attestation.result import AppraisedEvidence, Refused
from client.policy_words import explain
from wire.errors import PolicyError


def accepted(verdict: AppraisedEvidence | Refused) -> AppraisedEvidence:
    assert isinstance(verdict, AppraisedEvidence), verdict
    return verdict


def listing(tee: QuoteTee) -> QuoteTee:
    """The same worker under a policy that lists its key instead of a root."""
    del tee.rule["roots"]
    tee.rule["aks"] = [hashlib.sha256(tee.tpm.spki).hexdigest()]
    return tee


# ---------------------------------------------------------------- roots of the policy


def test_a_live_quote_under_the_policys_root_is_accepted_with_no_collateral() -> None:
    tee = QuoteTee()
    assert tee.collateral() == {tee.kind: {}}
    verdict = accepted(tee.appraise())
    assert (verdict.kind, verdict.trust) == ("tpm2-quote", "vtpm")


@pytest.mark.parametrize("chain", ["der", "pem", "with its root"])
def test_links_count_in_each_form(chain: str) -> None:
    tee = QuoteTee()
    text = pem(tee.maker.issuer) + (pem(tee.maker.root) if chain == "with its root" else "")
    tee.roles["ak_chain"] = tee.maker.issuer if chain == "der" else text.encode()
    accepted(tee.appraise())


@pytest.mark.parametrize("place", [0, 1, 15])
def test_one_of_several_roots_is_enough(place: int) -> None:
    tee = QuoteTee()
    others = [VtpmMaker(f"maker {number}", NOW).root for number in range(15)]
    others.insert(place, tee.maker.root)
    tee.rule["roots"] = [pem(der) for der in others]
    accepted(tee.appraise())


def test_lists_of_the_right_one_of_two_roots_of_one_name_are_enforced() -> None:
    tee = QuoteTee()
    tee.rule |= {"roots": [pem(VtpmMaker("older", NOW).root), pem(tee.maker.root)]}
    tee.rule["revocation"] = "required"
    tee.statements = {"crl_intermediate": tee.maker.crl(), "crl_root": tee.maker.crl("root")}
    accepted(tee.appraise())
    tee.statements["crl_intermediate"] = tee.maker.crl(revoked=[0x1001])
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert verdict.codes[0] == "revoked"


def test_revocation_is_demanded_unless_the_rule_says_otherwise() -> None:
    tee = QuoteTee()
    del tee.rule["revocation"]
    refused(tee.appraise(), "revocation_not_checked")


def test_a_root_of_the_same_name_in_the_policy_vouches_for_nothing() -> None:
    tee = QuoteTee()
    tee.rule["roots"] = [pem(VtpmMaker("look-alike", NOW).root)]
    refused(tee.appraise(), "untrusted_root")


@pytest.mark.parametrize("way", ["collateral", "links"])
def test_a_root_that_travels_is_no_anchor(way: str) -> None:
    tee = QuoteTee()
    tee.rule["roots"] = [pem(VtpmMaker("look-alike", NOW).root)]
    if way == "collateral":  # as whoever carries the evidence could send it
        tee.statements = tee.maker.collateral()
    else:
        tee.roles["ak_chain"] = (pem(tee.maker.issuer) + pem(tee.maker.root)).encode()
    refused(tee.appraise(), "untrusted_root")


def test_links_that_are_no_certificates_are_malformed() -> None:
    tee = QuoteTee()
    tee.roles["ak_chain"] = b"no certificate"
    refused(tee.appraise(), "evidence_malformed")


def test_a_quote_for_another_binding_is_refused() -> None:
    tee, other = QuoteTee(), QuoteTee()
    other.facts["epoch"] = 1
    verdict = tee.appraise(evidence=[other.evidence(other.binding())])
    refused(verdict, "nonce_mismatch")


# ---------------------------------------------------------------- keys that a policy lists


@pytest.mark.parametrize("certificate", [True, False])
def test_a_listed_key_that_the_evidence_shows_is_trusted(certificate: bool) -> None:
    tee = listing(QuoteTee())
    if not certificate:
        tee.roles |= {"ak_cert": None, "ak_chain": None}
    assert accepted(tee.appraise()).trust == "vtpm"


def test_a_key_that_is_not_listed_is_refused() -> None:
    tee = listing(QuoteTee())
    tee.put(Vtpm(tee.maker, ec_key("a stranger's")))
    refused(tee.appraise(), "ak_not_accepted")


def test_evidence_that_shows_no_key_is_refused() -> None:
    tee = listing(QuoteTee())
    tee.roles |= {"ak_public": None, "ak_cert": None}
    refused(tee.appraise(), "unknown_signing_key")


def test_showing_a_listed_key_does_not_vouch_for_another_ones_signature() -> None:
    tee = listing(QuoteTee())
    honest = tee.tpm.evidence(report32(tee.binding()))["ak_public"]
    tee.put(Vtpm(tee.maker, ec_key("a stranger's")))
    tee.roles["ak_public"] = honest
    refused(tee.appraise(), "signature_invalid")


def test_a_listed_key_that_signs_more_than_its_tpm_made_is_refused() -> None:
    tee = listing(QuoteTee())
    tee.put(Vtpm(tee.maker, tee.tpm.key, attributes=tee.tpm.attributes & ~(1 << 16)))
    refused(tee.appraise(), "ak_attributes")


def test_a_key_that_travels_beside_the_evidence_is_not_thereby_trusted() -> None:
    tee = listing(QuoteTee())
    stranger = Vtpm(tee.maker, ec_key("a stranger's"))
    tee.put(stranger)
    tee.roles |= {"ak_cert": None, "ak_chain": None}
    for lie in ({"ak_spki": stranger.spki}, {"aks": hashlib.sha256(stranger.spki).digest()}):
        tee.statements = lie
        refused(tee.appraise(), "ak_not_accepted")


def test_a_policy_with_roots_takes_no_key_that_nobody_certified_or_listed() -> None:
    tee = QuoteTee()
    tee.rule["aks"] = "as_supplied"
    tee.roles |= {"ak_cert": None, "ak_chain": None}
    tee.statements = {"ak_spki": tee.tpm.spki}
    refused(tee.appraise(), "collateral_missing")


@pytest.mark.parametrize("aks", [None, [], "as_supplied"])
def test_a_policy_must_name_roots_or_keys(aks: Any) -> None:
    tee = listing(QuoteTee())
    tee.rule["aks"] = aks
    if aks is None:
        del tee.rule["aks"]
    with pytest.raises(PolicyError, match="roots"):
        tee.policy()


# ---------------------------------------------------------------- simulators, said to be


@pytest.mark.parametrize("make", [QuoteTee, lambda: listing(QuoteTee())])
def test_a_policy_may_say_that_its_root_is_a_simulators(make: Any) -> None:
    tee = make()
    tee.rule["simulated"] = True
    refused(tee.appraise(), "simulated_not_allowed")
    tee.demands["allow_simulated"] = True
    assert accepted(tee.appraise()).trust == "simulated"
    words = [line for _, lines in explain(tee.policy()) for line in lines]
    assert ("roots", "the policy's own roots: SIMULATED") in words


@pytest.mark.parametrize("make", [QuoteTee, lambda: listing(QuoteTee())])
def test_a_policy_must_say_whether_they_are_simulators(make: Any) -> None:
    """Only the policy knows, and silence would call a simulator's quotes more than simulated."""
    tee = make()
    assert accepted(tee.appraise()).trust == "vtpm"
    del tee.rule["simulated"]
    with pytest.raises(PolicyError, match="simulated: found nothing, expected true where"):
        tee.policy()


@pytest.mark.parametrize("make", [SnpTee, AzureSnpTee])
def test_roots_of_the_policys_own_cannot_be_called_a_vendors(make: type[HardwareTee]) -> None:
    tee = make()
    tee.rule["simulated"] = True
    assert accepted(tee.appraise()).trust == "simulated"
    tee.rule["simulated"] = False
    with pytest.raises(PolicyError, match="simulated: found false, expected true"):
        tee.policy()
    del tee.rule["roots"]
    tee.policy()
    tee.rule["simulated"] = True
    with pytest.raises(PolicyError, match="simulated: found true, expected false"):
        tee.policy()


@pytest.mark.parametrize("value", ["true", 1, None])
def test_the_word_is_a_truth_value(value: Any) -> None:
    tee = QuoteTee()
    tee.rule["simulated"] = value
    with pytest.raises(PolicyError, match="simulated"):
        parse_policy(json.dumps(tee.demands).encode())

"""A TPM made of software, shown as the worker's: no way in which its key travels makes it trusted.

Whoever carries evidence to a client (a gateway, a proxy) also carries the collateral beside it, and
can put there whatever a role may hold. Each test builds such a showing with real signatures.
"""

from __future__ import annotations

import hashlib
import json

import pytest
from simulators.hardware_tee import QuoteTee
from simulators.tee import NOW
from simulators.vtpm import Vtpm, VtpmMaker, ec_key

from attestation.carried import collateral_json, parse_collateral
from attestation.result import AppraisedEvidence, Refused

EVIL = VtpmMaker("a stranger's", NOW)
KEY = ec_key("a key in a process of the stranger's")
#: What the stranger's software TPM leaves out of its evidence.
SHOWN = [("ak_cert", "ak_public"), ("ak_cert",), ("ak_public",), ()]
#: What travels beside it.
BESIDE = ["the key", "its digest as a list", "the stranger's chain", "nothing"]


def beside(tpm: Vtpm, what: str) -> dict[str, bytes]:
    return {
        "the key": {"ak_spki": tpm.spki},
        "its digest as a list": {"aks": hashlib.sha256(tpm.spki).digest()},
        "the stranger's chain": {"root": EVIL.root, "intermediate": EVIL.issuer},
        "nothing": {},
    }[what]


def forged(tee: QuoteTee, left_out: tuple[str, ...]) -> Vtpm:
    """The worker's evidence as the stranger's key signs it, certified by the stranger."""
    tpm = Vtpm(EVIL, KEY, cert=EVIL.certify(KEY))
    tee.put(tpm)
    tee.roles |= {"ak_chain": EVIL.issuer, **dict.fromkeys(left_out)}
    return tpm


def listing(roots: bool) -> QuoteTee:
    """A worker under a policy that lists its key, and names its maker's root or does not."""
    tee = QuoteTee()
    tee.rule["aks"] = [hashlib.sha256(tee.tpm.spki).hexdigest()]
    if not roots:
        del tee.rule["roots"]
    return tee


@pytest.mark.parametrize("roots", [True, False], ids=["roots and a list", "a list alone"])
@pytest.mark.parametrize("left_out", SHOWN)
@pytest.mark.parametrize("what", BESIDE)
def test_a_key_that_is_not_listed_is_refused_however_it_travels(
    roots: bool, left_out: tuple[str, ...], what: str
) -> None:
    assert isinstance(listing(roots).appraise(), AppraisedEvidence)
    tee = listing(roots)
    tpm = forged(tee, left_out)
    tee.statements |= beside(tpm, what)
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert set(verdict.codes) <= {"ak_not_accepted", "unknown_signing_key", "untrusted_root"}


@pytest.mark.parametrize("aks", [None, "as_supplied"])
@pytest.mark.parametrize("left_out", SHOWN)
def test_a_key_out_of_a_gateways_document_vouches_for_no_quote_whatever_the_rule_says_of_lists(
    aks: str | None, left_out: tuple[str, ...]
) -> None:
    tee = QuoteTee()
    if aks is not None:
        tee.rule["aks"] = aks
    tpm = forged(tee, left_out)
    # As the client takes it out of `GET /v1/keys/{bh}`.
    served = collateral_json({tee.kind: {"ak_spki": tpm.spki, **EVIL.collateral()}})
    verdict = tee.appraise(collateral=parse_collateral(json.loads(json.dumps(served))))
    assert isinstance(verdict, Refused)
    assert set(verdict.codes) <= {"collateral_missing", "untrusted_root"}


def test_a_root_of_the_policys_own_is_called_a_simulators_or_a_makers_by_the_policy_alone() -> None:
    tee = QuoteTee()
    tee.rule["simulated"] = True
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert "simulated_not_allowed" in verdict.codes

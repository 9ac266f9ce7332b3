"""Intel's chains with a root, a link or a signer more or less, and what a module adds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from simulators.intel import SIGNER, Intel
from simulators.intel_parsed import Parsed
from simulators.intel_parts import Certificate, key, pem, raw_sign
from simulators.intel_verdicts import NO_OPINION

from attestation.anchors import Anchors
from attestation.formats.pck import parse_chain
from attestation.schemes import tdx
from attestation.verify.dcap_quote import verify_pck_chain
from wire.errors import AttestationError

if TYPE_CHECKING:
    from attestation.examined import Examined


@pytest.fixture(scope="module")
def beside() -> bytes:
    """The root of another vendor's platforms."""
    other = Intel()
    other.root.cn = "Another Root CA"
    return other.root_der()


def examined(intel: Intel, beside: bytes, **members: str) -> Examined:
    """With two pinned roots at hand, the platform's own before the other."""
    roots = (intel.root_der(), beside)
    pins = frozenset(hashlib.sha256(der).digest() for der in roots)
    question = intel.question(collateral=intel.collateral(**members), root=pem(*roots))
    return tdx.examine(replace(question, anchors=Anchors(pins, simulated=True)))


def codes(found: Examined) -> set[str]:
    return {reason.code for reason in found.reasons}


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
def test_another_pinned_root_at_hand_changes_nothing(
    beside: bytes, attributes: bytes | None
) -> None:
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    found = examined(intel, beside)
    assert codes(found) == set()
    assert found.authentic is True


def test_first_of_two_pinned_roots_ends_a_chain_that_leaves_its_own_out(beside: bytes) -> None:
    intel = Intel()
    chain = parse_chain(intel.pck_chain(), "chain")
    chain = replace(chain, ders=chain.ders[:2])
    roots = (intel.root_der(), beside)
    assert verify_pck_chain(chain, roots, intel.now).root == intel.root_der()


def test_list_of_a_ca_issued_again_needs_one_of_two_pinned_roots(beside: bytes) -> None:
    intel = Intel()
    ca = replace(intel.platform_ca, serial=77)
    again = pem(ca.der(intel.now), intel.root_der()).decode()
    assert codes(examined(intel, beside, pck_crl_issuer_chain=again)) == set()


@pytest.mark.parametrize("which", ["tcb_chain", "qe_chain", "pck_chain"])
@pytest.mark.parametrize("rooted", [True, False])
def test_issuer_chain_goes_to_the_root_in_one_link(which: str, rooted: bool) -> None:
    """Also where a certificate that is no root stands right behind the first."""
    told = Parsed.of(Intel())
    told.match()
    chain = getattr(told.collateral, which)
    first, *rest = chain.ders
    between = told.chain.ders[1]  # the PCKs' CA
    longer = replace(chain, ders=(first, between, *(rest if rooted else ())))
    collateral = replace(told.collateral, **{which: longer})
    with pytest.raises(AttestationError) as caught:
        replace(told, collateral=collateral).match()
    assert caught.value.reasons == ("chain_invalid",)


def test_one_part_of_the_collateral_alone_is_not_none() -> None:
    intel = Intel()
    for role, part in intel.roles().items():
        found = tdx.examine(replace(intel.question(), collateral={role: part}))
        assert "collateral_malformed" in codes(found)
        assert "collateral_missing" not in codes(found)
    assert codes(tdx.examine(replace(intel.question(), collateral={}))) == {"collateral_missing"}
    alone = {"collateral": json.dumps(intel.members()).encode()}
    assert codes(tdx.examine(replace(intel.question(), collateral=alone))) == set()


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
def test_statements_may_have_a_signer_each(attributes: bytes | None) -> None:
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    second = Certificate(SIGNER, key(), intel.root, ca=False, serial=21)
    members = intel.members()
    told = intel.collateral(
        qe_identity_issuer_chain=pem(second.der(intel.now), intel.root_der()).decode(),
        qe_identity_signature=raw_sign(second.key, members["qe_identity"].encode()).hex(),
    )
    assert codes(tdx.examine(intel.question(collateral=told))) == set()


def test_what_a_module_is_open_to_is_told_and_since_when_it_has_a_newer_level() -> None:
    told = Parsed.of(Intel())
    platform, module = told.info.levels[:1], told.info.modules[0]
    newest, older = module.levels
    old = replace(older, svn=newest.svn, advisories=("INTEL-SA-1",), status="OutOfDate")
    newer = replace(newest, svn=newest.svn + 1)
    modules = (replace(module, levels=(newer, old)),)
    other = replace(told, info=replace(told.info, levels=platform, modules=modules))
    verdict = other.verdict()
    assert (verdict.status, verdict.module) == ("OutOfDate", "OutOfDate")
    assert verdict.advisories == ("INTEL-SA-1",)
    assert verdict.outdated_since == newest.since
    assert told.verdict().outdated_since is None


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
def test_list_with_an_entry_whose_extension_does_not_parse_is_refused(
    attributes: bytes | None,
) -> None:
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    broken = x509.UnrecognizedExtension(x509.CRLReason.oid, b"\x30\x00")
    crl = intel.crl(intel.platform_ca, [99], entry=((broken, False),))
    intel.edits["pck_crl"] = lambda _: crl
    found = tdx.examine(intel.question())
    assert found.authentic is False
    assert codes(found) == {"crl_invalid"}


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
def test_ca_with_an_extension_that_does_not_parse_is_refused(attributes: bytes | None) -> None:
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    broken = x509.UnrecognizedExtension(x509.TLSFeature.oid, b"\x05\x00")
    intel.platform_ca.more = ((broken, False),)
    found = tdx.examine(intel.question())
    assert found.authentic is False
    assert ("tdx 7 chain", "chain_invalid") in {(one.step, one.code) for one in found.reasons}

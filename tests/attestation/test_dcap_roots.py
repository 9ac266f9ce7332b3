"""Which pinned root a PCK chain is tried under first, and by whom a quote is verified."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulators.intel import Intel
from simulators.intel_parsed import Parsed
from simulators.intel_parts import DAY
from simulators.intel_verdicts import NO_OPINION

from attestation.formats.pck import Chain
from attestation.schemes import tdx
from attestation.verify.dcap_quote import nearest_first, verify_pck_chain
from wire.errors import AttestationError


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed.of(Intel())


def reissued(intel: Intel, *, start: int = -DAY, end: int = DAY) -> bytes:
    """The root under its name and key, with another time."""
    return replace(intel.root, serial=76, start=start, end=end).der(intel.now)


# ---- which root


def test_the_root_that_issued_the_chain_comes_first(parsed: Parsed) -> None:
    own, other = parsed.intel.root_der(), Intel().root_der()
    for roots in ((own, other), (other, own)):
        assert nearest_first(parsed.chain, roots, parsed.intel.now) == (own, other)


@pytest.mark.parametrize(
    ("start", "end", "holds"),
    [(0, DAY, True), (-DAY, 0, True), (1, DAY, False), (-DAY, -1, False)],
    ids=["its first second", "its last second", "not yet", "no longer"],
)
def test_of_two_roots_of_one_key_the_one_that_holds_now_comes_first(
    parsed: Parsed, start: int, end: int, holds: bool
) -> None:
    intel = parsed.intel
    expired = reissued(intel, start=-2 * DAY, end=-DAY)
    other = reissued(intel, start=start, end=end)
    links = replace(parsed.chain, ders=parsed.chain.ders[:2])
    # What is equally near stays in the order given.
    found = nearest_first(links, (expired, other), intel.now)
    assert found == ((other, expired) if holds else (expired, other))


def test_roots_stay_as_given_where_no_link_says_which_is_nearer(parsed: Parsed) -> None:
    own, other = parsed.intel.root_der(), Intel().root_der()
    for ders in ((own,), (own, other), (own, b"no certificate")):
        for roots in ((own, other), (other, own)):
            assert nearest_first(Chain(ders, pem=True), roots, parsed.intel.now) == roots
    assert nearest_first(parsed.chain, (), parsed.intel.now) == ()


def test_a_chain_of_pinned_roots_alone_certifies_no_platform(parsed: Parsed) -> None:
    own, other = parsed.intel.root_der(), Intel().root_der()
    for ders in ((own,), (own, other)):
        with pytest.raises(AttestationError) as caught:
            verify_pck_chain(Chain(ders, pem=True), (own, other), parsed.intel.now)
        assert caught.value.reasons == ("chain_invalid",)


# ---- by whom it is verified


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["opinion", "no opinion"])
def test_the_account_says_who_verified_the_signatures(attributes: bytes | None) -> None:
    """dcap-qvl where it accepts a quote as a whole; this library where it gives no opinion."""
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    examined = tdx.examine(intel.question())
    assert examined.authentic
    found = {check.step: check.detail for check in examined.checks}
    by_another = {
        step
        for step in ("7 chain", "9 signature", "10 issuers")
        if "dcap-qvl" in found[f"tdx {step}"]
    }
    assert by_another == ({"7 chain", "9 signature", "10 issuers"} if attributes is None else set())

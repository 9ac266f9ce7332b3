"""Genuine evidence in the hands of another: it says whose keys are to be sealed to, and no more.

A relay shows a caller the evidence of worker A and is called itself. Binding evidence to the
connection would be one answer; here the prompt is sealed to the key that the evidence names, so the
relay carries a ciphertext.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from simulators.caller import Caller
from simulators.hardware_tee import AzureSnpTee, HardwareTee, NitroTee, SnpTee, TdxTee
from simulators.verdicts import accepted, rejected

from wire.envelope import open_envelope, parse_envelope
from wire.errors import KidUnknownError, OpenError
from wire.ids import kid_of
from wire.suites import HYBRID, SUITES

if TYPE_CHECKING:
    from wire.envelope import OpenedRequest, SealedRequest

every_kind = pytest.mark.parametrize("make", [SnpTee, TdxTee, NitroTee, AzureSnpTee])
PROMPT = {"model": "m", "messages": [{"role": "user", "content": "for worker A alone"}]}


def opened(sealed: SealedRequest, holder: HardwareTee, kid: bytes) -> OpenedRequest:
    envelope = parse_envelope(sealed.envelope)
    return open_envelope(envelope, kid, holder.keys[HYBRID], SUITES[HYBRID])


@every_kind
def test_whoever_shows_a_genuine_workers_evidence_cannot_open_what_is_sealed_to_it(
    make: type[HardwareTee],
) -> None:
    genuine, relay = make("genuine"), make("relay")
    verdict = accepted(genuine.appraise())  # whoever handed it over
    sealed = Caller(verdict.binding).seal(PROMPT, aud=verdict.binding.aud)
    (kid,) = sealed.kids
    assert b"worker A" in opened(sealed, genuine, kid).body
    with pytest.raises(OpenError):
        opened(sealed, relay, kid)  # in A's name
    with pytest.raises(KidUnknownError):
        opened(sealed, relay, kid_of(HYBRID, relay.kem(HYBRID).pk))  # in its own


@every_kind
def test_a_relay_that_puts_its_own_key_in_has_no_evidence_left(make: type[HardwareTee]) -> None:
    genuine, relay = make("genuine"), make("relay")
    evidence = genuine.presented(genuine.binding())
    relay.facts = {**genuine.facts, "kems": [relay.kem(HYBRID)]}
    verdict = rejected(relay.appraise(evidence=evidence, collateral=genuine.collateral()))
    assert {"report_data_mismatch", "nonce_mismatch"} & set(verdict.codes)


@every_kind
def test_a_relay_that_answers_a_callers_nonce_with_the_genuine_worker_gains_no_key(
    make: type[HardwareTee],
) -> None:
    """Fresh evidence is relayed as easily as old: it still names A's key alone."""
    genuine = make("genuine")
    nonce = os.urandom(32)
    listed = accepted(genuine.appraise()).binding
    genuine.facts["nonce"] = nonce
    live = accepted(genuine.appraise(nonce=nonce)).binding
    assert live.nonce == nonce
    assert (live.kems, live.sig_pk, live.boot) == (listed.kems, listed.sig_pk, listed.boot)

"""Which of the chains in a sample is a device's own: the one whose leaf signed its report.

The samples are genuine, from $ANCHORHOLD_VECTORS, and named by a simulated TPM.
"""

from __future__ import annotations

import base64
import json

from simulators.vendor_samples import (
    GENUINE,
    GPU,
    OTHER,
    SWITCH,
    bound,
    codes,
    file,
    needs_samples,
    report,
    verdict,
)

from attestation.conformance.device_chains import CHAINS_MAX, OWN_MAX, chains_in

MARK = b"-----BEGIN CERTIFICATE-----"


def others(count: int) -> list[bytes]:
    """Chains of no device here: distinct, and each of two certificates."""
    parts = file(OTHER, "cert_chain").split(MARK)[1:]
    pairs = [(first, second) for first in range(len(parts)) for second in range(len(parts))]
    lines = [
        MARK + parts[a] + b"\n" + MARK + parts[b] + (b"\n" + MARK + parts[c] if c >= 0 else b"")
        for c in range(-1, len(parts))
        for a, b in pairs
    ]
    return lines[:count]


@needs_samples
def test_a_devices_own_chain_counts_behind_those_of_a_whole_node() -> None:
    files = {f"a{at:02}_chain": chain for at, chain in enumerate(others(CHAINS_MAX - 1))}
    found = bound("gpu_evidence", **files, **report())
    assert verdict(found) == GENUINE


@needs_samples
def test_a_chain_that_may_be_among_too_many_is_missing_and_the_report_not_forged() -> None:
    files = {f"a{at:02}_chain": chain for at, chain in enumerate(others(CHAINS_MAX))}
    found = bound("gpu_evidence", **files, **report())
    assert verdict(found) == (True, False, {"collateral_missing", "chain_invalid"})
    first = {"gpu_evidence": report()["gpu_evidence"], "a_chain": report()["gpu_cert_chain"]}
    assert verdict(bound("gpu_evidence", **first, **files)) == GENUINE


@needs_samples
def test_a_chain_is_counted_once_however_it_is_spelled() -> None:
    chain = file(GPU, "cert_chain")
    spellings = [chain, base64.b64encode(chain), chain + b"\n", chain.replace(b"\n", b"\r\n")]
    found = chains_in([*spellings, json.dumps([chain.decode()] * 3).encode()])
    assert (len(found.parsed), found.all_here) == (1, True)
    assert found.of(file(GPU, "evidence")) == [chain]


@needs_samples
def test_of_chains_with_one_leaf_a_whole_one_is_taken_first() -> None:
    chain = file(GPU, "cert_chain")
    parts = [MARK + part for part in chain.split(MARK)[1:]]
    cut = [b"".join([parts[0], *parts[at:]]) for at in range(2, len(parts))]
    found = chains_in([*cut, chain])
    assert len(found.parsed) == len(cut) + 1
    own = found.of(file(GPU, "evidence"))
    assert own[0] == chain
    assert len(own) <= OWN_MAX
    files = {f"a{at}_chain": text for at, text in enumerate(cut)}
    assert verdict(bound("gpu_evidence", **files, **report())) == GENUINE


@needs_samples
def test_a_report_that_no_chain_signed_is_refused_by_the_likeliest() -> None:
    raw = file(OTHER, "evidence")
    files = {
        "a_chain": file(SWITCH, "cert_chain"),
        "b_chain": file(OTHER, "cert_chain"),
        "c_chain": file(GPU, "cert_chain"),
        "gpu_evidence": raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:],
    }
    found = bound("gpu_evidence", **files)
    assert (found.authentic, set(codes(found))) == (False, {"signature_invalid"})

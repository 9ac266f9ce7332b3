"""Which of the chains in a sample is a device's own: the one whose leaf signed its report.

The samples are genuine, from $ANCHORHOLD_VECTORS, and named by a simulated TPM.
"""

from __future__ import annotations

import base64
import itertools
import json

import pytest
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
from attestation.formats.spdm import FWID, SIGNATURE_LEN, parse_report

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


def without_firmware(raw: bytes) -> bytes:
    """A report of the same device as older firmware makes it, unsigned: it states no digest."""
    report = parse_report(raw)
    field = FWID.to_bytes(2, "little") + len(report.fwid).to_bytes(2, "little") + report.fwid
    sizes = sum(4 + len(value) for value in report.opaque.values())
    head, tail = raw.split(field)
    old, new = (size.to_bytes(2, "little") for size in (sizes, sizes - len(field)))
    start = len(raw) - SIGNATURE_LEN - sizes - 2
    assert head[start : start + 2] == old
    return head[:start] + new + head[start + 2 :] + tail


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
    assert "too many certificate chains" in found.reasons[0].detail
    none = bound("gpu_evidence", gpu_evidence=report()["gpu_evidence"])
    assert "no certificate chain" in none.reasons[0].detail
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
def test_of_many_chains_with_one_leaf_only_some_are_tried() -> None:
    leaf, *above = [MARK + part for part in file(GPU, "cert_chain").split(MARK)[1:]]
    texts = [
        b"".join((leaf, *(above[at] for at in chosen)))
        for size in (1, 2, 3)
        for chosen in itertools.combinations(range(len(above)), size)
    ]
    found = chains_in(texts)
    assert len(found.parsed) == len(texts) > OWN_MAX
    assert len(found.of(file(GPU, "evidence"))) == OWN_MAX


@needs_samples
@pytest.mark.parametrize("at", range(3))
def test_a_chain_that_holds_is_taken_wherever_it_stands_among_its_leafs(at: int) -> None:
    """Each of these is one line of issuers by name; the others' root is not pinned, or absent."""
    leaf, *above = [MARK + part for part in file(GPU, "cert_chain").split(MARK)[1:]]
    chains = [b"".join((leaf, *above[:size])) for size in (2, 3)]
    chains.insert(at, file(GPU, "cert_chain"))
    files = {f"a{number}_chain": chain for number, chain in enumerate(chains)}
    assert verdict(bound("gpu_evidence", gpu_evidence=file(GPU, "evidence"), **files)) == GENUINE


@needs_samples
def test_the_likeliest_chain_is_of_a_device_and_of_no_other_report() -> None:
    raw, own, other = (file(OTHER, "evidence"), file(OTHER, "cert_chain"), file(GPU, "cert_chain"))
    cas = MARK + own.split(MARK, 2)[2]
    unread = (MARK + b"\nAAAA\n-----END CERTIFICATE-----\n") * 2
    parts = [MARK + part for part in own.split(MARK)[1:]]
    for chains, taken, likeliest in (
        ([own, parts[0] + parts[1]], {own}, None),
        ([unread, other, cas, own], set(), own),
        ([unread, other, cas, own], {own}, other),
        ([unread, other, cas, own], {own, other}, unread),
        ([cas, own], {own}, None),
        ([cas], set(), None),
        ([], set(), None),
    ):
        assert chains_in(chains).likeliest(raw, taken) == likeliest
        assert chains_in(chains[::-1]).likeliest(raw, taken) == likeliest


@needs_samples
def test_to_a_report_that_states_no_firmware_each_devices_chain_is_alike() -> None:
    raw = without_firmware(file(OTHER, "evidence"))
    one, two = file(GPU, "cert_chain"), file(OTHER, "cert_chain")
    unread = (MARK + b"\nAAAA\n-----END CERTIFICATE-----\n") * 2
    cas = MARK + two.split(MARK, 2)[2]
    assert chains_in([unread, cas, one, two]).likeliest(raw, set()) == one
    assert chains_in([two, one, cas, unread]).likeliest(raw, set()) == two


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

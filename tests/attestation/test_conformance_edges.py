"""The conformance runner where one fact more or less decides: sides, nonces, files that none read.

Evidence of its own, and published samples from $ANCHORHOLD_VECTORS, with one fact changed.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from simulators.vendor_samples import QUOTE, changed, codes, needs_samples
from simulators.vtpm import NONCE, NOW, Vtpm, VtpmMaker

from attestation.conformance.index import Sample, parse_index
from attestation.conformance.pairing import pair_of
from attestation.conformance.run import run_sample
from attestation.conformance.stated import StatedClaim, expected_of
from attestation.schemes import SCHEMES

if TYPE_CHECKING:
    from attestation.conformance.run import Outcome

INTELS, GOOGLES = "roots/intel-sgx-root-ca.pem", "roots/gce-ek-root.crt"


def published(name: str, without: str = "", inputs: Any = None, **files: str) -> Outcome:
    """A sample, with and without some files and with other inputs."""

    def change(sample: dict[str, Any]) -> None:
        sample["files"] = {
            role: path for role, path in {**sample["files"], **files}.items() if role != without
        }
        sample["inputs"] = {**sample["inputs"], **(inputs or {})}

    return changed(name, change)


# ---- two sides


@pytest.mark.parametrize("data", ["AA==", "no base64"])
@pytest.mark.parametrize("more", [{}, {"arch": "HOPPER"}])
@pytest.mark.parametrize("listed", [False, True])
def test_a_devices_evidence_and_its_certificate_are_a_gpus(
    data: str, more: dict[str, str], listed: bool
) -> None:
    """Whether they parse or not."""

    def sides(device: Any) -> dict[str, bytes] | None:
        raw = json.dumps([device] if listed else device).encode()
        pair = pair_of(SCHEMES["intel-tdx-quote"], {"quote": b"q", "attachment": raw})
        return None if pair is None else dict(pair.gpus)

    assert set(sides({"evidence": data, "certificate": data, **more}) or ()) == {"attachment"}
    assert sides({"evidence": data, **more}) is None


@needs_samples
def test_what_no_step_asks_of_one_side_is_a_fault_also_where_it_is_refused() -> None:
    found = published(QUOTE, inputs={"arch": "HOPPER", "expected_nonce_hex": "11" * 32})
    assert codes(found) == ["nonce_mismatch"]
    assert [fault for fault in found.faults if fault.startswith("input arch: ")]


# ---- what is expected


@pytest.mark.parametrize(
    ("value", "found"), [("a", "a0"), ("a", ""), ("ab", "ab0"), ("ab", "ab00"), ("0x", "00")]
)
def test_a_claim_without_a_fixed_size_is_not_filled_with_zeros(value: str, found: str) -> None:
    assert StatedClaim("chip", value).holds({"chip": value})
    assert StatedClaim("chip", value).holds({"chip": found}) is False


@pytest.mark.parametrize("arch", ["HOPPER", "hopper"])
@pytest.mark.parametrize("key", ["arch", "expected_arch"])
def test_what_is_stated_twice_and_alike_is_stated_once(arch: str, key: str) -> None:
    inputs = {key: arch, "expected_arch": "Hopper", "nonce": "00aa", "expected_nonce_hex": "00AA"}
    found = expected_of(Sample("s", "k", {}, {}, None, inputs, None, None, (), {}))
    assert (found.arch, found.nonce) == ("HOPPER", b"\x00\xaa")


@pytest.mark.parametrize(
    ("carried", "asked", "authentic"), [(b"", "", True), (NONCE, "", False), (b"", "aa", False)]
)
def test_evidence_for_nobody_is_authentic_and_answers_no_question(
    carried: bytes, asked: str, authentic: bool
) -> None:
    found = made(carried, asked, authentic)
    assert (found.faults, set(codes(found))) == ((), {"nonce_mismatch"})
    empty = [reason for reason in found.reasons if "is empty" in reason.detail]
    assert bool(empty) is (asked == "")


@needs_samples
@pytest.mark.parametrize("nonce", ["00", "00" * 32, "00" * 64])
@pytest.mark.parametrize("name", ["snp-genoa-v3", "tdx-v4-uptodate-gcp-cos113", "ccel-gcp-cos113"])
def test_zeros_answer_nobody_where_a_kind_has_no_place_for_a_nonce(name: str, nonce: str) -> None:
    """Report data of these is zero, in whole or in half: evidence that was made for nobody."""
    found = published(name, inputs={"expected_nonce_hex": nonce})
    assert (found.authentic, codes(found)) == (False, ["nonce_mismatch"])


def made(carried: bytes, asked: str, authentic: bool, **more: bytes) -> Outcome:
    """A quote of a virtual TPM that carries one nonce, where another may be asked for."""
    maker = VtpmMaker()
    files = {**Vtpm(maker).evidence(carried), **maker.collateral(), **more}
    document = {
        "schema": "attestation-vectors/1",
        "roots": {"maker": {"sha256_der": hashlib.sha256(maker.root).hexdigest()}},
        "vectors": [
            {
                "id": "made",
                "kind": "tpm2-quote",
                "files": {role: role for role in files},
                "verify_at": datetime.fromtimestamp(NOW, UTC).isoformat(),
                "inputs": {"expected_nonce_hex": asked},
                "expected": {"authentic": authentic, "strict": "reject"},
            }
        ],
    }
    index = parse_index(json.dumps(document).encode())
    return run_sample(index.samples[0], index, files.__getitem__)


# ---- files that no step reads


@needs_samples
@pytest.mark.parametrize(
    ("name", "without", "root", "told"),
    [
        ("corim-cca-platform-valid", "", GOOGLES, True),  # unsigned
        ("corim-signed-good-corim", "", GOOGLES, True),  # its key was brought
        ("ccel-gcp-cos113", "quote", INTELS, True),  # a log alone
        ("ccel-gcp-cos113", "", INTELS, False),  # its quote's
        (QUOTE, "", INTELS, False),
    ],
)
def test_a_root_is_told_where_no_chain_ends_in_it(
    name: str, without: str, root: str, told: bool
) -> None:
    found = published(name, without, root=root)
    assert (found.authentic is False, "root" in found.ignored) == (False, told)


@pytest.mark.parametrize("asked", [NONCE, b"another"])
def test_of_evidence_that_is_refused_no_file_is_told_for_what_would_have_come_after(
    asked: bytes,
) -> None:
    """The reasons say how far it was read; of what was taken, an empty file is told."""
    found = made(NONCE, asked.hex(), asked == NONCE, attestation_pb=b"")
    assert found.authentic is (asked == NONCE), codes(found)
    assert ("attestation_pb" in found.ignored) is (asked == NONCE)

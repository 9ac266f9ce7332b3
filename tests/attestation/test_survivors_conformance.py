"""The conformance runner tells where exactly a sample's claims differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from attestation.conformance.index import parse_index
from attestation.conformance.run import run_sample

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = "snp-genoa-v3"


@pytest.mark.parametrize(
    ("expected", "where"),
    [
        ([25, 17, 2], "cpuid_fam_mod_step[2]"),
        ([26, 17, 1], "cpuid_fam_mod_step[0]"),
        ([25, 17], "cpuid_fam_mod_step"),
        ({"family": 25}, "cpuid_fam_mod_step"),
        (25, "cpuid_fam_mod_step"),
    ],
    ids=["last", "first", "shorter", "an object", "a number"],
)
def test_the_place_of_a_difference_within_a_claim_is_told(
    vectors: dict[str, Any], expected: object, where: str
) -> None:
    folder: Path = vectors["root"]
    document = json.loads((folder / "index.json").read_bytes())
    (entry,) = [item for item in document["vectors"] if item["id"] == SAMPLE]
    entry["expected"]["claims"]["cpuid_fam_mod_step"] = expected
    index = parse_index(json.dumps(document).encode())
    (sample,) = [item for item in index.samples if item.id == SAMPLE]
    found = run_sample(sample, index, lambda path: (folder / path).read_bytes())
    assert list(found.differing) == [where]
    assert found.faults == (f"claims: 1 differ: {where}",)

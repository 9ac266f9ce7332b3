"""Manifests from public repositories: the expected claims and verdicts.

The samples come from $ANCHORHOLD_VECTORS (index.json, kind `corim`).
"""

from __future__ import annotations

from typing import Any

from attestation.anchors import NONE
from attestation.examined import Examined, Question
from attestation.formats.corim import parse_manifest
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.reference_values import reference_values
from attestation.schemes.corim import SCHEME
from wire.errors import PolicyError

KIND = "corim"
STRICT = {"signed": "any", "profiles": "any", "validity": "ignored"}
SIGNED = "corim-signed-good-corim"


def files(vectors: dict[str, Any], name: str, roles: tuple[str, ...]) -> dict[str, bytes]:
    listed = vectors[name]["files"]
    return {role: (vectors["root"] / listed[role]).read_bytes() for role in roles if role in listed}


def examine(vectors: dict[str, Any], name: str) -> Examined:
    evidence = files(vectors, name, SCHEME.evidence[1])
    collateral = files(vectors, name, SCHEME.collateral)
    return SCHEME.examine(Question(evidence, NONE, 0, collateral))


def judge(found: Examined, **demands: Any) -> tuple[str, ...]:
    members = Members(demands, "rule", optional=SCHEME.rule_keys[1], error=PolicyError)
    ledger = Ledger()
    SCHEME.judge(ledger, found.facts, SCHEME.rule(members), 0)
    return tuple(reason.code for reason in ledger.reasons)


def names(vectors: dict[str, Any]) -> list[str]:
    found = [name for name, vector in vectors.items() if name != "root" and vector["kind"] == KIND]
    assert found
    return found


def test_every_sample_gives_its_expected_verdict_and_claims(vectors: dict[str, Any]) -> None:
    for name in names(vectors):
        expected = vectors[name]["expected"]
        found = examine(vectors, name)
        codes = (*(reason.code for reason in found.reasons), *judge(found, **STRICT))
        assert found.authentic is expected["authentic"], name
        if expected["strict"] is not None:
            assert bool(codes) is (expected["strict"] == "reject"), name
        assert set(codes) & set(expected["reasons"]) or not expected["reasons"], name
        assert {key: found.claims.get(key) for key in expected["claims"]} == expected["claims"]


def test_the_signed_sample_is_refused_by_default_outside_its_time(vectors: dict[str, Any]) -> None:
    assert judge(examine(vectors, SIGNED)) == ("manifest_not_yet_valid",)


def test_the_signed_sample_gives_its_reference_values(vectors: dict[str, Any]) -> None:
    raw = files(vectors, SIGNED, ("corim",))["corim"]
    found = reference_values(parse_manifest(raw))
    assert len(found.values) == 3
    assert found.left_out == ()
    assert all(list(value.digests) == ["sha256"] for value in found.values)

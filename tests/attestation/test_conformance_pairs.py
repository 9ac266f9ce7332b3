"""A sample with evidence of a CPU and of a GPU: whoever wrote the index named the files freely.

The samples come from $ANCHORHOLD_VECTORS; each test puts two genuine ones together.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from simulators.vendor_samples import (
    FOLDER,
    GPU,
    GPUS,
    QUOTE,
    codes,
    files_of,
    needs_samples,
    outcome,
    sample,
)

from attestation.conformance.pairing import Pair

if TYPE_CHECKING:
    from pathlib import Path

# What comes of other bytes under a GPU's name that the CPU names.
NAMED = ["evidence_malformed", "gpu_not_bound_to_cpu"]

pytestmark = needs_samples


@pytest.mark.parametrize(
    "role",
    ["gpu_evidence", "gpu_report", "nvidia_evidence", "evidence", "evidence_list", "gpu", "gpu0",
     "gpu-report", "gpuReport", "GPU", "h100", "hopper", "accelerator", "device_report", "diag"],
)  # fmt: skip
def test_a_gpu_beside_a_quote_that_does_not_name_it_is_genuine_and_refused(role: str) -> None:
    found = outcome(QUOTE, {role: files_of(GPU)["evidence"]})
    assert (found.authentic, found.accepted) == (True, False)
    assert codes(found) == ["gpu_not_bound_to_cpu"]


@pytest.mark.parametrize("role", ["eat", "token", "detached_eat", "attachment", "notes", "gpu_key"])
@pytest.mark.parametrize(
    "name", [QUOTE, "snp-genoa-v3", "nitro-production", "azure-snp-milan-v1", "ccel-gcp-cos113"]
)
def test_a_remote_services_word_on_gpus_is_evidence_of_them(name: str, role: str) -> None:
    found = outcome(name, {role: files_of("nras-v3-unknown-kid")["eat"]})
    assert (found.authentic, codes(found)) == (True, ["gpu_not_bound_to_cpu"])
    assert found.ignored == ()


def _outlines() -> dict[str, bytes]:
    bundle = json.loads((FOLDER / files_of("nras-v3-unknown-kid")["eat"]).read_bytes())
    (device, *_) = bundle[1].values()
    item = {"evidence": "AA==", "certificate": "AA==", "whatever": 1}
    return {
        "one device's token": device.encode(),
        "a bundle of too many": json.dumps(
            [bundle[0], {str(n): device for n in range(40)}]
        ).encode(),
        "a wrapped bundle": json.dumps({"detached_eat": []}).encode(),
        "a list of none": b'{"nonce": "931d", "arch": "HOPPER", "evidence_list": []}',
        "a list of too many": json.dumps([item] * 20).encode(),
        "one device": json.dumps(item).encode(),
        "said twice": b'{"evidences": [], "evidences": []}',
    }


@pytest.mark.parametrize("role", ["attachment", "accelerators"])
def test_what_has_the_outline_of_a_gpus_evidence_is_one(role: str, tmp_path: Path) -> None:
    for what, data in _outlines().items():
        (tmp_path / "file").write_bytes(data)
        found = outcome(QUOTE, {role: str(tmp_path / "file")})
        assert codes(found) == ["gpu_not_bound_to_cpu"], what


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"[1]", b'[["JSON", 1]]', b'{"evidence": "AA=="}', b"a.b.c", b"\xff"],
)
def test_other_files_beside_a_quote_are_no_gpus(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    found = outcome(QUOTE, {"attachment": str(tmp_path / "file")})
    assert (found.accepted, found.ignored) == (True, ("attachment",))


@pytest.mark.parametrize("name", ["ear-testjwt", "corim-signed-good-corim", "eventlog-rhel8-uefi"])
def test_a_verdict_a_manifest_and_a_firmware_log_stand_for_no_cpu(name: str) -> None:
    found = outcome(name, {"gpu_evidence": files_of(GPU)["evidence"]})
    assert (found.ok, found.ignored) == (True, ("gpu_evidence",))


@pytest.mark.parametrize("role", ["attestation_pb", "quote_sha256", "vtpm", "host"])
def test_a_tpms_quote_beside_a_gpus_evidence_must_name_it(role: str) -> None:
    files = files_of("gce-cos-85-nonce9009")
    found = outcome(GPU, {role: files.get(role, files["attestation_pb"])})
    assert codes(found) == ["gpu_not_bound_to_cpu"]


@pytest.mark.parametrize(
    "role",
    ["quote", "cpu_quote", "td_quote", "tdx_quote", "cpu_evidence", "snp_report", "report", "tdx0",
     "host"],
)  # fmt: skip
@pytest.mark.parametrize("gpu", [GPU, GPUS])
def test_a_cpus_evidence_beside_a_gpus_must_name_it(role: str, gpu: str) -> None:
    found = outcome(gpu, {role: files_of(QUOTE)["quote"]})
    assert (found.authentic, codes(found)) == (True, ["gpu_not_bound_to_cpu"])


@pytest.mark.parametrize("role", ["notes", "gpu_report", "diag"])
def test_other_files_beside_a_gpus_evidence_are_no_cpus(role: str) -> None:
    assert outcome(GPU, {role: files_of(GPU)["evidence"]}).accepted is True


@pytest.mark.parametrize(
    "binding",
    [
        "report_data == SHA-256(gpu_evidence) || zeros(32)",
        "report_data[0:32] == gpu_report_sha256",
        "report_data[0:32] == SHA-256(gpu_report)",
    ],
)
def test_a_rule_about_the_gpu_that_fails_shows_that_they_do_not_belong_together(
    binding: str,
) -> None:
    found = outcome(QUOTE, {"gpu_report": files_of(GPU)["evidence"]}, binding=binding)
    assert (found.authentic, codes(found)) == (False, ["nonce_mismatch", "gpu_not_bound_to_cpu"])


def test_a_rule_about_the_gpu_that_is_not_understood_binds_nothing() -> None:
    rule = "the quote names the GPU by a digest of its report"
    found = outcome(QUOTE, {"gpu_report": files_of(GPU)["evidence"]}, binding=rule)
    assert (found.authentic, codes(found)) == (True, ["gpu_not_bound_to_cpu"])


def test_a_rule_about_the_cpus_evidence_beside_a_gpus_is_not_proved_here() -> None:
    beside = {"quote": files_of(QUOTE)["quote"]}
    found = outcome(GPU, beside, binding="report_data[0:32] == gpu_evidence_hash")
    assert (found.authentic, codes(found)) == (True, ["gpu_not_bound_to_cpu"])


def test_a_rule_about_something_else_does_not_bind_the_gpu() -> None:
    data = sample(QUOTE)["expected"]["claims"]["report_data"]
    rule = {"binding": "report_data == challenge", "challenge_hex": data}
    assert outcome(QUOTE, {}, **rule).accepted is True
    found = outcome(QUOTE, {"gpu_evidence": files_of(GPU)["evidence"]}, **rule)
    assert codes(found) == ["gpu_not_bound_to_cpu"]


@pytest.mark.parametrize("word", ["gpu_list", "gpu_evidence"])
def test_what_the_report_data_names_is_examined(word: str, tmp_path: Path) -> None:
    """No published report names a GPU: what one does name is no GPU's evidence."""
    name = "snp-milan-v5-key-bound"
    given = sample(name)["inputs"]
    stand_in = tmp_path / "gpu"
    stand_in.write_bytes(bytes.fromhex(given["nonce_hex"] + given["x25519_public_hex"]))
    found = outcome(
        name, {"gpu_list": str(stand_in)}, binding=f"report_data == SHA-512({word})", nonce_hex=None
    )
    assert (found.authentic, found.accepted, codes(found)) == (True, False, NAMED)


def test_a_stated_digest_of_other_gpus_binds_none(tmp_path: Path) -> None:
    name = "snp-milan-v5-key-bound"
    given = sample(name)["inputs"]
    stand_in = tmp_path / "gpu"
    stand_in.write_bytes(bytes.fromhex(given["nonce_hex"] + given["x25519_public_hex"]))
    rule = "report_data == SHA-512(gpu_evidence)"
    for digest, codes_found in (
        (hashlib.sha256(stand_in.read_bytes()).hexdigest(), NAMED),
        ("11" * 32, ["gpu_not_bound_to_cpu"]),
        (None, ["gpu_not_bound_to_cpu"]),
    ):
        for key in ("gpu_evidence_hash_hex", "expected_gpu_evidence_hash_hex", "gpu_sha256"):
            found = outcome(
                name, {"gpu": str(stand_in)}, binding=rule, nonce_hex=None, **{key: digest}
            )
            assert codes(found) == codes_found


@pytest.mark.parametrize("word", ["gpu_hash", "gpu_report_sha512", "gpu_vm_key"])
def test_a_value_that_is_only_called_the_gpus_names_none(word: str) -> None:
    data = sample(QUOTE)["expected"]["claims"]["report_data"]
    beside = {"gpu_report": files_of(GPU)["evidence"]}
    found = outcome(QUOTE, beside, binding=f"report_data == {word}", **{f"{word}_hex": data})
    assert (found.accepted, codes(found)[-1]) == (False, "gpu_not_bound_to_cpu")


def test_each_of_two_gpus_must_be_named(tmp_path: Path) -> None:
    name = "snp-milan-v5-key-bound"
    given = sample(name)["inputs"]
    (tmp_path / "a").write_bytes(bytes.fromhex(given["nonce_hex"] + given["x25519_public_hex"]))
    (tmp_path / "b").write_bytes(b"another's")
    rule = "report_data == SHA-512(gpu_a)"
    one = {"gpu_a": str(tmp_path / "a")}
    assert codes(outcome(name, one, binding=rule, nonce_hex=None)) == NAMED
    both = {"gpu_a": str(tmp_path / "a"), "gpu_b": str(tmp_path / "b")}
    assert codes(outcome(name, both, binding=rule, nonce_hex=None)) == ["gpu_not_bound_to_cpu"]


@pytest.mark.parametrize(
    "role", ["gpu_cert_chain", "gpu_rim", "gpu_ocsp_note", "nras_jwks", "gpu_jwk", "nvidia_keyset"]
)
def test_what_lies_beside_a_gpus_evidence_need_not_be_named(role: str, tmp_path: Path) -> None:
    name = "snp-milan-v5-key-bound"
    given = sample(name)["inputs"]
    (tmp_path / "a").write_bytes(bytes.fromhex(given["nonce_hex"] + given["x25519_public_hex"]))
    (tmp_path / "b").write_bytes(b"no evidence")
    both = {"gpu_a": str(tmp_path / "a"), role: str(tmp_path / "b")}
    found = outcome(name, both, binding="report_data == SHA-512(gpu_a)", nonce_hex=None)
    assert codes(found) == NAMED


@pytest.mark.parametrize(
    "role",
    ["vcek_crl", "revocation_list", "pckCrl", "ocsp_response", "vcek_revocations", "denylist"],
)
def test_a_list_of_what_is_revoked_is_never_passed_over(role: str) -> None:
    found = outcome("snp-genoa-v3", {role: files_of(QUOTE)["quote"]})
    assert [fault for fault in found.faults if role in fault]


def test_gpus_and_switches_are_named_by_their_digests_in_one_rule() -> None:
    pair = Pair({"gpu": b"gpus", "nvswitch": b"switches"})
    values = pair.values()
    assert values["gpu_evidence_hash"] == values["gpu_sha256"] == hashlib.sha256(b"gpus").digest()
    assert values["nvswitch_evidence_hash"] == hashlib.sha256(b"switches").digest()


def test_what_is_asked_of_gpus_is_moot_where_nothing_binds_them() -> None:
    found = outcome(QUOTE, {"gpu": files_of(GPU)["evidence"]}, arch="HOPPER", gpu_nonce="aa")
    assert codes(found) == ["gpu_not_bound_to_cpu"]
    assert not [fault for fault in found.faults if fault.startswith("input ")]
    assert set(found.ignored) == {"arch", "gpu_nonce"}


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_a_gpus_evidence_is_named_by_each_of_its_digests(name: str) -> None:
    pair = Pair({"gpu": b"report"})
    assert pair.all_in({hashlib.new(name, b"report").digest()})
    assert not pair.all_in({hashlib.new(name, b"another").digest()})

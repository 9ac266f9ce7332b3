"""A sample with evidence of a CPU and of a GPU: whoever wrote the index named the files freely.

The samples come from $ANCHORHOLD_VECTORS; each test puts two genuine ones together.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attestation.conformance.index import parse_index
from attestation.conformance.pairing import Pair
from attestation.conformance.run import run_sample
from attestation.reasons import CODES

if TYPE_CHECKING:
    from attestation.conformance.run import Outcome

FOLDER = Path(os.environ.get("ANCHORHOLD_VECTORS", "/nonexistent"))
INDEX = FOLDER / "index.json"
DOCUMENT = json.loads(INDEX.read_bytes()) if INDEX.is_file() else {"vectors": []}
# What comes of other bytes under a GPU's name that the CPU names.
NAMED = ["evidence_malformed", "gpu_not_bound_to_cpu"]
QUOTE, GPU, GPUS = "tdx-v4-uptodate-b0c06f", "nvidia-hopper-550", "nvidia-hopper-multi4"

pytestmark = pytest.mark.skipif(
    not DOCUMENT["vectors"], reason="ANCHORHOLD_VECTORS names no folder of vendor samples"
)


def files_of(name: str) -> dict[str, str]:
    found: dict[str, str] = _sample(name)["files"]
    return found


def _sample(name: str) -> dict[str, Any]:
    return copy.deepcopy(next(item for item in DOCUMENT["vectors"] if item["id"] == name))


def outcome(name: str, beside: dict[str, str], **inputs: Any) -> Outcome:
    """A published sample with more files beside its own, run."""
    sample = _sample(name)
    sample["files"] |= beside
    sample["inputs"] |= inputs
    document = {**DOCUMENT, "vectors": [sample]}
    index = parse_index(json.dumps(document).encode())
    return run_sample(index.samples[0], index, lambda path: (FOLDER / path).read_bytes())


def codes(found: Outcome) -> list[str]:
    return [reason.code for reason in found.reasons]


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
    data = _sample(QUOTE)["expected"]["claims"]["report_data"]
    rule = {"binding": "report_data == challenge", "challenge_hex": data}
    assert outcome(QUOTE, {}, **rule).accepted is True
    found = outcome(QUOTE, {"gpu_evidence": files_of(GPU)["evidence"]}, **rule)
    assert codes(found) == ["gpu_not_bound_to_cpu"]


@pytest.mark.parametrize("word", ["gpu_list", "gpu_evidence"])
def test_what_the_report_data_names_is_examined(word: str, tmp_path: Path) -> None:
    """No published report names a GPU: what one does name is no GPU's evidence."""
    name = "snp-milan-v5-key-bound"
    given = _sample(name)["inputs"]
    stand_in = tmp_path / "gpu"
    stand_in.write_bytes(bytes.fromhex(given["nonce_hex"] + given["x25519_public_hex"]))
    found = outcome(
        name, {"gpu_list": str(stand_in)}, binding=f"report_data == SHA-512({word})", nonce_hex=None
    )
    assert (found.authentic, found.accepted, codes(found)) == (True, False, NAMED)


def test_a_stated_digest_of_other_gpus_binds_none(tmp_path: Path) -> None:
    name = "snp-milan-v5-key-bound"
    given = _sample(name)["inputs"]
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
    data = _sample(QUOTE)["expected"]["claims"]["report_data"]
    beside = {"gpu_report": files_of(GPU)["evidence"]}
    found = outcome(QUOTE, beside, binding=f"report_data == {word}", **{f"{word}_hex": data})
    assert (found.accepted, codes(found)[-1]) == (False, "gpu_not_bound_to_cpu")


def test_each_of_two_gpus_must_be_named(tmp_path: Path) -> None:
    name = "snp-milan-v5-key-bound"
    given = _sample(name)["inputs"]
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
    given = _sample(name)["inputs"]
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


@pytest.mark.parametrize(
    "inputs",
    [
        {"expected_nonce_hex": "aa" * 32},
        {"nonce_hex": "aa" * 32},
        {"expected_report_data_hex": "aa" * 64},
        {"expected_mr_td_hex": "aa" * 48},
        {"expected_chip_id": "aa"},
    ],
)
def test_a_rule_that_holds_excuses_no_other_input(inputs: dict[str, str]) -> None:
    data = _sample(QUOTE)["expected"]["claims"]["report_data"]
    rule = {"binding": "report_data == key", "key_hex": data}
    assert outcome(QUOTE, {}, **rule).accepted is True
    assert codes(outcome(QUOTE, {}, **rule, **inputs)) == ["nonce_mismatch"]


def test_azures_own_rule_asks_for_the_nonce_under_each_of_its_names() -> None:
    for name in ("nonce_hex", "nonce"):
        found = outcome("azure-snp-milan-v1", {}, expected_nonce_hex=None, **{name: "aa" * 8})
        assert "nonce_mismatch" in codes(found)


def test_gpus_and_switches_are_named_by_their_digests_in_one_rule() -> None:
    pair = Pair({"gpu": b"gpus", "nvswitch": b"switches"})
    values = pair.values()
    assert values["gpu_evidence_hash"] == values["gpu_sha256"] == hashlib.sha256(b"gpus").digest()
    assert values["nvswitch_evidence_hash"] == hashlib.sha256(b"switches").digest()


@pytest.mark.parametrize("inputs", [{}, {"expected_nonce": None}])
@pytest.mark.parametrize(
    "name",
    [GPU, GPUS, "nvidia-ls10-switch", "gce-cos-85-nonce9009", "azure-snp-milan-v1",
     "nitro-production-nonce"],
)  # fmt: skip
def test_a_sample_that_states_no_nonce_is_judged_by_the_rest(
    name: str, inputs: dict[str, str | None]
) -> None:
    """As the index's own samples without one are; no appraisal leaves it out."""
    none = dict.fromkeys(("expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"))
    assert outcome(name, {}, **{**none, **inputs}).accepted is True
    given = outcome(name, {}, **{**none, "expected_nonce_hex": "aa" * 32})
    assert (given.authentic, set(codes(given))) == (False, {"nonce_mismatch"})


@pytest.mark.parametrize("nonce", ["", " ", "0x"])
@pytest.mark.parametrize("key", ["expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"])
@pytest.mark.parametrize(
    "name",
    [GPU, GPUS, "nvidia-ls10-switch", "gce-cos-85-nonce9009", "azure-snp-milan-v1", QUOTE,
     "nitro-production", "nitro-production-nonce", "snp-genoa-v3", "corim-signed-good-corim"],
)  # fmt: skip
def test_a_nonce_that_is_stated_and_empty_is_met_by_nothing(
    name: str, key: str, nonce: str
) -> None:
    none = dict.fromkeys(("expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"))
    found = outcome(name, {}, **{**none, key: nonce})
    assert (found.authentic, found.accepted) == (False, False)
    assert "nonce_mismatch" in codes(found)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("snp-genoa-v3", {"expected_report_data_hex": ""}),  # whose report data is all zeros
        ("snp-genoa-v3", {"expected_report_data_hex": "0x"}),
        ("snp-genoa-v3", {"report_data": ""}),
        ("nitro-production", {"expected_user_data": ""}),
        (GPU, {"arch": ""}),
        (GPU, {"expected_arch": "", "arch": None}),
        (QUOTE, {"binding": "report_data == key", "key_hex": ""}),
        ("snp-genoa-v3", {"binding": "report_data == zeros(64) || key", "key_hex": ""}),
    ],
)
def test_an_expectation_that_is_empty_is_met_by_nothing(name: str, inputs: dict[str, Any]) -> None:
    assert outcome(name, {}).accepted is True
    assert (outcome(name, {}, **inputs).authentic, outcome(name, {}, **inputs).accepted) == (
        False,
        False,
    )


@pytest.mark.parametrize("value", [0, False, {}, [], 1, True, ["11"], {"a": "11"}])
@pytest.mark.parametrize("key", ["expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"])
def test_a_nonce_that_is_no_text_is_the_samples_fault(key: str, value: object) -> None:
    none = dict.fromkeys(("expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"))
    found = outcome(QUOTE, {}, **{**none, key: value})
    assert (found.authentic, found.accepted) == (None, None)
    assert f"expected hex as {key}" in found.faults[0]


@pytest.mark.parametrize(
    "key",
    ["challenge_hex", "expectedNonce", "NONCE", "Expected_chip", "reportNonce", "serverChallenge",
     "expected", "arch", "expected_arch"],
)  # fmt: skip
def test_an_expectation_that_no_step_asks_for_is_a_fault(key: str) -> None:
    found = outcome(QUOTE, {}, **{key: "aa" * 32})
    assert [fault for fault in found.faults if fault.startswith(f"input {key}: ")]
    assert key in found.ignored
    assert outcome(QUOTE, {}, **{key: None}).ok


@pytest.mark.parametrize(
    "key", ["signing_address", "tls_certificate_der_hex", "vm_id", "nonce_source", "notes"]
)
def test_an_input_for_information_is_told_and_no_fault(key: str) -> None:
    found = outcome(QUOTE, {}, **{key: "aa" * 32})
    assert (found.ok, found.ignored) == (True, (key,))


def test_what_is_asked_of_gpus_is_moot_where_nothing_binds_them() -> None:
    found = outcome(QUOTE, {"gpu": files_of(GPU)["evidence"]}, arch="HOPPER", gpu_nonce="aa")
    assert codes(found) == ["gpu_not_bound_to_cpu"]
    assert not [fault for fault in found.faults if fault.startswith("input ")]
    assert set(found.ignored) == {"arch", "gpu_nonce"}


def test_an_architecture_is_asked_for_under_both_of_its_names() -> None:
    for key in ("arch", "expected_arch"):
        none = {"arch": None, "expected_arch": None}
        assert outcome(GPU, {}, **{**none, key: "hopper"}).accepted is True
        assert codes(outcome(GPU, {}, **{**none, key: "BLACKWELL"})) == [
            "gpu_architecture_mismatch"
        ]


def test_hex_that_is_stated_may_begin_with_0x(tmp_path: Path) -> None:
    name = "snp-milan-v5-key-bound"
    data = _sample(name)["expected"]["claims"]["report_data"]
    for mark in ("0x", "0X"):
        given = {"expected_report_data_hex": mark + data}
        assert outcome(name, {}, **given).accepted is True
        given = {"expected_report_data_hex": mark + data[:-2] + "00"}
        assert codes(outcome(name, {}, **given)) == ["nonce_mismatch"]
    digest = hashlib.sha256(b"gpu").hexdigest()
    assert Pair({"gpu": b"gpu"}).contradicted({"gpu_sha256_hex": "0x" + digest}) is False
    assert Pair({"gpu": b"gpu"}).contradicted({"gpu_sha256_hex": "0x" + "00" * 32}) is True


@pytest.mark.parametrize(
    ("name", "nonce"),
    [
        (QUOTE, "11" * 32),
        ("snp-genoa-v3", "11" * 32),
        (GPU, "11" * 32),
        ("eventlog-rhel8-uefi", "11" * 32),
        ("corim-cca-platform-valid", "11" * 32),
    ],
)
def test_a_nonce_that_stands_nowhere_is_refused_for_every_kind(name: str, nonce: str) -> None:
    key = "expected_nonce" if name == GPU else "expected_nonce_hex"
    found = outcome(name, {}, **{key: nonce})
    assert (found.authentic, codes(found)) == (False, ["nonce_mismatch"])


@pytest.mark.parametrize("name", [QUOTE, "snp-milan-v5-key-bound"])
@pytest.mark.parametrize("place", [slice(0, 128), slice(0, 64), slice(64, 128)])
def test_a_nonce_is_found_in_the_report_data_where_guests_put_it(name: str, place: slice) -> None:
    nonce = _sample(name)["expected"]["claims"]["report_data"][place]
    none = {"nonce_hex": None, "binding": None}
    assert outcome(name, {}, **none, expected_nonce_hex=nonce).accepted is True
    other = f"{nonce[:-2]}{int(nonce[-2:], 16) ^ 1:02x}"
    found = outcome(name, {}, **none, expected_nonce_hex=other)
    assert (found.authentic, codes(found)) == (False, ["nonce_mismatch"])


def test_a_firmware_logs_quote_answers_what_its_own_kind_answers() -> None:
    name = "ccel-gcp-cos113"
    data = "00" * 64  # this guest was asked nothing
    for inputs, answered in (
        ({"expected_report_data": data}, True),
        ({"expected_nonce_hex": data}, True),
        ({"binding": "report_data == key", "key_hex": data}, True),
        ({"expected_report_data": "11" * 64}, False),
        ({"expected_nonce_hex": "11" * 32}, False),
        ({"binding": "report_data == key", "key_hex": "11" * 64}, False),
    ):
        found = outcome(name, {}, **inputs)
        assert (found.authentic, found.accepted) == (answered, answered), inputs
        assert set(codes(found)) == (set() if answered else {"nonce_mismatch"})


@pytest.mark.parametrize(("end", "found"), [(94, False), (96, True), (98, True)])
def test_a_nonce_longer_than_half_of_the_report_data_stands_before_zeros(
    end: int, found: bool
) -> None:
    """This sample's report data ends in 16 zeros after 48 bytes that do not."""
    name = "tdx-v4-outofdate-00a06d"
    data = _sample(name)["expected"]["claims"]["report_data"]
    given = outcome(name, {}, expected_nonce_hex=data[:end])
    assert (given.authentic, "nonce_mismatch" not in codes(given)) == (found, found)


@pytest.mark.parametrize("end", [2, 32, 62, 66, 126])
def test_a_part_of_what_stands_there_is_no_nonce(end: int) -> None:
    nonce = _sample(QUOTE)["expected"]["claims"]["report_data"][:end]
    assert codes(outcome(QUOTE, {}, expected_nonce_hex=nonce)) == ["nonce_mismatch"]


def test_a_nonce_elsewhere_in_the_report_data_needs_a_rule_that_says_so() -> None:
    nonce = _sample(QUOTE)["expected"]["claims"]["report_data"][32:64]
    assert codes(outcome(QUOTE, {}, expected_nonce_hex=nonce)) == ["nonce_mismatch"]
    rule = {"binding": "report_data[16:32] == nonce", "nonce_hex": nonce}
    assert outcome(QUOTE, {}, expected_nonce_hex=nonce, **rule).accepted is True


def test_the_rule_that_azures_kinds_always_check_fails_as_any_other_does() -> None:
    other = {role: files_of("azure-tdx-v1")[role] for role in ("quote_msg", "quote_sig", "pcrs")}
    assert "signature_invalid" in codes(outcome("azure-snp-milan-v1", other))
    found = outcome("azure-tdx-v1", {"td_quote": files_of(QUOTE)["quote"]})
    assert found.authentic is False
    assert {"report_data_mismatch", "td_report_mismatch", "nonce_mismatch"} <= set(codes(found))


def test_every_code_the_index_lists_is_one_of_ours() -> None:
    """And each of ours is asserted by some test: `test_reason_codes`."""
    assert set(DOCUMENT["reason_codes"]) <= set(CODES)

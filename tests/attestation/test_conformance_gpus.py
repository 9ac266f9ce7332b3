"""A CPU's evidence that names bytes: they must be the genuine evidence of GPUs.

No published CPU evidence names a GPU's, so a simulated TPM, whose key the relying party brings,
quotes over a digest of it. The GPUs' evidence is genuine, from $ANCHORHOLD_VECTORS, with one fact
changed, or a simulated service's.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from simulators.nras import NrasService
from simulators.vtpm import NOW, Vtpm, VtpmMaker

from attestation.conformance.gpus import check_distinct
from attestation.conformance.index import parse_index
from attestation.conformance.run import run_sample
from attestation.conformance.wrapped import MEMBERS_MAX, contents

if TYPE_CHECKING:
    from attestation.conformance.run import Outcome

FOLDER = Path(os.environ.get("ANCHORHOLD_VECTORS", "/nonexistent"))
INDEX = FOLDER / "index.json"
DOCUMENT = json.loads(INDEX.read_bytes()) if INDEX.is_file() else {"vectors": [], "roots": {}}
needs_samples = pytest.mark.skipif(
    not DOCUMENT["vectors"], reason="ANCHORHOLD_VECTORS names no folder of vendor samples"
)
GPU, OTHER, GPUS = "nvidia-hopper-550", "nvidia-hopper-580", "nvidia-hopper-multi4"
SWITCH, BLACKWELL = "nvidia-ls10-switch", "nvidia-blackwell-575"
QUOTE, KEYED = "tdx-v4-uptodate-b0c06f", "snp-milan-v5-key-bound"


def sample(name: str) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(
        next(item for item in DOCUMENT["vectors"] if item["id"] == name)
    )
    return found


def file(name: str, role: str) -> bytes:
    return (FOLDER / sample(name)["files"][role]).read_bytes()


def bound(
    *gpus: str, now: int | None = NOW, binding: str = "", inputs: Any = None, **files: bytes
) -> Outcome:
    """A TPM's quote whose caller's data is the digest of these files, and the files, run.

    Args:
        gpus: the roles that it names, one after the other.
    """
    tpm = Vtpm(VtpmMaker())
    said = hashlib.sha256(b"".join(files[role] for role in gpus)).digest()
    quoted = tpm.evidence(said, ak_cert=None)
    held = {**quoted, "ak_spki": tpm.spki, **files}
    rule = binding or f"extra_data == SHA-256({' || '.join(gpus)})"
    entry = {
        "id": "made",
        "kind": "tpm2-quote",
        "files": {role: role for role in held},
        "verify_at": None if now is None else datetime.fromtimestamp(now, UTC).isoformat(),
        "inputs": {"binding": rule, **(inputs or {})},
        "expected": {"authentic": True, "strict": "accept"},
    }
    document = {
        "schema": "attestation-vectors/1",
        "roots": DOCUMENT["roots"],
        "vectors": [entry],
    }
    index = parse_index(json.dumps(document).encode())
    return run_sample(index.samples[0], index, held.__getitem__)


def codes(found: Outcome) -> list[str]:
    return [reason.code for reason in found.reasons]


def verdict(found: Outcome) -> tuple[bool | None, bool | None, set[str]]:
    return found.authentic, found.accepted, set(codes(found))


GENUINE = (True, True, set[str]())


def report(name: str = GPU) -> dict[str, bytes]:
    """One device's evidence with its chain beside it."""
    return {"gpu_evidence": file(name, "evidence"), "gpu_cert_chain": file(name, "cert_chain")}


def item(name: str = GPU, **changes: Any) -> dict[str, Any]:
    """One device as NVIDIA's tools write it."""
    return {
        "evidence": base64.b64encode(file(name, "evidence")).decode(),
        "certificate": base64.b64encode(file(name, "cert_chain")).decode(),
        **changes,
    }


# ---- genuine evidence that the CPU names costs no acceptance


@needs_samples
@pytest.mark.parametrize("name", [GPU, OTHER, BLACKWELL, SWITCH])
def test_a_genuine_device_that_the_cpu_names_is_accepted(name: str) -> None:
    found = bound("gpu_evidence", **report(name))
    assert (verdict(found), found.ignored, found.faults) == (GENUINE, (), ())


@needs_samples
def test_genuine_devices_in_one_list_that_the_cpu_names_are_accepted() -> None:
    found = bound("gpu_evidence", gpu_evidence=file(GPUS, "evidence_list"))
    assert (verdict(found), found.faults) == (GENUINE, ())


@needs_samples
def test_devices_of_both_kinds_in_files_of_their_own_are_accepted() -> None:
    found = bound(
        "gpu_0_evidence", "nvswitch_evidence",
        gpu_0_evidence=file(GPU, "evidence"), gpu_0_chain=file(GPU, "cert_chain"),
        nvswitch_evidence=file(SWITCH, "evidence"), nvswitch_chain=file(SWITCH, "cert_chain"),
    )  # fmt: skip
    assert (verdict(found), found.ignored) == (GENUINE, ())


@needs_samples
def test_evidence_in_the_wrappings_of_other_tools_is_read() -> None:
    chain = file(GPU, "cert_chain")
    raw = file(GPU, "evidence")
    for files in (
        {"gpu": base64.b64encode(raw), "gpu_chain": chain},
        {"gpu": base64.encodebytes(raw), "gpu_chain": base64.b64encode(chain)},
        {"gpu": base64.urlsafe_b64encode(raw).rstrip(b"="), "gpu_chain": chain},
        {"gpu": raw.hex().encode(), "gpu_chain": chain},
        {"gpu": b"0x" + raw.hex().upper().encode() + b"\n", "gpu_chain": chain},
        {"gpu": json.dumps(item()).encode()},
        {"gpu": json.dumps({"gpu": [item()], "of": "one node"}).encode()},
        {"gpu": json.dumps({"nvidia_payload": json.dumps([item()])}).encode()},
        {"gpu": json.dumps({"gpu_0": item(), "gpu_1": item(OTHER)}).encode()},
        {"gpu": base64.b64encode(json.dumps([item()]).encode())},
        {"gpu": json.dumps({"report": raw.hex(), "chain": chain.decode()}).encode()},
    ):
        found = bound("gpu", **files)
        assert (verdict(found), found.ignored) == (GENUINE, ()), files["gpu"][:40]


@needs_samples
def test_the_devices_own_chain_is_found_among_others() -> None:
    chains = {"a_chain": file(OTHER, "cert_chain"), "b_chain": file(SWITCH, "cert_chain")}
    assert verdict(bound("gpu_evidence", **chains, **report())) == GENUINE


@needs_samples
def test_a_chain_without_its_root_ends_in_one_that_stands_beside_it() -> None:
    mark = b"-----BEGIN CERTIFICATE-----"
    root = (FOLDER / "roots" / "nvidia-device-root.pem").read_bytes()
    files = report()
    kept = [
        mark + part
        for part in files["gpu_cert_chain"].split(mark)[1:]
        if (mark + part).split() != root.split()
    ]
    files["gpu_cert_chain"] = b"".join(kept)
    assert verdict(bound("gpu_evidence", **files, gpu_root=root)) == GENUINE


def test_a_services_word_is_verified_with_its_key_set() -> None:
    service = NrasService()
    found = bound("eat", now=service.now + 1, eat=service.bundle(), nras_jwks=service.jwks())
    assert (verdict(found), found.ignored) == (GENUINE, ())


# ---- what cannot be verified is not accepted, and neither true nor false


@needs_samples
@pytest.mark.parametrize(
    "data", [b"", b"any bytes", b"{}", b"[]", b'{"gpu": []}', b"a.b.c", b"QUFB" * 40, b"aa" * 40]
)
def test_bytes_that_are_no_gpus_evidence_are_not_accepted_for_being_named(data: bytes) -> None:
    found = bound("gpu_evidence", gpu_evidence=data)
    named = {"evidence_malformed", "gpu_not_bound_to_cpu"} if data else {"gpu_not_bound_to_cpu"}
    assert found.accepted is False
    assert named <= set(codes(found))


@needs_samples
def test_the_report_data_of_a_genuine_report_names_no_gpu_by_being_one() -> None:
    for name, rule in ((KEYED, "report_data"), (QUOTE, "report_data"), ("nitro-production-nonce",
        "nonce")):  # fmt: skip
        entry = sample(name)
        claim = entry["expected"]["claims"][rule]
        held = {role: (FOLDER / path).read_bytes() for role, path in entry["files"].items()}
        held["gpu_evidence"] = bytes.fromhex(claim)
        entry |= {"files": {role: role for role in held}, "sha256": {}}
        entry["inputs"] = {"binding": f"{rule} == gpu_evidence"}
        index = parse_index(json.dumps({**DOCUMENT, "vectors": [entry]}).encode())
        found = run_sample(index.samples[0], index, held.__getitem__)
        reasons = {"evidence_malformed", "gpu_not_bound_to_cpu"}
        assert verdict(found) == (True, False, reasons), name


@needs_samples
def test_a_report_without_any_chain_is_not_accepted() -> None:
    found = bound("gpu_evidence", gpu_evidence=file(GPU, "evidence"))
    assert verdict(found) == (True, False, {"collateral_missing", "chain_invalid"})


def test_a_services_word_without_its_keys_is_not_accepted() -> None:
    service = NrasService()
    found = bound("eat", now=service.now + 1, eat=service.bundle())
    assert verdict(found) == (True, False, {"unknown_signing_key"})


@needs_samples
def test_a_part_that_does_not_parse_is_not_passed_over() -> None:
    genuine = {"gpu": [item()], "notes": ["none"]}
    assert verdict(bound("gpu", gpu=json.dumps(genuine).encode())) == GENUINE
    for other in ([{"evidence": "AA", "certificate": "AA"}], {"evidence_list": []}):
        data = json.dumps({**genuine, "nvswitch": other}).encode()
        named = {"evidence_malformed", "gpu_not_bound_to_cpu"}
        assert verdict(bound("gpu", gpu=data)) == (True, False, named)


@needs_samples
def test_a_member_that_is_there_twice_is_none() -> None:
    one = json.dumps([item()])
    data = f'{{"gpu": {one}, "gpu": {one}}}'.encode()
    assert bound("gpu", gpu=data).accepted is False


@needs_samples
def test_each_file_that_is_named_is_examined() -> None:
    files = report() | {"gpu_b": b"any bytes"}
    found = bound("gpu_evidence", "gpu_b", **files)
    assert verdict(found) == (True, False, {"evidence_malformed", "gpu_not_bound_to_cpu"})


# ---- what is refused is not authentic


@needs_samples
def test_a_report_that_its_device_did_not_sign_is_not_authentic() -> None:
    for files in (
        report("nvidia-hopper-bad-signature"),
        report() | {"gpu_cert_chain": file(OTHER, "cert_chain")},
    ):
        found = bound("gpu_evidence", **files)
        assert (found.authentic, found.accepted) == (False, False)
        assert "signature_invalid" in codes(found)


@needs_samples
def test_one_bad_device_of_a_list_makes_all_of_it_not_authentic() -> None:
    entries = json.loads(file(GPUS, "evidence_list"))
    entries = entries["evidence_list"] if isinstance(entries, dict) else entries
    entries[1]["certificate"] = entries[0]["certificate"]
    found = bound("gpus", gpus=json.dumps(entries).encode())
    assert (found.authentic, found.accepted) == (False, False)
    assert "signature_invalid" in codes(found)


def test_a_services_word_by_another_key_is_not_authentic() -> None:
    service, other = NrasService(), NrasService()
    for data, keys, code in (
        (service.bundle(), other.jwks(), "signature_invalid"),
        (NrasService(now=service.now - 90_000).bundle(), service.jwks(), "token_expired"),
    ):
        found = bound("eat", now=service.now + 1, eat=data, jwks=keys)
        assert (found.authentic, code in codes(found)) == (False, True)


@needs_samples
def test_a_device_that_answers_twice_counts_once() -> None:
    chain = file(GPU, "cert_chain")
    twice = {"gpu_a": file(GPU, "evidence"), "gpu_b": json.dumps([item()]).encode()}
    found = bound("gpu_a", "gpu_b", gpu_chain=chain, **twice)
    assert verdict(found) == (True, False, {"device_repeated"})
    assert check_distinct([]) == "0 distinct devices"


# ---- what inputs ask of the GPUs


@needs_samples
@pytest.mark.parametrize(
    "key", ["gpu_nonce", "gpu_nonce_hex", "expected_gpu_nonce_hex", "nvidia_nonce",
            "gpu_evidence_nonce"],
)  # fmt: skip
def test_a_nonce_that_is_stated_for_the_gpus_must_be_theirs(key: str) -> None:
    nonce = sample(GPU)["inputs"]["expected_nonce"]
    found = bound("gpu_evidence", inputs={key: nonce}, **report())
    assert (verdict(found), found.ignored, found.faults) == (GENUINE, (), ())
    found = bound("gpu_evidence", inputs={key: "11" * 32}, **report())
    assert verdict(found) == (False, False, {"nonce_mismatch"})
    assert bound("gpu_evidence", inputs={key: "no hex"}, **report()).faults


@needs_samples
def test_a_nonce_of_one_role_is_asked_of_that_one() -> None:
    files = {
        "gpu_a": json.dumps([item()]).encode(),
        "gpu_b": json.dumps([item(OTHER)]).encode(),
    }
    own = {
        f"gpu_{x}_nonce": sample(n)["inputs"]["expected_nonce"]
        for x, n in (("a", GPU), ("b", OTHER))
    }
    assert verdict(bound("gpu_a", "gpu_b", inputs=own, **files)) == GENUINE
    own["gpu_b_nonce"] = own["gpu_a_nonce"]
    assert verdict(bound("gpu_a", "gpu_b", inputs=own, **files))[2] == {"nonce_mismatch"}
    two = {"gpu_nonce": own["gpu_a_nonce"], "gpu_a_nonce": "11" * 32}
    assert "two nonces" in bound("gpu_a", "gpu_b", inputs=two, **files).faults[0]


@needs_samples
@pytest.mark.parametrize("key", ["arch", "expected_arch"])
def test_an_architecture_that_is_stated_is_the_gpus_and_no_switchs(key: str) -> None:
    both = {
        "gpu_evidence": json.dumps([item()]).encode(),
        "nvswitch": json.dumps([item(SWITCH)]).encode(),
    }
    for arch, reasons in (
        ("hopper", set()),
        ("LS10", set()),
        ("BLACKWELL", {"gpu_architecture_mismatch"}),
    ):
        found = bound("gpu_evidence", "nvswitch", inputs={key: arch}, **both)
        assert (set(codes(found)), found.authentic) == (reasons, not reasons)
        assert found.ignored == ()


@needs_samples
def test_devices_that_the_cpu_does_not_name_are_not_asked() -> None:
    files = report("nvidia-hopper-bad-signature")
    rule = "extra_data == digest"
    said = hashlib.sha256(files["gpu_evidence"]).hexdigest()
    found = bound("gpu_evidence", binding=rule, inputs={"digest": said}, **files)
    assert found.authentic is False  # its digest, under whatever name, is its name
    told = bound("ak_note", binding="extra_data == SHA-256(note)", ak_note=b"n",
                 inputs={"note": b"n".hex(), "gpu_nonce": "11"}, **files)  # fmt: skip
    assert verdict(told) == (True, False, {"gpu_not_bound_to_cpu"})
    assert {"gpu_cert_chain", "gpu_nonce"} <= set(told.ignored)


# ---- time


@needs_samples
def test_the_gpus_certificates_hold_at_the_time_of_the_sample() -> None:
    early = int(datetime(2021, 12, 1, tzinfo=UTC).timestamp())
    found = bound("gpu_evidence", now=early, **report())
    assert verdict(found) == (False, False, {"certificate_not_valid_at_time"})


@needs_samples
def test_a_sample_without_a_time_needs_one_where_it_has_certificates() -> None:
    (fault,) = bound("gpu_evidence", now=None, **report()).faults
    assert "verify_at is null" in fault


# ---- evidence under other names, and wrapped


@needs_samples
def test_wrapped_evidence_under_any_name_is_a_gpus() -> None:
    raw = file(GPU, "evidence")
    for data in (
        base64.b64encode(raw),
        base64.encodebytes(raw),
        raw.hex().encode(),
        json.dumps({"gpu": [item()]}).encode(),
        json.dumps({"a": 1, "gpu": {"evidences": []}}).encode(),
        json.dumps({"nvidia_payload": json.dumps([item()])}).encode(),
        json.dumps([raw.hex()]).encode(),
        base64.b64encode(json.dumps({"gpu": [item()]}).encode()),
    ):
        found = bound("note", binding="extra_data == SHA-256(text)", note=b"n",
                      inputs={"text": b"n".hex()}, accelerator=data)  # fmt: skip
        assert verdict(found) == (True, False, {"gpu_not_bound_to_cpu"}), data[:40]


@pytest.mark.parametrize(
    ("data", "inside"),
    [
        (b"", []),
        (b"\xff\x00", []),
        (b"AAAA", []),  # too short to be evidence
        (b"A" * 65, []),  # one digit too many
        (b"aG9sYQ" + b"A" * 64, [b"hola" + bytes(48)]),
        (b"ab" * 40, [b"\xab" * 40]),
        (b'{"a": "x", "b": [1], "c": 2, "d": null}', [b"x", b"[1]"]),
        (b'{"a": "x", "a": "y"}', []),
        (b'["x", {}]', [b"x", b"{}"]),
        (b'["\\ud800"]', [b"?"]),
        (b"[" * 5000 + b"]" * 5000, []),
        (b"[[" + b"1" * 5000 + b"]]", [b'["LongNumber"]']),
        (b'{"a": "' + b"ab" * 40 + b'"}', [b"ab" * 40, b"\xab" * 40]),
    ],
)
def test_what_a_file_holds_inside(data: bytes, inside: list[bytes]) -> None:
    assert list(contents(data)) == [data, *inside]


def test_of_many_members_the_first_are_looked_at() -> None:
    data = json.dumps(["x"] * (MEMBERS_MAX + 1)).encode()
    assert len(list(contents(data))) == 1 + MEMBERS_MAX

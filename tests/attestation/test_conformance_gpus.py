"""A CPU's evidence that names bytes: they must be the genuine evidence of GPUs.

No published CPU evidence names a GPU's, so a simulated TPM, whose key the relying party brings,
quotes over a digest of it. The GPUs' evidence is genuine, from $ANCHORHOLD_VECTORS, with one fact
changed, or a simulated service's.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime

import pytest
from simulators.nras import NrasService, gpu_claims
from simulators.nvidia import Nvidia
from simulators.vendor_samples import (
    BLACKWELL,
    DOCUMENT,
    FOLDER,
    GENUINE,
    GPU,
    GPUS,
    KEYED,
    OTHER,
    QUOTE,
    SWITCH,
    bound,
    codes,
    file,
    item,
    needs_samples,
    report,
    sample,
    verdict,
)

from attestation.conformance.gpu_file import FOUND_MAX
from attestation.conformance.gpus import check_distinct
from attestation.conformance.index import parse_index
from attestation.conformance.run import run_sample
from attestation.formats.nvidia_chain import parse_chain

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
@pytest.mark.parametrize("absent", ["one of two", "all of a line but its leaf"])
def test_a_report_whose_chain_is_not_here_is_not_forged(absent: str) -> None:
    """What the certificates of another device, or of none, say of it is nothing."""
    mark = b"-----BEGIN CERTIFICATE-----"
    leaf, *above = [mark + part for part in file(GPU, "cert_chain").split(mark)[1:]]
    one = {"gpu_evidence": file(GPU, "evidence"), "leaf_cert": leaf, "ca_chain": b"".join(above)}
    files = report() | {"gpu_b": file(OTHER, "evidence")} if absent == "one of two" else one
    named = [role for role in files if role in ("gpu_evidence", "gpu_b")]
    assert verdict(bound(*named, **files)) == (True, False, {"collateral_missing", "chain_invalid"})


@needs_samples
def test_a_root_that_a_chain_ends_in_is_told_as_used() -> None:
    """Although the CPU's own kind has a root too, and needs none where its key was brought."""
    mark = b"-----BEGIN CERTIFICATE-----"
    files = report()
    *above, root = [mark + part for part in files["gpu_cert_chain"].split(mark)[1:]]
    files["gpu_cert_chain"] = b"".join(above)
    assert verdict(bound("gpu_evidence", **files))[0] is False
    found = bound("gpu_evidence", **files, root=root)
    assert (verdict(found), found.ignored) == (GENUINE, ())
    unread = bound("ak_note", binding="extra_data == SHA-256(note)", ak_note=b"n",
                   inputs={"note": b"n".hex()}, root=root)  # fmt: skip
    assert "root" in unread.ignored


@needs_samples
def test_of_what_speaks_against_a_device_the_least_is_told() -> None:
    """A switch is no GPU: it is examined as both, and only what a switch's kind says counts."""
    files = report(SWITCH)
    raw = files["gpu_evidence"]
    files["gpu_evidence"] = raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:]
    assert set(codes(bound("gpu_evidence", **files))) == {"signature_invalid"}


@needs_samples
def test_each_file_that_is_named_is_examined() -> None:
    files = report() | {"gpu_b": b"any bytes"}
    found = bound("gpu_evidence", "gpu_b", **files)
    assert verdict(found) == (True, False, {"evidence_malformed", "gpu_not_bound_to_cpu"})


@needs_samples
def test_of_a_sample_only_so_many_reports_are_read_in_all_its_files() -> None:
    words = base64.b64encode(file(SWITCH, "evidence")).decode()
    half = json.dumps([words] * (FOUND_MAX // 2)).encode()
    files = {"gpu_a": half, "gpu_b": half}
    assert set(codes(bound(*files, **files))) == {"collateral_missing", "chain_invalid"}
    files["gpu_c"] = file(SWITCH, "evidence")
    assert "evidence_malformed" in codes(bound(*files, **files))


# ---- what is refused is not authentic


@needs_samples
def test_a_gpus_root_is_nvidias_whatever_the_index_lists() -> None:
    assert verdict(bound("gpu_evidence", roots={}, **report())) == GENUINE
    vendor = Nvidia()
    device = vendor.gpu()
    pin = hashlib.sha256(vendor.root.der).hexdigest()
    files = {"gpu_evidence": device.report(bytes(32)), "gpu_cert_chain": device.chain()}
    found = bound("gpu_evidence", now=vendor.now, roots={"own": {"sha256_der": pin}}, **files)
    assert (found.authentic, "untrusted_root" in codes(found)) == (False, True)


def test_a_services_word_by_a_key_that_its_set_lacks_is_not_authentic() -> None:
    service = NrasService()
    service.header = {"kid": "another"}
    found = bound("eat", now=service.now + 1, eat=service.bundle(), jwks=service.jwks())
    assert verdict(found) == (False, False, {"unknown_signing_key"})


@needs_samples
def test_a_list_of_switches_that_says_nothing_of_them_is_judged_as_one_of_switches() -> None:
    entry = {name: item(SWITCH)[name] for name in ("evidence", "certificate")}
    assert verdict(bound("gpus", gpus=json.dumps([entry]).encode())) == GENUINE
    raw = file(SWITCH, "evidence")
    entry["evidence"] = base64.b64encode(raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:]).decode()
    found = bound("gpus", gpus=json.dumps([entry]).encode())
    assert (found.authentic, set(codes(found))) == (False, {"signature_invalid"})


@needs_samples
def test_a_report_that_its_device_did_not_sign_is_not_authentic() -> None:
    raw = file(GPU, "evidence")
    for files in (
        report("nvidia-hopper-bad-signature"),
        report() | {"gpu_evidence": raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:]},
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


def test_a_device_that_a_service_speaks_of_twice_counts_once() -> None:
    service, other = NrasService(), NrasService()
    other.issuer, other.devices = service.issuer, {"GPU-0": gpu_claims(1)}
    bundle, again, another = service.bundle(), service.bundle(), other.bundle()
    assert bundle != again
    keys = {"now": service.now + 1, "jwks": service.jwks()}
    one = json.loads(bundle)
    for files in (
        {"gpu_a": bundle, "gpu_b": again},
        {"gpu_a": bundle, "gpu_b": bundle + b"\n"},
        {"gpu_a": json.dumps({"gpu_0": one, "gpu_1": one}).encode()},
    ):
        assert verdict(bound(*files, **files, **keys)) == (True, False, {"device_repeated"})
    two = {"gpu_a": bundle, "gpu_b": another}
    assert verdict(bound(*two, **two, **keys)) == GENUINE
    # What is no word of the service names no device.
    forged = {"gpu_a": bundle, "gpu_b": NrasService().bundle()}
    found = bound(*forged, **forged, **keys)
    assert found.authentic is False
    assert "device_repeated" not in codes(found)


@needs_samples
def test_a_report_and_a_services_word_are_of_one_device_and_no_second_one() -> None:
    device = parse_chain(file(GPU, "cert_chain"))
    service = NrasService()
    service.device_claims = {"ueid": str(int(device.serial, 16))}
    files = report() | {"eat": service.bundle(), "jwks": service.jwks()}
    found = bound("gpu_evidence", "eat", now=service.now + 1, **files)
    assert verdict(found) == GENUINE


@needs_samples
def test_a_key_that_did_not_sign_a_report_repeats_no_device() -> None:
    """One certificate beside two reports of a list is a forged report, not a device twice."""
    entries = [item(), item(OTHER, certificate=item()["certificate"])]
    found = bound("gpus", gpus=json.dumps({"a": entries[:1], "b": entries[1:]}).encode())
    assert "signature_invalid" in codes(found)
    assert "device_repeated" not in codes(found)


# ---- what is genuine, and not of the state that the strict rule demands


def test_a_services_word_on_a_device_that_the_strict_rule_refuses_is_not_accepted() -> None:
    for claims, code in (
        ({"dbgstat": "enabled"}, "debug_enabled"),
        ({"ueid": ""}, "device_check_missing"),
    ):
        service = NrasService()
        service.device_claims = claims
        found = bound("eat", now=service.now + 1, eat=service.bundle(), jwks=service.jwks())
        assert verdict(found) == (True, False, {code})
        assert found.reasons[0].step.startswith("gpus 3 eat: nras 1")


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

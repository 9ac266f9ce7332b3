"""What the conformance runner reads in more than one spelling, and what it never lets pass for it.

Each test takes a sample that agrees and changes one thing: how it is written, or what it says.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from simulators.nitro import NitroVendor
from simulators.nras import NOW, NrasService
from simulators.tokens import Issuer
from simulators.vendor_samples import (
    DOCUMENT,
    FOLDER,
    changed,
    file,
    needs_samples,
    published,
    sample,
)

from attestation.conformance.binding_rule import binding_rules
from attestation.conformance.index import Sample, parse_index
from attestation.conformance.roles import KEY_ROLES, by_kind
from attestation.conformance.run import run_sample
from attestation.formats import pem
from attestation.schemes import SCHEMES
from wire.errors import MalformedError

if TYPE_CHECKING:
    from pathlib import Path

    from attestation.conformance.run import Outcome

BOUND = "snp-milan-v5-key-bound"
NONCE = bytes(range(32))


def run(name: str, change: Any, **files: str) -> Outcome:
    """One published sample after `change`; `files` replace paths by role."""

    def with_files(sample: dict[str, Any]) -> None:
        sample["files"] |= files
        change(sample)

    return changed(name, with_files)


def token_sample(kind: str, role: str, keys: bytes, evidence: dict[str, bytes]) -> Outcome:
    files = evidence | {role: keys}
    document = {
        "schema": "attestation-vectors/1",
        "vectors": [
            {
                "id": "made",
                "kind": kind,
                "files": {name: name for name in files},
                "verify_at": datetime.fromtimestamp(NOW, UTC).isoformat(),
                "expected": {"authentic": True, "strict": "accept", "reasons": None},
            }
        ],
    }
    index = parse_index(json.dumps(document).encode())
    return run_sample(index.samples[0], index, files.__getitem__)


# ---- roots


@needs_samples
@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("nitro-production", "roots/nvidia-device-root.pem"),
        ("nvidia-hopper-550", "roots/aws-nitro-root-g1.pem"),
        ("nvidia-ls10-switch", "roots/intel-sgx-root-ca.pem"),
        ("tdx-v4-uptodate-b0c06f", "roots/amd-milan-ark.der"),
        ("nvidia-hopper-multi4", "roots/gce-ek-root.crt"),
    ],
)
def test_genuine_evidence_under_another_vendors_root_is_not_authentic(name: str, root: str) -> None:
    found = run(name, lambda sample: None, root=root)
    assert found.authentic is False
    assert "untrusted_root" in {reason.code for reason in found.reasons}


@needs_samples
@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("tpm2-coco-rsa", "tpm2-quote/tpm2-coco-rsa/ak.spki.der"),
        ("corim-signed-good-corim", "corim/corim-signed-good-corim/signed-good-corim.cbor"),
        ("tpm2-coco-rsa", "roots/mine"),
        ("corim-signed-good-corim", "roots/mine"),
        ("nitro-production", "roots/mine"),
        ("ccel-gcp-cos113", "roots/aws-nitro-root-g1.pem"),
        ("nvidia-hopper-550", "roots/nvidia-rim-root.pem"),
        ("nvidia-hopper-multi4", "roots/nvidia-rim-root.pem"),
        ("nvidia-ls10-switch", "roots/nvidia-rim-root.pem"),
    ],
)
def test_a_root_that_nobody_pins_is_refused_also_where_none_is_read(name: str, root: str) -> None:
    made = NitroVendor(NOW).root

    def read(path: str) -> bytes:
        found = FOLDER / path
        return found.read_bytes() if found.is_file() else made

    outcome = changed(name, lambda sample: sample["files"].update(root=root), read)
    assert outcome.authentic is False
    assert "untrusted_root" in {reason.code for reason in outcome.reasons}


@needs_samples
@pytest.mark.parametrize(
    ("name", "role", "path"),
    [
        ("corim-signed-good-corim", "root", "roots/aws-nitro-root-g1.pem"),
        ("tpm2-coco-rsa", "root", "roots/gce-ek-root.crt"),
        ("tpm2-coco-rsa", "intermediate", "roots/gce-ek-intermediate-2.crt"),
        ("nvidia-hopper-550", "rim", "roots/gce-ek-root.crt"),
        ("nvidia-hopper-multi4", "rim_3", "roots/gce-ek-root.crt"),
        ("tdx-v4-uptodate-b0c06f", "other_root", "roots/gce-ek-root.crt"),
        ("corim-signed-good-corim", "diag", "roots/gce-ek-root.crt"),
    ],
)
def test_a_file_that_no_step_reads_is_told(name: str, role: str, path: str) -> None:
    before = run(name, lambda sample: None)
    found = run(name, lambda sample: None, **{role: path})
    assert (found.accepted, role in before.ignored, role in found.ignored) == (True, False, True)


@needs_samples
@pytest.mark.parametrize("role", ["crl_root", "crl_intermediate"])
def test_a_list_of_what_is_revoked_that_no_step_reads_is_a_fault(role: str) -> None:
    found = run("tpm2-coco-rsa", lambda sample: None, **{role: "roots/gce-ek-root.crt"})
    assert [fault for fault in found.faults if role in fault]


@needs_samples
@pytest.mark.parametrize("role", ["event_log", "ak_cert", "ak_public", "quote_sha256"])
def test_an_empty_file_beside_a_message_that_holds_all_is_told(role: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    found = run("gce-cos-85-nonce9009", lambda sample: None, **{role: str(tmp_path / "empty")})
    assert (found.accepted, role in found.ignored) == (True, True)


# ---- devices


@needs_samples
@pytest.mark.parametrize("name", ["nvidia-hopper-multi4"])
def test_one_device_answers_once(name: str) -> None:
    listed = json.loads(file(name, "evidence_list"))
    devices = listed if isinstance(listed, list) else next(
        value for value in listed.values() if isinstance(value, list)
    )  # fmt: skip
    for chosen, codes in (
        (devices, []),
        (devices[:1], []),
        ([*devices, devices[1]], ["device_repeated"]),
        ([devices[0], devices[0]], ["device_repeated"]),
    ):
        raw = json.dumps(chosen).encode()
        found = changed(
            name,
            lambda sample: sample["expected"].update(claims={}),
            lambda path, raw=raw: published(path) if path.startswith("roots/") else raw,
        )
        assert (found.authentic, [reason.code for reason in found.reasons]) == (True, codes)


@needs_samples
def test_a_root_in_the_other_encoding_is_the_same_root() -> None:
    index = parse_index(json.dumps(DOCUMENT).encode())
    sample = next(item for item in index.samples if item.id == "nitro-production")

    def read(path: str) -> bytes:
        data = published(path)
        return pem.certificates(data, "root")[0] if path == sample.files["root"] else data

    assert run_sample(sample, index, read).ok


@needs_samples
def test_a_composite_may_name_the_root_of_its_other_side() -> None:
    def beside(sample: dict[str, Any]) -> None:
        quote = "intel-tdx-quote/tdx-v4-uptodate-b0c06f/quote.bin"
        sample["files"] |= {"td_quote": quote, "root": "roots/intel-sgx-root-ca.pem"}
        sample["expected"] |= {"strict": "reject", "reasons": ["gpu_not_bound_to_cpu"]}

    found = run("nvidia-hopper-multi4", beside)
    assert (found.authentic, found.accepted) == (True, False)
    assert {reason.code for reason in found.reasons} == {"gpu_not_bound_to_cpu"}


# ---- keys under other names


@pytest.mark.parametrize(
    "role",
    [
        "jwks",
        "keys",
        "jwk",
        "keyset",
        "key_set",
        "nras_jwks",
        "signing_keys",
        "verification_key",
        "verifier",
        "issuer_keys",
        "nvidiaKeys",
        "trusted-public-keys",
    ],
)
def test_a_key_set_is_known_by_what_it_is(role: str) -> None:
    service = NrasService(2)
    found = token_sample("nvidia-nras-eat", role, service.jwks(), {"eat": service.bundle(NONCE)})
    assert found.ok, found.faults
    assert found.ignored == ()


def test_keys_of_somebody_else_stay_somebody_elses_under_any_name() -> None:
    service, other = NrasService(), Issuer()
    found = token_sample("nvidia-nras-eat", "keys", other.jwks(), {"eat": service.bundle(NONCE)})
    assert {reason.code for reason in found.reasons} == {"unknown_signing_key"}


@pytest.mark.parametrize(
    "role",
    ["other_key", "old_jwks", "revoked_key", "untrusted_keys", "attacker_key", "embedded_jwk",
     "token_header_jwk", "header_key", "token_key", "x5c_key", "key_id", "anything", "signer",
     "public", "previous_keys", "not_the_key", "intermediate_key", "ak_public"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["ear-jwt", "corim", "nvidia-nras-eat"])
def test_a_key_that_is_not_called_the_relying_partys_is_none(kind: str, role: str) -> None:
    for keys in (Issuer().jwks(), Issuer().pem()):
        files = {"evidence": b"", role: keys}
        assert by_kind(SCHEMES[kind], files) == files


def test_a_key_that_is_called_revoked_stays_a_fault() -> None:
    service = NrasService(2)
    evidence = {"eat": service.bundle(NONCE)}
    found = token_sample("nvidia-nras-eat", "revoked_keys", service.jwks(), evidence)
    assert found.authentic is False
    assert any("revoked_keys" in fault for fault in found.faults)


def test_of_two_unnamed_key_sets_neither_is_taken() -> None:
    scheme = SCHEMES["ear-jwt"]
    files = {"token": b"", "keys": Issuer().jwks(), "issuer_key": Issuer().pem()}
    assert by_kind(scheme, files) == files


@pytest.mark.parametrize("kind", ["ear-jwt", "corim", "nvidia-nras-eat"])
@pytest.mark.parametrize("own", KEY_ROLES)
def test_a_key_under_the_kinds_own_role_is_the_only_one(kind: str, own: str) -> None:
    """Also where it is none: nobody else's takes its place."""
    for given in (Issuer().pem(), b"no key") if own in SCHEMES[kind].collateral else ():
        files = {"evidence": b"", own: given, "keys": Issuer().jwks()}
        assert by_kind(SCHEMES[kind], files) == files


@pytest.mark.parametrize(
    ("kind", "own"), [("ear-jwt", "jwks"), ("corim", "public_key"), ("nvidia-nras-eat", "jwks")]
)
def test_a_key_under_another_name_is_the_kinds_and_nothing_elses(kind: str, own: str) -> None:
    keys = Issuer().jwks()
    files = {"evidence": b"", "trusted_keys": keys, "notes": keys}
    assert by_kind(SCHEMES[kind], files) == {"evidence": b"", own: keys, "notes": keys}


def test_no_kind_that_takes_keys_calls_something_else_so() -> None:
    """A file would be taken from its own role."""
    for scheme in SCHEMES.values():
        if set(KEY_ROLES) & set(scheme.collateral):
            for role in {*scheme.evidence[0], *scheme.evidence[1], *scheme.collateral}:
                moved = {role: Issuer().jwks()}
                assert by_kind(scheme, moved) == moved


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"keys": []}'])
@pytest.mark.parametrize("role", ["keys", "notes"])
def test_what_does_not_read_as_keys_is_none(role: str, data: bytes) -> None:
    files = {"token": b"", role: data}
    assert by_kind(SCHEMES["ear-jwt"], files) == files


def test_a_kind_without_keys_takes_none() -> None:
    files = {"quote": b"", "keys": Issuer().jwks()}
    assert by_kind(SCHEMES["intel-tdx-quote"], files) == files


# ---- binding rules


@needs_samples
@pytest.mark.parametrize(
    "text",
    [
        "report_data == SHA512(nonce||x25519_public)",
        "report_data == sha-512(nonce ‖ x25519_public)",
        "report_data[0:64]==SHA-512( nonce, x25519_public )",
        "SHA-512(nonce || x25519_public) == report_data",
        "report_data[:32] == report_data_head and report_data == SHA-512(nonce + x25519_public)",
    ],
)
def test_a_rule_is_read_in_the_spellings_people_use(text: str) -> None:
    def spelt(sample: dict[str, Any]) -> None:
        head = sample["expected"]["claims"]["report_data"][:64]
        sample["inputs"] |= {"binding": text, "report_data_head_hex": head}

    assert run(BOUND, spelt).ok

    def lied(sample: dict[str, Any]) -> None:
        spelt(sample)
        sample["inputs"]["x25519_public_hex"] = "00" * 32

    assert run(BOUND, lied).authentic is False


@needs_samples
def test_hex_of_an_input_may_begin_with_0x() -> None:
    def marked(sample: dict[str, Any]) -> None:
        inputs = sample["inputs"]
        inputs["nonce_hex"] = "0x" + inputs["nonce_hex"]

    assert run(BOUND, marked).ok


@needs_samples
@pytest.mark.parametrize("name", ["azure-snp-milan-v1", "azure-tdx-v1"])
def test_each_clause_of_the_rule_azure_kinds_always_check_is_known(name: str) -> None:
    rule = sample(name)["inputs"]["binding"]
    for clause in (*rule.split("; "), rule.removeprefix("TEE ")):
        assert run(name, lambda sample, clause=clause: sample["inputs"].update(binding=clause)).ok


def test_a_clause_of_azures_is_none_of_another_kind() -> None:
    sample = Sample(
        "s", "amd-sev-snp-report", {}, {}, None,
        {"binding": "HCLAkPub signs the TPM quote"}, True, None, (), {},
    )  # fmt: skip
    with pytest.raises(MalformedError):
        binding_rules(sample, {})


# ---- null, and hex in capitals


@needs_samples
@pytest.mark.parametrize("member", ["sha256", "inputs"])
def test_a_member_that_may_be_absent_may_be_null(member: str) -> None:
    assert run("nitro-production", lambda sample: sample.update({member: None})).ok


@needs_samples
def test_a_claim_in_capitals_is_the_same_bytes() -> None:
    def capitals(sample: dict[str, Any]) -> None:
        claims = sample["expected"]["claims"]
        claims["pcrs"] = {key: value.upper() for key, value in claims["pcrs"].items()}

    assert run("nitro-production", capitals).ok


@needs_samples
def test_a_word_in_capitals_is_another_word() -> None:
    def capitals(sample: dict[str, Any]) -> None:
        sample["expected"]["claims"]["module_id"] = sample["expected"]["claims"][
            "module_id"
        ].upper()

    found = run("nitro-production", capitals)
    assert not found.ok
    assert set(found.differing) == {"module_id"}

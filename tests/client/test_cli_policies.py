"""Policies on the command line: explained whole, signed, and reference values for them."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from simulators.corim import CorimPublisher, digest, element, environment
from simulators.tee import SoftwareTee

from attestation.policy import _OPTIONAL, _REQUIRED, parse_policy
from client.policy_words import explain

if TYPE_CHECKING:
    from pathlib import Path

TAG = "sha256:" + "ab" * 32
CHIP = "cd" * 64
GPU = {
    "architectures": ["HOPPER"], "models": "any", "driver_in": ["550.90.07"], "vbios_in": "any",
    "modes": ["spt"], "rim": "required", "rim_ocsp": "required", "ocsp": "required", "count": 1,
}  # fmt: skip
VALUE = "ef" * 48
HARDWARE = [
    {
        "kind": "intel-tdx-quote",
        "measurements": [TAG],
        "image": {"any_of": [dict.fromkeys(("mr_td", "rt_mr0", "rt_mr1", "rt_mr2"), VALUE)]},
        "tcb": {"min_eval_number": 18},
        "gpu": GPU,
    },
    {
        "kind": "amd-sev-snp-report",
        "measurements": [TAG],
        "image": {"measurement_in": [VALUE]},
        "products": ["Genoa", "Milan"],
        "min_tcb": {"Genoa": {"bl": 10}, "Milan": {}},
    },
    {
        "kind": "aws-nitro-document",
        "measurements": [TAG],
        "image": {"any_of": [{"pcr0": VALUE}]},
    },
]


def document(**changes: Any) -> dict[str, Any]:
    demands = SoftwareTee().demands
    return {**demands, "expires": 2**33, "accept": HARDWARE, **changes}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document(deny={"chip_ids": [CHIP]})))
    return path


def test_explain_names_every_demand_as_the_policy_does() -> None:
    obj = document()
    policy = parse_policy(json.dumps(obj).encode())
    applies, *accepts, _ = [{name for name, _ in lines} for _, lines in explain(policy)]
    listed = {name.partition(".")[0].partition("[")[0] for name in applies}
    outside = {"v", "seq", "not_before", "expires", "accept", "deny"}
    assert listed - {"digest", "valid"} == {*_REQUIRED, *_OPTIONAL} - outside
    for rule, names in zip(obj["accept"], accepts, strict=True):
        assert rule.keys() <= {name.partition(".")[0] for name in names}


def test_explain_says_what_is_demanded_of_gpus_and_denied(run: Any, policy: Path) -> None:
    code, out, _ = run("policy", "explain", policy)
    assert code == 0
    assert "gpu.driver_in" in out
    assert "550.90.07" in out
    assert "deny.chip_ids" in out
    assert CHIP in out
    assert "no GPU evidence is asked for" in out


def test_explain_says_what_may_not_be_hidden(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    for deny, words in (
        ({}, "none"),
        ({"measurements": [TAG]}, "none"),
        ({"chip_ids": [CHIP]}, "evidence that hides its chip_id"),
        ({"serials": ["9a"], "keys": ["ab" * 32]}, "evidence that hides its key or serial"),
    ):
        path.write_text(json.dumps(document(deny=deny)))
        refuses = dict(explain(parse_policy(path.read_bytes())))["refuses, whatever else holds"]
        assert ("hidden", words) in refuses
        assert words in run("policy", "explain", path)[1]


def test_explain_as_json_has_the_same_lines(run: Any, policy: Path) -> None:
    code, out, _ = run("policy", "explain", policy, "--json")
    assert code == 0
    found = [
        (section["section"], [(line["name"], line["value"]) for line in section["demands"]])
        for section in json.loads(out)
    ]
    assert found == explain(parse_policy(policy.read_bytes()))


def test_check_warns_of_a_product_whose_keys_are_out(run: Any, policy: Path) -> None:
    code, out, _ = run("policy", "check", policy)
    assert code == 0
    assert "accepts AMD Milan: its keys were extracted" in out


def test_a_signed_policy_is_checked_with_its_key_only(
    run: Any, policy: Path, tmp_path: Path
) -> None:
    key, signed = tmp_path / "policy.key", tmp_path / "signed.json"
    code, public, _ = run("policy", "keygen", key)
    assert (code, len(public.strip())) == (0, 43)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert run("policy", "sign", policy, "--key", key, "--out", signed)[0] == 0
    assert run("policy", "check", signed, "--policy-key", public.strip())[0] == 0
    code, _, err = run("policy", "check", signed)
    assert (code, "expected the key to check it with" in " ".join(err.split())) == (4, True)
    code, _, err = run("policy", "check", policy, "--policy-key", public.strip())
    assert (code, "found no signature" in err) == (4, True)
    other = "A" * 43
    code, _, err = run("policy", "check", signed, "--policy-key", other)
    assert (code, "expected one by a configured policy key" in " ".join(err.split())) == (4, True)


def test_a_policy_changed_after_it_was_signed_is_refused(
    run: Any, policy: Path, tmp_path: Path
) -> None:
    key, signed = tmp_path / "policy.key", tmp_path / "signed.json"
    public = run("policy", "keygen", key)[1].strip()
    run("policy", "sign", policy, "--key", key, "--out", signed)
    members = json.loads(signed.read_text())
    plain = tmp_path / "other.json"
    plain.write_text(json.dumps(document(seq=9)))
    run("policy", "sign", plain, "--key", key, "--out", tmp_path / "second.json")
    second = json.loads((tmp_path / "second.json").read_text())
    signed.write_text(json.dumps({**members, "payload": second["payload"]}))
    assert run("policy", "check", signed, "--policy-key", public)[0] == 4


def test_a_key_file_is_never_overwritten(run: Any, tmp_path: Path) -> None:
    key = tmp_path / "policy.key"
    run("policy", "keygen", key)
    before = key.read_bytes()
    code, _, err = run("policy", "keygen", key)
    assert (code, key.read_bytes() == before) == (4, True)
    assert "expected a new file" in err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("sign", "POLICY", "--key", "POLICY", "--out", "x"), "no Ed25519 private key"),
        (("sign", "missing", "--key", "POLICY", "--out", "x"), "missing"),
        (("check", "POLICY", "--policy-key", "short"), "43 base64url characters"),
        (("explain", "missing"), "missing"),
        (("values", "POLICY"), "evidence_malformed"),
        (("keygen", "/nonexistent/folder/key"), "cannot be written"),
    ],
)
def test_wrong_input_gets_a_sentence(
    run: Any, policy: Path, words: tuple[str, ...], found: str
) -> None:
    code, _, err = run("policy", *(policy if word == "POLICY" else word for word in words))
    assert code in (2, 4)
    assert found in err


def publisher() -> CorimPublisher:
    made = CorimPublisher()
    made.reference(environment(vendor="acme"), element("firmware", {2: [[1, digest("fw")]]}))
    return made


def test_reference_values_are_printed_only_from_a_signed_manifest(run: Any, tmp_path: Path) -> None:
    made = publisher()
    corim, key = tmp_path / "release.corim", tmp_path / "key.jwk"
    corim.write_bytes(made.signed())
    key.write_bytes(made.public_key)
    code, out, _ = run("policy", "values", corim, "--key", key)
    assert code == 0
    assert digest("fw").hex() in out
    code, out, _ = run("policy", "values", corim, "--key", key, "--json")
    assert json.loads(out)["values"][0]["digests"] == {"sha256": [digest("fw").hex()]}
    code, out, err = run("policy", "values", corim)
    assert (code, out) == (2, "")
    assert "unknown_signing_key" in err


def test_an_unsigned_manifest_needs_the_word_of_who_takes_it(run: Any, tmp_path: Path) -> None:
    corim = tmp_path / "release.corim"
    corim.write_bytes(publisher().unsigned())
    code, out, err = run("policy", "values", corim)
    assert (code, out, "signature_missing" in err) == (3, "", True)
    assert run("policy", "values", corim, "--unsigned")[0] == 0


def pem_of(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def private_pem_of(key: Any) -> bytes:
    private: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"junk", "not well formed"),
        (b"{}", "expected a string"),
        (b'{"keys":[]}', "found no key, expected one of an elliptic curve or Ed25519"),
        (
            pem_of(rsa.generate_private_key(65537, 2048)),
            "found no key of a kind that signs manifests",
        ),
        (
            private_pem_of(ec.generate_private_key(ec.SECP256R1())),
            "found PEM of something else, expected -----BEGIN PUBLIC",
        ),
    ],
    ids=["junk", "no key", "empty set", "RSA", "private"],
)
def test_a_key_file_of_another_kind_is_no_verdict_on_the_publisher(
    run: Any, tmp_path: Path, content: bytes, said: str
) -> None:
    corim, key = tmp_path / "release.corim", tmp_path / "key"
    corim.write_bytes(publisher().signed())
    key.write_bytes(content)
    code, out, err = run("policy", "values", corim, "--key", key)
    told = " ".join(err.split())
    assert (code, out) == (4, "")
    assert f"key file {key}: " in told
    assert said in told
    assert "hint: name the publisher's public key" in told


def test_a_publishers_key_may_be_in_pem_and_another_publishers_is_a_verdict(
    run: Any, tmp_path: Path
) -> None:
    made, corim = publisher(), tmp_path / "release.corim"
    corim.write_bytes(made.signed())
    for name, key, expected in (
        ("own", made.key, 0),
        ("other", CorimPublisher().key, 2),
    ):
        path = tmp_path / name
        path.write_bytes(pem_of(key))
        assert run("policy", "values", corim, "--key", path)[0] == expected

"""Reports that real GPUs and switches made: claims, verdicts, and refusal of every change.

The samples come from $ANCHORHOLD_VECTORS (index.json, kinds `nvidia-*-spdm*`).
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from simulators.nvidia import Nvidia

from attestation.anchors import NVIDIA_RIM
from attestation.examined import Examined, Expected, Question
from attestation.formats.nvidia_chain import parse_chain
from attestation.formats.spdm import parse_report
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import nvidia_gpu, nvidia_list, nvidia_switch
from attestation.verify.spdm import check_signature, parse_device
from wire.errors import AttestationError, MalformedError, PolicyError

if TYPE_CHECKING:
    from attestation.scheme import Scheme

SCHEMES = {module.SCHEME.kind: module.SCHEME for module in (nvidia_gpu, nvidia_switch, nvidia_list)}
IDS = (
    "nvidia-blackwell-575",
    "nvidia-hopper-550",
    "nvidia-hopper-580",
    "nvidia-hopper-bad-signature",
    "nvidia-hopper-nonce-mismatch",
    "nvidia-hopper-multi4",
    "nvidia-ls10-bad-signature",
    "nvidia-ls10-switch",
)
HOPPER, BLACKWELL, SWITCH, LIST = IDS[1], IDS[0], IDS[7], IDS[5]


class Sample:
    """One vector: its files, and the question that the index asks."""

    def __init__(self, vectors: dict[str, Any], name: str) -> None:
        self.vector = vectors[name]
        self.scheme: Scheme = SCHEMES[self.vector["kind"]]
        files = {
            role: (vectors["root"] / path).read_bytes()
            for role, path in self.vector["files"].items()
        }
        self.evidence = {role: files[role] for role in self.scheme.evidence[0]}
        self.collateral = {role: raw for role, raw in files.items() if role not in self.evidence}
        self.now = int(datetime.fromisoformat(self.vector["verify_at"]).timestamp())
        inputs = self.vector["inputs"]
        self.expected = Expected(
            nonce=bytes.fromhex(inputs["expected_nonce"]), arch=inputs.get("arch")
        )

    def examine(self, **changes: Any) -> Examined:
        facts: dict[str, Any] = {
            "evidence": self.evidence,
            "collateral": self.collateral,
            "anchors": self.scheme.anchors,
            "now": self.now,
            "expected": self.expected,
            **changes,
        }
        return self.scheme.examine(Question(**facts))

    def with_role(self, role: str, raw: bytes) -> Examined:
        return self.examine(evidence={**self.evidence, role: raw})


@pytest.fixture(params=IDS)
def sample(request: pytest.FixtureRequest, vectors: dict[str, Any]) -> Sample:
    return Sample(vectors, request.param)


@pytest.fixture
def hopper(vectors: dict[str, Any]) -> Sample:
    return Sample(vectors, HOPPER)


def codes(examined: Examined) -> set[str]:
    return {reason.code for reason in examined.reasons}


def strict_rule(scheme: Scheme) -> Any:
    """The index's strict policy: any state, nothing checked beyond authenticity, said in words."""
    values: dict[str, Any] = dict.fromkeys(scheme.rule_keys[0], "any")
    architectures = ["LS10"] if scheme is nvidia_switch.SCHEME else ["HOPPER", "BLACKWELL"]
    values |= {"architectures": architectures, "rim": "not_checked", "ocsp": "not_checked"}
    values["unknown_fields"] = "accept"
    required, optional = scheme.rule_keys
    return scheme.rule(
        Members(values, "rule", required=required, optional=optional, error=PolicyError)
    )


def test_every_sample_gives_its_verdict_and_a_reason(sample: Sample) -> None:
    examined, expected = sample.examine(), sample.vector["expected"]
    assert examined.authentic is expected["authentic"]
    assert not expected["reasons"] or codes(examined) & set(expected["reasons"])
    assert examined.bound is expected["authentic"]


def test_every_sample_gives_its_claims(sample: Sample) -> None:
    claims = sample.examine().claims
    for name, value in sample.vector["expected"]["claims"].items():
        assert claims[name] == value, name
    json.dumps(dict(claims))


def test_the_strict_rule_accepts_what_the_index_accepts(sample: Sample) -> None:
    examined, ledger = sample.examine(), Ledger()
    sample.scheme.judge(ledger, examined.facts, strict_rule(sample.scheme), sample.now)
    accepted = examined.authentic is True and ledger.accepted
    assert accepted is (sample.vector["expected"]["strict"] == "accept")


@pytest.mark.parametrize("name", [HOPPER, BLACKWELL, SWITCH])
def test_a_bit_flipped_anywhere_in_the_exchange_is_refused(
    vectors: dict[str, Any], name: str
) -> None:
    sample = Sample(vectors, name)
    raw, chain = sample.evidence["evidence"], sample.evidence["cert_chain"]
    # Each byte of the headers, of a block, and of all that stands after the blocks; a sample of
    # the other blocks, which are alike.
    response = parse_report(raw)
    tail = len(raw) - 96 - sum(len(value) + 4 for value in response.opaque.values()) - 34
    places = {*range(160), *range(160, tail, 97), *range(tail, len(raw), 3)}
    for at in sorted(places):
        changed = bytearray(raw)
        changed[at] ^= 1 << at % 8
        with pytest.raises((MalformedError, AttestationError)):
            check_signature(parse_device(bytes(changed), chain))


@pytest.mark.parametrize("extra", [b"\0", b"\1", bytes(96)])
def test_one_byte_after_the_signature_is_refused(hopper: Sample, extra: bytes) -> None:
    examined = hopper.with_role("evidence", hopper.evidence["evidence"] + extra)
    assert examined.authentic is False
    assert {"evidence_malformed", "signature_invalid"} <= codes(examined)
    assert examined.claims["trailing_bytes"] == len(extra)


def test_a_report_cut_anywhere_is_refused(hopper: Sample) -> None:
    raw = hopper.evidence["evidence"]
    for size in (*range(46), *range(46, len(raw), 37), len(raw) - 1):
        examined = hopper.with_role("evidence", raw[:size])
        assert codes(examined) & {"evidence_malformed", "version_not_accepted"}
        assert examined.facts is None


def test_the_chain_is_read_in_either_order_and_with_either_line_end(hopper: Sample) -> None:
    pem = hopper.evidence["cert_chain"]
    found = x509.load_pem_x509_certificates(pem)
    backwards = b"".join(one.public_bytes(Encoding.PEM) for one in reversed(found))
    for text in (backwards, pem.replace(b"\n", b"\r\n"), b"\n" + pem + b"\n\0"):
        assert hopper.with_role("cert_chain", text).authentic is True


def test_a_chain_without_the_root_needs_it_from_outside_and_pinned(hopper: Sample) -> None:
    found = x509.load_pem_x509_certificates(hopper.evidence["cert_chain"])
    cut = b"".join(one.public_bytes(Encoding.PEM) for one in found[:-1])
    evidence = {**hopper.evidence, "cert_chain": cut}
    assert hopper.examine(evidence=evidence).authentic is True
    assert codes(hopper.examine(evidence=evidence, collateral={})) == {"untrusted_root"}


def test_a_root_for_manifests_vouches_for_no_device(hopper: Sample) -> None:
    assert codes(hopper.examine(anchors=NVIDIA_RIM)) == {"untrusted_root"}


def test_a_look_alike_root_is_refused(hopper: Sample) -> None:
    other = Nvidia(hopper.now).gpu()
    report = other.report(hopper.expected.nonce or b"")
    examined = hopper.examine(
        evidence={
            "evidence": report,
            "cert_chain": other.chain(),
        },
        collateral={"root": other.vendor.root.der},
    )
    assert codes(examined) == {"untrusted_root"}


@pytest.mark.parametrize("arch", ["BLACKWELL", "LS10"])
def test_another_architecture_than_expected_is_refused(hopper: Sample, arch: str) -> None:
    examined = hopper.examine(expected=Expected(nonce=hopper.expected.nonce, arch=arch))
    assert codes(examined) == {"gpu_architecture_mismatch"}


def test_switch_evidence_is_no_gpu_and_gpu_evidence_no_switch(vectors: dict[str, Any]) -> None:
    switch, gpu = Sample(vectors, SWITCH), Sample(vectors, HOPPER)
    switch.scheme, gpu.scheme = gpu.scheme, switch.scheme
    for one in (switch, gpu):
        one.expected = Expected(nonce=one.expected.nonce)
        assert codes(one.examine()) == {"product_not_accepted"}


def test_the_chain_of_another_gpu_is_refused(vectors: dict[str, Any]) -> None:
    one, other = Sample(vectors, HOPPER), Sample(vectors, "nvidia-hopper-580")
    examined = one.with_role("cert_chain", other.evidence["cert_chain"])
    assert {"signature_invalid", "fwid_mismatch"} <= codes(examined)


def test_a_time_before_the_certificates_is_refused(hopper: Sample) -> None:
    begin = datetime.fromisoformat(hopper.vector["valid_window"]["not_before"])
    examined = hopper.examine(now=int(begin.timestamp()) - 1)
    assert codes(examined) == {"certificate_not_valid_at_time"}


def test_nothing_asked_is_nothing_bound(hopper: Sample) -> None:
    examined = hopper.examine(expected=Expected())
    assert examined.authentic is True
    assert examined.bound is False
    assert not [check for check in examined.checks if "nonce" in check.step]


def test_collateral_is_named_from_the_certified_chain(sample: Sample) -> None:
    names = [(need.source, need.key.split("/")[0]) for need in sample.scheme.needs(sample.evidence)]
    assert ("nvidia-ocsp", "ocsp") in names
    assert ("nvidia-rim", "rim") in names
    assert sample.scheme.needs({}) == ()


def test_identities_name_serial_chip_and_key(hopper: Sample) -> None:
    chain = parse_chain(hopper.evidence["cert_chain"])
    assert set(hopper.examine().identities) == {
        f"serial:{chain.serial.lower()}",
        f"chip_id:{chain.chip.lower()}",
        f"key:{chain.key_sha256.hex()}",
    }


def test_one_changed_device_of_a_list_refuses_the_list(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, LIST)
    entries = json.loads(sample.evidence["evidence_list"])
    report = bytearray(base64.b64decode(entries[2]["evidence"]))
    report[60] ^= 1
    entries[2]["evidence"] = base64.b64encode(report).decode()
    examined = sample.with_role("evidence_list", json.dumps(entries).encode())
    assert codes(examined) == {"signature_invalid"}
    assert [check.step for check in examined.checks if not check.ok] == [
        "spdm 5 signature of device 2"
    ]


def test_the_remote_service_form_of_a_list_is_read_alike(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, LIST)
    entries = json.loads(sample.evidence["evidence_list"])
    doc = {
        "nonce": entries[0]["nonce"],
        "arch": "HOPPER",
        "evidence_list": [
            {key: entry[key] for key in ("evidence", "certificate")} for entry in entries
        ],
    }
    examined = sample.with_role("evidence_list", json.dumps(doc).encode())
    assert examined.authentic is True
    assert examined.claims["count"] == len(entries)

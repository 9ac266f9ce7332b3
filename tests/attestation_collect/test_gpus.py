"""GPU evidence: every GPU, the right state, one nonce, and no work before somebody looked."""

import base64
import ctypes
import datetime
import inspect
import json
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from simulators.nvml import BLACKWELL, Certificate, FakeNvml, Gpu, Report, SystemState

from attestation.binding import report32
from attestation.collect.nvml import (
    ACCEPTING,
    ARCHITECTURES,
    CHAIN_MAX,
    DEVTOOLS_OFF,
    ENVIRONMENT_PROD,
    FEATURE_ENABLED,
    NOT_ACCEPTING,
    REPORT_MAX,
    GpuCollector,
    Nvml,
    load_nvml,
)
from attestation.evidence import Evidence
from attestation.formats.container import parse_container
from wire.errors import AttestationError, ConfigError, UnavailableError
from wire.ids import sha256_tag

PARTS = {"model": "sha256:" + "ab" * 32}
BINDING = b'{"a":"binding"}'
NOT_BEFORE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Card:
    """One GPU with a two-certificate chain: enough for what the guest itself looks at."""

    def __init__(self, name: str) -> None:
        issuer, self.key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
        ca = _name("Family CA " + name)
        certificates = [
            _certificate(_name("GPU " + name), ca, self.key, issuer),
            _certificate(ca, ca, issuer, issuer),
        ]
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
        self.gpu = Gpu(pem, lambda nonce: b"\x11\xe0\x01\xff" + nonce + b"\0" + name.encode())

    @property
    def tag(self) -> str:
        public = self.key.public_key()
        return sha256_tag(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), 7, NOT_BEFORE, NOT_BEFORE)
    return builder.sign(signer, hashes.SHA384())


class Verifier:
    """Remembers what it was shown; refuses if told to."""

    def __init__(self) -> None:
        self.shown: list[tuple[bytes, bytes]] = []
        self.nvml: FakeNvml | None = None
        self.refuses = False

    def __call__(self, evidence: bytes, nonce: bytes) -> None:
        assert self.nvml is not None
        assert self.nvml.accepting == NOT_ACCEPTING
        self.shown.append((evidence, nonce))
        if self.refuses:
            raise AttestationError("GPU: not genuine", reasons=("signature_invalid",))


@pytest.fixture(scope="module")
def cards() -> list[Card]:
    return [Card("one"), Card("two")]


@pytest.fixture
def nvml(cards: list[Card]) -> FakeNvml:
    return FakeNvml([card.gpu for card in cards])


@pytest.fixture
def verifier(nvml: FakeNvml) -> Verifier:
    made = Verifier()
    made.nvml = nvml
    return made


@pytest.fixture
def collector(nvml: FakeNvml, verifier: Verifier) -> Iterator[GpuCollector]:
    made = GpuCollector(nvml, verifier, rng=lambda n: b"\x5a" * n)
    yield made
    made.close()


def items(evidence: Evidence) -> list[dict[str, str]]:
    found = parse_container(evidence.body, ("evidence_list",), ())
    assert found.parts == PARTS
    listed: list[dict[str, str]] = json.loads(found.roles["evidence_list"])
    return listed


def test_the_keys_of_all_gpus_are_found_for_the_binding(
    collector: GpuCollector, cards: list[Card]
) -> None:
    assert collector.open() == tuple(card.tag for card in cards)


def test_gpus_accept_work_only_after_their_evidence_was_verified(
    collector: GpuCollector, verifier: Verifier, nvml: FakeNvml
) -> None:
    collector.open()
    ((evidence, nonce),) = verifier.shown
    assert nonce == b"\x5a" * 32
    assert all(item["nonce"] == nonce.hex() for item in json.loads(evidence))
    assert nvml.history == [ACCEPTING]


def test_gpus_whose_evidence_is_refused_never_accept_work(
    collector: GpuCollector, verifier: Verifier, nvml: FakeNvml
) -> None:
    verifier.refuses = True
    with pytest.raises(AttestationError, match="not genuine"):
        collector.open()
    assert ACCEPTING not in nvml.history
    assert not nvml.initialised
    with pytest.raises(RuntimeError, match="before open"):
        collector.attest(BINDING, PARTS)


class Deaf(FakeNvml):
    """A driver that takes the order and leaves the GPUs as they are."""

    def nvmlSystemSetConfComputeGpusReadyState(self, state: int) -> int:  # noqa: N802
        self.history.append(state)
        return 0


def test_gpus_that_do_not_get_ready_though_told_to_are_reported(
    cards: list[Card], verifier: Verifier
) -> None:
    verifier.nvml = nvml = Deaf([card.gpu for card in cards])
    with pytest.raises(UnavailableError, match="found ready state 0, expected 1"):
        GpuCollector(nvml, verifier).open()
    assert nvml.history == [ACCEPTING, NOT_ACCEPTING]
    assert not nvml.initialised


def test_evidence_has_every_gpu_the_bindings_nonce_and_nvidias_shape(
    collector: GpuCollector, nvml: FakeNvml
) -> None:
    nvml.gpus[1] = Gpu(nvml.gpus[1].chain, nvml.gpus[1].report, BLACKWELL)
    collector.open()
    listed = items(collector.attest(BINDING, PARTS))
    assert [item["arch"] for item in listed] == ["HOPPER", "BLACKWELL"]
    for item, gpu in zip(listed, nvml.gpus, strict=True):
        assert set(item) == {"arch", "nonce", "evidence", "certificate"}
        assert item["nonce"] == report32(BINDING).hex()
        assert base64.b64decode(item["evidence"]) == gpu.report(report32(BINDING))
        assert base64.b64decode(item["certificate"]) == gpu.chain


def test_closing_takes_the_gpus_out_of_work(collector: GpuCollector, nvml: FakeNvml) -> None:
    collector.open()
    collector.close()
    collector.close()
    assert nvml.history == [ACCEPTING, NOT_ACCEPTING]
    assert not nvml.initialised


@pytest.mark.parametrize(
    ("member", "value", "sentence"),
    [
        ("feature", 0, "confidential computing off"),
        ("feature", 2, "confidential computing off"),
        ("devtools", 1, "developer tools"),
        ("environment", 1, "environment 1, expected 2"),
        ("environment", 0, "environment 0, expected 2"),
        ("gpus", [], "found 0, expected 1 to 16"),
    ],
)
def test_a_system_in_another_state_is_refused(
    collector: GpuCollector, nvml: FakeNvml, member: str, value: object, sentence: str
) -> None:
    setattr(nvml, member, value)
    with pytest.raises(ConfigError, match=sentence):
        collector.open()
    assert ACCEPTING not in nvml.history
    assert not nvml.initialised


def test_a_gpu_that_cannot_attest_stops_all(collector: GpuCollector, nvml: FakeNvml) -> None:
    nvml.gpus[1] = Gpu(nvml.gpus[1].chain, nvml.gpus[1].report, 8)
    with pytest.raises(ConfigError, match="GPU 1: found architecture 8"):
        collector.open()
    assert ACCEPTING not in nvml.history


def test_one_gpu_seen_twice_is_refused(collector: GpuCollector, nvml: FakeNvml) -> None:
    nvml.gpus[1] = nvml.gpus[0]
    with pytest.raises(ConfigError, match="one key twice"):
        collector.open()


def test_more_gpus_than_a_binding_names_are_refused(
    collector: GpuCollector, nvml: FakeNvml
) -> None:
    nvml.gpus[:] = nvml.gpus[:1] * 17
    with pytest.raises(ConfigError, match="found 17"):
        collector.open()


@pytest.mark.parametrize(
    "report", [b"", b"\x11", b"\x11\xe0\x01\xff" + bytes(32), bytes(0x2001)], ids=len
)
def test_a_report_to_another_nonce_or_of_no_length_is_not_sent(
    collector: GpuCollector, nvml: FakeNvml, report: bytes
) -> None:
    collector.open()
    nvml.gpus[0] = collector._devices[0][1]
    nvml.gpus[0].report, before = (lambda _: report), nvml.gpus[0].report
    try:
        with pytest.raises(UnavailableError, match="GPU 0"):
            collector.attest(BINDING, PARTS)
    finally:
        nvml.gpus[0].report = before


@pytest.mark.parametrize("chain", [b"", b"no PEM", bytes(0x1401)], ids=len)
def test_a_chain_that_is_none_is_refused(
    collector: GpuCollector, nvml: FakeNvml, chain: bytes
) -> None:
    nvml.gpus[0] = Gpu(chain, nvml.gpus[0].report)
    with pytest.raises(UnavailableError, match="GPU 0"):
        collector.open()
    assert ACCEPTING not in nvml.history


@pytest.mark.parametrize(
    "call",
    [
        "nvmlInit",
        "nvmlSystemGetConfComputeState",
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetArchitecture",
        "nvmlDeviceGetConfComputeGpuCertificate",
        "nvmlDeviceGetConfComputeGpuAttestationReport",
        "nvmlSystemSetConfComputeGpusReadyState",
        "nvmlSystemGetConfComputeGpusReadyState",
    ],
)
def test_a_call_that_fails_is_named_and_leaves_nothing_open(
    collector: GpuCollector, nvml: FakeNvml, call: str
) -> None:
    nvml.fails.add(call)
    with pytest.raises(UnavailableError, match="NVML"):
        collector.open()
    assert not nvml.initialised
    assert nvml.accepting == NOT_ACCEPTING


@pytest.mark.skipif(find_spec("pynvml") is not None, reason="nvidia-ml-py is installed")
def test_a_machine_without_nvml_says_what_to_install() -> None:
    with pytest.raises(ConfigError) as caught:
        load_nvml()
    assert "nvidia-ml-py" in caught.value.hint


def test_the_model_has_the_structures_and_numbers_of_nvidias_own_module() -> None:
    real = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for ours, theirs in (
        (SystemState, real.c_nvmlConfComputeSystemState_t),
        (Certificate, real.c_nvmlConfComputeGpuCertificate_t),
        (Report, real.c_nvmlConfComputeGpuAttestationReport_t),
    ):
        assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
        for name, _ in ours._fields_:
            found, expected = getattr(ours, name), getattr(theirs, name)
            assert (found.offset, found.size) == (expected.offset, expected.size)
        assert len(ours._fields_) == len(theirs._fields_)
    assert REPORT_MAX == real.NVML_CC_GPU_ATTESTATION_REPORT_SIZE
    assert CHAIN_MAX == real.NVML_GPU_ATTESTATION_CERT_CHAIN_SIZE
    assert FEATURE_ENABLED == real.NVML_CC_SYSTEM_FEATURE_ENABLED
    assert DEVTOOLS_OFF == real.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF
    assert ENVIRONMENT_PROD == real.NVML_CC_SYSTEM_ENVIRONMENT_PROD
    assert ACCEPTING == real.NVML_CC_ACCEPTING_CLIENT_REQUESTS_TRUE
    assert NOT_ACCEPTING == real.NVML_CC_ACCEPTING_CLIENT_REQUESTS_FALSE
    assert {
        real.NVML_DEVICE_ARCH_HOPPER: "HOPPER",
        real.NVML_DEVICE_ARCH_BLACKWELL: "BLACKWELL",
    } == ARCHITECTURES
    for call in [name for name in vars(Nvml) if name.startswith("nvml")]:
        ours = inspect.signature(getattr(FakeNvml, call)).parameters
        assert len(inspect.signature(getattr(real, call)).parameters) == len(ours) - 1
    assert issubclass(real.NVMLError, Exception)

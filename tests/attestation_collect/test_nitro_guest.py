"""The Nitro attester: PCR 16 extended once and locked, whatever fails on the way; documents."""

import errno
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest
from simulators.nsm_device import NsmDevice, unsigned

from attestation.binding import report32, report_data
from attestation.collect.hardware import HardwareAttester
from attestation.collect.nitro import NitroGuest
from attestation.collect.nsm import RESPONSE_MAX, Nsm, NsmError
from attestation.formats.container import parse_container
from attestation.measurement import combine, digest_bytes
from attestation.registers import NITRO_PCR, nitro_pcr_event, nitro_pcr_value
from wire.errors import ConfigError, UnavailableError

PARTS = {"model": "sha256:" + "ab" * 32, "args": "sha256:" + "cd" * 32}
MEASUREMENT = digest_bytes(combine(PARTS))
WANTED = nitro_pcr_value(MEASUREMENT)
BINDING = b'{"a":"binding"}'


@pytest.fixture
def device() -> NsmDevice:
    return NsmDevice()


@pytest.fixture
def attester(device: NsmDevice, tmp_path: Path) -> Iterator[HardwareAttester]:
    (tmp_path / "nsm").write_bytes(b"")
    made = HardwareAttester(NitroGuest(Nsm(tmp_path / "nsm", device.ioctl)))
    yield made
    made.close()


def extensions(device: NsmDevice) -> int:
    return device.asked.count("ExtendPCR")


def test_the_register_is_extended_once_and_locked(
    device: NsmDevice, attester: HardwareAttester
) -> None:
    assert attester.measure(PARTS) == combine(PARTS)
    assert device.values[NITRO_PCR] == WANTED
    assert NITRO_PCR in device.locked
    attester.measure(PARTS)
    assert extensions(device) == 1


def test_a_launcher_that_starts_again_finds_its_own_value(
    device: NsmDevice, attester: HardwareAttester
) -> None:
    device.extend(NITRO_PCR, nitro_pcr_event(MEASUREMENT))
    device.locked.add(NITRO_PCR)
    assert attester.measure(PARTS) == combine(PARTS)
    assert extensions(device) == 0


def test_one_that_died_between_extending_and_locking_is_finished(
    device: NsmDevice, attester: HardwareAttester
) -> None:
    device.extend(NITRO_PCR, nitro_pcr_event(MEASUREMENT))
    attester.measure(PARTS)
    assert NITRO_PCR in device.locked
    assert extensions(device) == 0


def test_a_value_of_somebody_else_is_refused(device: NsmDevice, attester: HardwareAttester) -> None:
    device.extend(NITRO_PCR, b"other")
    with pytest.raises(ConfigError, match="found another value") as caught:
        attester.measure(PARTS)
    assert "Start the enclave again" in caught.value.hint
    assert extensions(device) == 0


def test_a_register_locked_without_the_measurement_is_refused(
    device: NsmDevice, attester: HardwareAttester
) -> None:
    device.locked.add(NITRO_PCR)
    with pytest.raises(ConfigError, match="found a locked value"):
        attester.measure(PARTS)


@pytest.mark.parametrize("at", range(1, 4))
@pytest.mark.parametrize("sign", [1, -1])
def test_a_call_that_failed_is_never_repeated_blindly(
    device: NsmDevice, attester: HardwareAttester, at: int, sign: int
) -> None:
    """sign -1: the module carried the request out, only its answer was lost."""
    device.fails.extend([0] * at + [sign * errno.ETIMEDOUT])
    try:
        attester.measure(PARTS)
    except UnavailableError:  # a description failed: the caller measures again
        attester.measure(PARTS)
    assert device.values[NITRO_PCR] == WANTED
    assert NITRO_PCR in device.locked


def test_extending_and_locking_may_each_fail_once(
    device: NsmDevice, attester: HardwareAttester
) -> None:
    device.fails.extend([0, errno.EIO, 0, 0, 0, errno.EIO])
    attester.measure(PARTS)
    assert device.values[NITRO_PCR] == WANTED
    assert NITRO_PCR in device.locked


def test_a_module_that_never_extends_ends_in_an_error(
    device: NsmDevice, attester: HardwareAttester
) -> None:
    device.fails.extend([0, errno.EIO] * 10)
    with pytest.raises(UnavailableError, match="could not be extended"):
        attester.measure(PARTS)


def test_a_module_with_too_few_registers_is_named(
    device: NsmDevice, attester: HardwareAttester
) -> None:
    device.max_pcrs = 16
    with pytest.raises(UnavailableError, match="without it, expected 32 registers"):
        attester.measure(PARTS)


def test_other_parts_in_the_same_run_are_a_mistake(attester: HardwareAttester) -> None:
    attester.measure(PARTS)
    with pytest.raises(RuntimeError, match="other parts"):
        attester.measure({**PARTS, "args": "sha256:" + "ef" * 32})


def test_a_document_carries_the_binding_twice_and_the_locked_register(
    attester: HardwareAttester,
) -> None:
    attester.measure(PARTS)
    evidence = attester.attest(BINDING, 0)
    assert evidence.kind == "aws-nitro-document"
    found = parse_container(evidence.body, ("document",), ())
    assert found.parts == PARTS
    payload = cbor2.loads(cbor2.loads(found.roles["document"])[2])
    assert payload["nonce"] == report32(BINDING)
    assert payload["user_data"] == report_data(BINDING)
    assert payload["public_key"] is None
    assert payload["pcrs"][NITRO_PCR] == WANTED


def test_a_late_document_of_another_binding_is_not_sent(
    device: NsmDevice, attester: HardwareAttester
) -> None:
    attester.measure(PARTS)
    late = unsigned({}, report_data(BINDING + b" "), report32(BINDING + b" "), None)
    device.answers.append(cbor2.dumps({"Attestation": {"document": late}}))
    with pytest.raises(UnavailableError, match="another binding"):
        attester.attest(BINDING, 0)


def test_nothing_is_attested_before_it_is_measured(attester: HardwareAttester) -> None:
    with pytest.raises(RuntimeError, match="measure the worker first"):
        attester.attest(BINDING, 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff",
        b"\xa1\x6bAttestation",
        cbor2.dumps("Attestation"),
        cbor2.dumps({"Attestation": {}}),
        cbor2.dumps({"Attestation": {"document": "text"}}),
        cbor2.dumps({"Attestation": {"document": b""}}),
        cbor2.dumps({"Attestation": [b"document"]}),
        cbor2.dumps({"DescribePCR": {"document": b"x"}}),
        cbor2.dumps({"Attestation": {"document": b"x"}, "more": 1}),
        cbor2.dumps({"Attestation": {"document": b"x"}}) + b"\0",
        cbor2.dumps({"Attestation": {"document": b"x" * 0x3000}}),
        cbor2.dumps({"Error": 5}),
        b"\x9f" * 0x3000,
    ],
)
def test_an_answer_that_is_none_is_refused(
    device: NsmDevice, attester: HardwareAttester, answer: bytes
) -> None:
    attester.measure(PARTS)
    device.answers.append(answer)
    with pytest.raises(UnavailableError, match="NSM"):
        attester.attest(BINDING, 0)


def test_an_answer_longer_than_the_room_it_was_given_is_refused(
    device: NsmDevice, tmp_path: Path
) -> None:
    """A driver that counts what it did not write: what lies behind is not the module's."""

    def longer(fd: int, request: int, raw: bytearray) -> int:
        device.ioctl(fd, request, raw)
        raw[24:] = (RESPONSE_MAX + 1).to_bytes(8, "little")
        return 0

    (tmp_path / "nsm").write_bytes(b"")
    nsm = Nsm(tmp_path / "nsm", longer)
    with pytest.raises(UnavailableError, match="found 12289 bytes, limit 12288"):
        nsm.ask("DescribePCR", {"index": 16})
    nsm.close()


@pytest.mark.parametrize(
    "fields",
    [{}, {"data": bytes(48)}, {"lock": True}, {"data": bytes(32), "lock": False},
     {"data": bytes(48), "lock": 1}],
)  # fmt: skip
def test_a_description_without_value_and_lock_is_refused(
    device: NsmDevice, attester: HardwareAttester, fields: dict[str, object]
) -> None:
    device.answers.append(cbor2.dumps({"DescribePCR": fields}))
    with pytest.raises(UnavailableError, match="found no value"):
        attester.measure(PARTS)


def test_the_modules_own_error_is_named(device: NsmDevice, attester: HardwareAttester) -> None:
    attester.measure(PARTS)
    device.answers.append(cbor2.dumps({"Error": "InputTooLarge"}))
    with pytest.raises(NsmError, match="InputTooLarge") as caught:
        attester.attest(BINDING, 0)
    assert caught.value.nsm_code == "InputTooLarge"


def test_a_request_beyond_the_drivers_limit_is_the_callers_mistake(tmp_path: Path) -> None:
    (tmp_path / "nsm").write_bytes(b"")
    nsm = Nsm(tmp_path / "nsm", NsmDevice().ioctl)
    with pytest.raises(ValueError, match="limit 4096"):
        nsm.ask("Attestation", {"nonce": bytes(4096)})
    nsm.close()
    nsm.close()


def test_an_absent_module_says_where_it_exists(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        Nsm(tmp_path / "nsm")
    assert "Nitro enclave" in caught.value.hint


def test_a_file_that_is_no_module_answers_nothing(tmp_path: Path) -> None:
    (tmp_path / "nsm").write_bytes(b"")
    nsm = Nsm(tmp_path / "nsm")
    with pytest.raises(UnavailableError, match="Inappropriate ioctl"):
        nsm.ask("DescribePCR", {"index": 16})
    nsm.close()


def test_a_credential_challenge_is_refused(attester: HardwareAttester) -> None:
    with pytest.raises(UnavailableError, match="no TPM"):
        attester.activate({})
    assert attester.trust_anchor() == "vendor"

"""What goes wrong with a TPM: waited out where it may pass, and named where it does not."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from simulators.faulty_tpm import BUSY, LOCKOUT, NO_DEVICE, PASSWORD, RETRY, FaultyTpm
from simulators.tpm_machine import ECC_AK, RSA_AK, TpmMachine

from attestation.collect.tpm_device import LOOKS, QUOTES, TpmDevice, open_device
from attestation.collect.tpm_quote import TpmQuoteGuest
from attestation.collect.tpm_tools import PAUSES_S, TpmToolError, TpmTools, response_code
from attestation.formats.tpm_structures import parse_quote, parse_signature
from attestation.registers import tpm_pcr_value
from attestation.verify.tpm import check_registers
from wire.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.tpm

MEASUREMENT = b"\x11" * 32
ASKED = b"\x22" * 32
PASSES = len(PAUSES_S)


@pytest.fixture
def faulty(booted: TpmMachine, tmp_path: Path) -> FaultyTpm:
    return FaultyTpm(tmp_path, booted.tpm.tools)


def quote(device: TpmDevice) -> None:
    found = device.quote(RSA_AK, "sha256", ASKED, MEASUREMENT)
    read = parse_quote(found.message), parse_signature(found.signature)
    assert check_registers(*read, {"sha256": found.registers})


# ---------------------------------------------------------------- busy for a while


@pytest.mark.parametrize("fault", [RETRY, BUSY])
@pytest.mark.parametrize("command", ["pcrread", "pcrextend", "quote"])
def test_a_tpm_that_is_busy_for_a_while_is_asked_again(
    faulty: FaultyTpm, fault: tuple[str, int], command: str
) -> None:
    device = faulty.device()
    faulty.fails(command, fault, PASSES)
    device.measure(MEASUREMENT)
    quote(device)


@pytest.mark.parametrize("fault", [RETRY, BUSY])
def test_a_tpm_that_stays_busy_is_given_up(faulty: FaultyTpm, fault: tuple[str, int]) -> None:
    faulty.fails("pcrread", fault, 99)
    with pytest.raises(TpmToolError, match="found exit 1"):
        faulty.device().registers((11,))
    assert faulty.asked("pcrread") == PASSES + 1
    assert faulty.paused == list(PAUSES_S)


# ---------------------------------------------------------------- final


@pytest.mark.parametrize(
    ("fault", "hint"),
    [(LOCKOUT, "dictionarylockout"), (PASSWORD, "password"), (NO_DEVICE, "group tss")],
)
def test_a_final_answer_is_said_once_with_what_to_do(
    faulty: FaultyTpm, fault: tuple[str, int], hint: str
) -> None:
    device = faulty.device()
    device.measure(MEASUREMENT)
    faulty.fails("quote", fault, 99)
    with pytest.raises(UnavailableError, match="tpm2 quote: found exit") as caught:
        quote(device)
    assert hint in caught.value.hint
    assert faulty.asked("quote") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("WARN: first\nERROR: the cause\nERROR: what came of it", "the cause"),
        ("ERROR:esys:src/x.c:12:F() early (0x0000018b)\nERROR: F(0x18B) - tpm:handle", "F.0x18B."),
        ("something else", "something else"),
        ("", "expected 0: $"),
    ],
)
def test_of_a_tools_words_the_cause_is_repeated(faulty: FaultyTpm, words: str, said: str) -> None:
    faulty.fails("pcrread", (words, 1))
    with pytest.raises(TpmToolError, match=f"expected 0: {said}" if said[0] != "e" else said):
        faulty.device().registers((11,))


def test_a_key_that_is_not_there_is_named(booted: TpmMachine) -> None:
    booted.remove(ECC_AK)
    with pytest.raises(ConfigError, match=f"found no persistent key at {ECC_AK}") as caught:
        TpmQuoteGuest(booted.device(), ak=ECC_AK)
    assert "handles-persistent" in caught.value.hint


def test_a_key_that_cannot_be_asked_for_is_no_absent_one(faulty: FaultyTpm) -> None:
    faulty.fails("readpublic", NO_DEVICE)
    with pytest.raises(TpmToolError, match="Permission denied"):
        faulty.device().public(RSA_AK)


def test_what_is_no_key_is_refused(faulty: FaultyTpm) -> None:
    faulty.does("readpublic", "printf short > key.pub; exit 0")
    with pytest.raises(UnavailableError, match=f"TPM: {RSA_AK}: TPM2B_PUBLIC: found"):
        TpmQuoteGuest(faulty.device(), ak=RSA_AK)


def test_an_index_that_is_not_there_or_never_written_is_none(booted: TpmMachine) -> None:
    device = booted.device()
    assert device.index("0x01400001") is None
    booted.tpm.tool("nvdefine", "-C", "o", "0x01400001", "-s", "64", "-a", "ownerwrite|ownerread")
    assert device.index("0x01400001") is None


def test_an_index_that_the_owner_may_not_read_is_no_absent_one(booted: TpmMachine) -> None:
    booted.tpm.tool("nvdefine", "-C", "o", "0x01400001", "-s", "8", "-a", "ownerwrite|authread")
    (booted.tpm.work / "data").write_bytes(bytes(8))
    booted.tpm.tool("nvwrite", "-C", "o", "0x01400001", "-i", "work/data")
    with pytest.raises(TpmToolError) as caught:
        booted.device().index("0x01400001")
    assert "may not be read by the owner" in caught.value.hint


def test_an_index_read_in_part_is_refused(booted: TpmMachine, faulty: FaultyTpm) -> None:
    booted.define("0x01400001", bytes(range(64)))
    assert faulty.device().index("0x01400001") == bytes(range(64))
    faulty.does("nvread", "printf short > index; exit 0")
    with pytest.raises(UnavailableError, match="NV 0x01400001: found 5 bytes, expected 64"):
        faulty.device().index("0x01400001")


def test_registers_read_in_part_are_refused(faulty: FaultyTpm) -> None:
    faulty.does("pcrread", "printf short > registers; exit 0")
    with pytest.raises(UnavailableError, match="registers: found 5 bytes, expected 32"):
        faulty.device().registers((11,))


def test_a_tpm_without_the_bank_is_named(faulty: FaultyTpm) -> None:
    faulty.does("pcrread", ": > registers; exit 0")
    with pytest.raises(ConfigError, match="found no sha256 bank") as caught:
        faulty.device().registers((11,))
    assert "pcrallocate" in caught.value.hint


@pytest.mark.parametrize("name", ["message", "signature"])
def test_a_quote_cut_short_is_refused(faulty: FaultyTpm, name: str) -> None:
    device = faulty.device()
    device.measure(MEASUREMENT)
    faulty.does("quote", f'tpm2 "$@" >/dev/null && head -c 20 {name} > c && mv c {name}; exit 0')
    with pytest.raises(UnavailableError, match="quote: TPM"):
        quote(device)


def test_a_quote_of_an_earlier_question_is_refused(faulty: FaultyTpm) -> None:
    device = faulty.device()
    device.measure(MEASUREMENT)
    quote(device)
    faulty.does("quote", "exit 0")  # the files of the one before are there still
    with pytest.raises(UnavailableError):
        device.quote(RSA_AK, "sha256", b"\x33" * 32, MEASUREMENT)


def test_a_quote_of_other_registers_is_refused(faulty: FaultyTpm) -> None:
    device = faulty.device()
    device.measure(MEASUREMENT)
    others = f"-c {RSA_AK} -l sha256:11 -q {ASKED.hex()} -m message -s signature -g sha256"
    faulty.does("quote", f"tpm2 quote {others} && exit 0")
    with pytest.raises(UnavailableError, match="the registers given are not those it covers"):
        quote(device)


def test_a_tool_that_writes_nothing_is_named(faulty: FaultyTpm) -> None:
    device = faulty.device()
    device.measure(MEASUREMENT)
    faulty.does("quote", "exit 0")
    with pytest.raises(UnavailableError, match="wrote no message: No such file"):
        quote(device)


def test_missing_tools_are_named_and_how_to_get_them(faulty: FaultyTpm, tmp_path: Path) -> None:
    device = faulty.device(program=str(tmp_path / "no such program"))
    with pytest.raises(ConfigError, match="found no tpm2-tools") as caught:
        device.registers((11,))
    assert "apt-get install tpm2-tools" in caught.value.hint


def test_a_tool_that_hangs_is_ended(faulty: FaultyTpm) -> None:
    faulty.does("pcrread", "exec sleep 50", 99)
    with pytest.raises(UnavailableError, match=r"tpm2 pcrread: does not end.* within 0.2 s"):
        faulty.device(timeout_s=0.2).registers((11,))
    assert faulty.asked("pcrread") == 1


# ---------------------------------------------------------------- registers that move


@pytest.mark.parametrize("after", ["exec sleep 50", "exit 1"])
def test_an_extension_that_happened_before_its_tool_failed_is_not_made_again(
    faulty: FaultyTpm, booted: TpmMachine, after: str
) -> None:
    device = faulty.device(timeout_s=2)
    faulty.does("pcrextend", f'tpm2 "$@"; {after}')
    device.measure(MEASUREMENT)
    assert booted.device().registers((11,))[11] == tpm_pcr_value(MEASUREMENT)


def test_an_extension_that_failed_and_did_not_happen_is_made_again(faulty: FaultyTpm) -> None:
    faulty.does("pcrextend", "exit 1")
    device = faulty.device()
    device.measure(MEASUREMENT)
    assert faulty.asked("pcrextend") == 2
    quote(device)


def test_an_extension_that_never_happens_is_given_up(faulty: FaultyTpm) -> None:
    faulty.fails("pcrextend", LOCKOUT, 99)
    with pytest.raises(UnavailableError, match="PCR 11: could not be extended") as caught:
        faulty.device().measure(MEASUREMENT)
    assert "locked" in caught.value.hint
    assert (faulty.asked("pcrextend"), faulty.asked("pcrread")) == (LOOKS - 1, LOOKS)


def test_somebody_who_extends_at_the_same_time_stops_the_start(faulty: FaultyTpm) -> None:
    faulty.does("pcrextend", f"tpm2 pcrextend 11:sha256={'33' * 32}")
    with pytest.raises(ConfigError, match="PCR 11: found another value"):
        faulty.device().measure(MEASUREMENT)


@pytest.mark.parametrize("times", [1, QUOTES - 1])
def test_a_register_that_changed_before_the_quote_is_read_again(
    faulty: FaultyTpm, times: int
) -> None:
    device = faulty.device()
    device.measure(MEASUREMENT)
    faulty.does("quote", f"tpm2 pcrextend 9:sha256={'33' * 32}", times)
    quote(device)
    assert faulty.asked("quote") == times + 1


def test_registers_that_never_stay_give_no_quote(faulty: FaultyTpm) -> None:
    device = faulty.device()
    device.measure(MEASUREMENT)
    faulty.does("quote", f"tpm2 pcrextend 9:sha256={'33' * 32}", 99)
    with pytest.raises(UnavailableError, match=f"changed {QUOTES} times"):
        quote(device)
    assert faulty.asked("quote") == QUOTES


# ---------------------------------------------------------------- without a TPM


def test_a_machine_without_a_tpm_says_so_and_leaves_nothing_behind(
    made_tpm: Path, tmp_path: Path
) -> None:
    del made_tpm  # tpm2-tools are there
    device = open_device(tmp_path / "tpmrm0")
    with pytest.raises(UnavailableError, match="No such file or directory") as caught:
        device.registers((11,))
    assert "group tss" in caught.value.hint
    folder = device._tools.folder
    assert folder.exists()
    device.close()
    assert not folder.exists()


def test_the_tools_see_nothing_of_the_environment_but_path(tmp_path: Path) -> None:
    os.environ["ANCHORHOLD_STRAY"] = "x"
    try:
        tools = TpmTools(tmp_path, "device:/dev/tpmrm0", program=shutil.which("env") or "env")
        seen = {line.split(b"=")[0] for line in tools.run(["env"]).splitlines()}
    finally:
        del os.environ["ANCHORHOLD_STRAY"]
    assert seen == {b"PATH", b"LC_ALL", b"TPM2TOOLS_TCTI"}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("ERROR: Esys_TR_FromTPMPublic(0x18B) - tpm:handle(1)", 0x8B),
        ("ERROR: Esys_TR_FromTPMPublic(0x28B) - tpm:handle(2)", 0x8B),
        ("ErrorCode (0x0000018b)", 0x8B),
        ("ErrorCode (0x00000922)", 0x922),
        ("ErrorCode (0x000009a2)", 0xA2),
        ("Could not set locality: (0xa000a)", 0),
        ("(0x1000) and (0x1fff)", 0),
        ("Failed to initialize TCTI", 0),
    ],
)
def test_the_tpms_code_is_read_out_of_a_tools_words(said: str, code: int) -> None:
    assert response_code(said) == code

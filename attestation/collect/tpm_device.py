"""This machine's own TPM, as the collectors use it: registers, keys, indices, quotes.

The measurement goes into register 11 of the SHA-256 bank (docs/spec/evidence.md §2.1):

    1 read     11 must be zero (a fresh boot) or hold exactly this measurement (the launcher started
               again); anything else is somebody else's, and only a restart takes it away
    2 extend   once, only from zero; what failed may have happened all the same, so 1 decides again

A quote, and the registers beside it:

    3 read     the registers
    4 quote    them, over the caller's 32 bytes; it must repeat those and cover what was read. If a
               register was extended in between, from 3 on again, a few times
    5 register 11 must hold the measurement still
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attestation.formats.tpm_structures import parse_quote, parse_signature
from attestation.registers import tpm_pcr_value
from attestation.rules.registers import MEASUREMENT_BANK, MEASUREMENT_PCR
from attestation.verify.tpm import check_registers
from wire.canonical import encode
from wire.errors import AttestationError, ConfigError, MalformedError, UnavailableError

from .tpm_tools import RC_HANDLE, RC_NV_UNINITIALIZED, TpmToolError, TpmTools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEVICE: Final = Path("/dev/tpmrm0")  # the kernel's resource manager: shared with other programs
PCR_LEN: Final = 32
# Firmware's, boot loader's and system's. Not 10 and 15: what the running system measures (IMA, the
# volumes it opens) is in no firmware log, so quoted beside one they would be unexplained. 16 and 23
# are anybody's, 17 to 22 belong to a dynamic launch.
QUOTED: Final = (*range(10), *range(11, 15))
LOOKS: Final = 3  # at the register: before each of two extensions, and at the end
QUOTES: Final = 4  # registers change at boot and at updates, not all the time
_SIZE = re.compile(rb"^\s*size:\s*(\d{1,5})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Quoted:
    """A quote and what it covers.

    Attributes:
        message: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        registers: number to value, of the SHA-256 bank.
    """

    message: bytes
    signature: bytes
    registers: Mapping[int, bytes]

    def pieces(self) -> dict[str, bytes]:
        """By role, as the kinds with a TPM have them."""
        values = {str(number): value.hex() for number, value in self.registers.items()}
        return {
            "quote_msg": self.message,
            "quote_sig": self.signature,
            "pcrs": encode({MEASUREMENT_BANK: values}),
        }


class TpmDevice:
    """A TPM. Methods may be called from any thread.

    Args:
        tools: tpm2-tools on it; their folder is removed at the end if it was made for them.
        own: whether it was.
    """

    def __init__(self, tools: TpmTools, *, own: bool = False) -> None:
        self._tools = tools
        self._own = own
        self._lock = threading.Lock()  # the tools' files have one name each

    def measure(self, measurement: bytes) -> None:
        """Steps 1 and 2.

        Raises:
            ConfigError: the register holds something else: the guest must be started again.
            UnavailableError: the TPM does not answer.
        """
        wanted = tpm_pcr_value(measurement)
        failure: UnavailableError | None = None
        for looks_left in reversed(range(LOOKS)):
            # 1
            value = self.registers((MEASUREMENT_PCR,))[MEASUREMENT_PCR]
            if value == wanted:
                return
            if value != bytes(PCR_LEN):
                raise ConfigError(
                    f"PCR {MEASUREMENT_PCR}: found another value, expected zeros or this worker's "
                    "measurement",
                    hint="A register only grows: restart the guest to run another worker in it. If "
                    "it is so from the start, the image measures into it itself (systemd-stub, "
                    "systemd-pcrphase): use one that does not.",
                )
            if not looks_left:
                break
            # 2
            extension = f"{MEASUREMENT_PCR}:{MEASUREMENT_BANK}={measurement.hex()}"
            try:
                with self._lock:
                    self._tools.tool("pcrextend", extension)
            except UnavailableError as error:
                failure = error
        raise UnavailableError(
            f"PCR {MEASUREMENT_PCR}: could not be extended, looked at {LOOKS} times",
            hint="" if failure is None else failure.hint or failure.message,
        ) from failure

    def registers(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Registers of the SHA-256 bank, ascending.

        Raises:
            ConfigError: the TPM keeps no such bank.
            UnavailableError: it does not answer, or with less than was asked for.
        """
        with self._lock:
            return self._registers(numbers)

    def public(self, handle: str) -> bytes:
        """TPM2B_PUBLIC of the persistent key at a handle.

        Raises:
            ConfigError: there is none.
            UnavailableError: the TPM does not answer.
        """
        with self._lock:
            try:
                self._tools.tool("readpublic", "-c", handle, "-f", "tss", "-o", "key.pub")
            except TpmToolError as error:
                if error.rc != RC_HANDLE:
                    raise
                raise ConfigError(
                    f"TPM: found no persistent key at {handle}, expected the attestation key",
                    hint="tpm2_getcap handles-persistent lists the keys that are there.",
                ) from error
            return self._tools.output("key.pub")

    def index(self, index: str) -> bytes | None:
        """What an NV index holds, read with the owner's right; None if there is no such index.

        Raises:
            UnavailableError: it cannot be read, or only in part.
        """
        with self._lock:
            try:
                self._tools.tool("nvread", "-C", "o", index, "-o", "index")
                data = self._tools.output("index")
                # Second, because this tool crashes for an index that is not there.
                listed = _SIZE.search(self._tools.tool("nvreadpublic", index))
            except TpmToolError as error:
                if error.rc in (RC_HANDLE, RC_NV_UNINITIALIZED):
                    return None
                raise
        size = int(listed[1]) if listed else 0
        if len(data) != size:
            raise UnavailableError(f"NV {index}: found {len(data)} bytes, expected {size}")
        return data

    def quote(self, key: str, hash_name: str, asked: bytes, measurement: bytes) -> Quoted:
        """Steps 3 to 5.

        Args:
            key: handle of a persistent key without a password.
            hash_name: the hash that it signs with.
            asked: 32 bytes.
            measurement: what register 11 was extended with.

        Raises:
            UnavailableError: no quote, none of registers that stay, or one of another worker.
        """
        with self._lock:
            for _ in range(QUOTES):
                # 3
                values = self._registers(QUOTED)
                # 4
                found = self._quoted(key, hash_name, asked, values)
                if found is not None:
                    break
            else:
                raise UnavailableError(
                    f"quote: found the registers changed {QUOTES} times while they were quoted, "
                    "expected them to stay",
                    hint="Something extends registers all the time; tpm2_pcrread shows which.",
                )
        # 5
        if values[MEASUREMENT_PCR] != tpm_pcr_value(measurement):
            raise UnavailableError(
                f"quote: found another value of PCR {MEASUREMENT_PCR}, expected this worker's "
                "measurement",
                hint="Something else in this guest extended it. Restart the guest.",
            )
        return found

    def close(self) -> None:
        """Remove the tools' files."""
        if self._own:
            shutil.rmtree(self._tools.folder, ignore_errors=True)

    def _registers(self, numbers: Sequence[int]) -> dict[int, bytes]:
        selection = _selection(numbers)
        (self._tools.folder / "registers").unlink(missing_ok=True)
        self._tools.tool("pcrread", selection, "-o", "registers")
        raw = self._tools.output("registers")
        if not raw:
            raise ConfigError(
                f"TPM: found no {MEASUREMENT_BANK} bank, expected one",
                hint="Turn it on in the firmware's setup, or: tpm2_pcrallocate sha256:all",
            )
        if len(raw) != len(numbers) * PCR_LEN:
            raise UnavailableError(
                f"registers: found {len(raw)} bytes, expected {len(numbers) * PCR_LEN}"
            )
        return {number: raw[at * PCR_LEN : (at + 1) * PCR_LEN] for at, number in enumerate(numbers)}

    def _quoted(
        self, key: str, hash_name: str, asked: bytes, values: Mapping[int, bytes]
    ) -> Quoted | None:
        """Step 4; None if a register has another value by now."""
        try:
            self._tools.tool(
                "quote", "-c", key, "-l", _selection(tuple(values)), "-q", asked.hex(),
                "-m", "message", "-s", "signature", "-g", hash_name,
            )  # fmt: skip
            found = Quoted(self._tools.output("message"), self._tools.output("signature"), values)
            quote, signature = parse_quote(found.message), parse_signature(found.signature)
        except MalformedError as error:
            raise UnavailableError(f"quote: {error.message}") from error
        if quote.extra_data != asked:
            raise UnavailableError("quote: found other caller's data, expected this binding's")
        try:
            check_registers(quote, signature, {MEASUREMENT_BANK: values})
        except AttestationError as error:
            if error.reasons != ("pcr_digest_mismatch",):
                raise UnavailableError(f"quote: {error.message}") from error
            return None
        return found


def open_device(device: Path = DEVICE) -> TpmDevice:
    """The machine's TPM by its device; nothing is asked of it yet."""
    folder = Path(tempfile.mkdtemp(prefix="anchorhold-tpm-"))
    return TpmDevice(TpmTools(folder, f"device:{device}"), own=True)


def _selection(numbers: Sequence[int]) -> str:
    return f"{MEASUREMENT_BANK}:{','.join(map(str, numbers))}"

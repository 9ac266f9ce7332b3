"""A `tpm2` that fails as real ones do before, or instead of, doing its work.

    faulty = FaultyTpm(folder, machine.tpm.tools)
    faulty.fails("quote", RETRY, times=2)     # the next two of these commands; then it works
    device = faulty.device()

A fault is what the tool says and exits with, or a line of shell put before the real tool.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from attestation.collect.tpm_device import TpmDevice
from attestation.collect.tpm_tools import TpmTools

if TYPE_CHECKING:
    from pathlib import Path

RETRY: Final = (
    "ERROR: Esys_Quote(0x922) - tpm:warn(2.0): the TPM was not able to start the command",
    1,
)
LOCKOUT: Final = (
    "ERROR: Esys_Quote(0x921) - tpm:warn(2.0): authorizations for objects subject to DA protection "
    "are not allowed at this time because the TPM is in DA lockout mode",
    3,
)
_AFTER = """
ERROR:tcti:src/tss2-tcti/tctildr-dl.c:154:tcti_from_file() Could not initialize TCTI file: device
ERROR:tcti:src/tss2-tcti/tctildr.c:428:Tss2_TctiLdr_Initialize_Ex() Failed to instantiate TCTI
ERROR: Could not load tcti, got: "device:/dev/tpmrm0\""""
BUSY: Final = (
    "ERROR:tcti:src/tss2-tcti/tcti-device.c:452:Tss2_Tcti_Device_Init() Failed to open specified "
    "TCTI device file /dev/tpm0: Device or resource busy" + _AFTER,
    1,
)
PASSWORD: Final = (
    "ERROR: Esys_Quote(0x98E) - tpm:session(1):the authorization HMAC check failed and DA counter "
    "incremented",
    3,
)
NO_DEVICE: Final = (
    "ERROR:tcti:src/tss2-tcti/tcti-device.c:452:Tss2_Tcti_Device_Init() Failed to open specified "
    "TCTI device file /dev/tpmrm0: Permission denied" + _AFTER,
    1,
)


class FaultyTpm:
    """A wrapper around the real tool.

    Args:
        folder: for the wrapper.
        tools: of the TPM behind it.

    Attributes:
        paused: how long commands waited before they were given again.
    """

    def __init__(self, folder: Path, tools: TpmTools) -> None:
        self._folder = folder / "faulty"
        self._folder.mkdir()
        self._tools = tools
        self.paused: list[float] = []
        self._program = self._folder / "tpm2"
        real = shutil.which("tpm2")
        self._program.write_text(
            "#!/bin/sh\n"
            f'f="{self._folder}/$1"\n'
            'echo "$1" >> "$f.asked"\n'
            'if [ -s "$f.times" ]; then\n'
            '  n=$(cat "$f.times")\n'
            '  if [ "$n" -gt 0 ]; then echo $((n - 1)) > "$f.times"; . "$f.fault"; fi\n'
            "fi\n"
            f'exec {real} "$@"\n'
        )
        self._program.chmod(0o755)

    def fails(self, command: str, fault: tuple[str, int], times: int = 1) -> None:
        """The next of these commands say this and exit so."""
        said, code = fault
        self.does(command, f"echo '{said}' >&2; exit {code}", times)

    def does(self, command: str, line: str, times: int = 1) -> None:
        """The next of these commands run a line of shell first."""
        (self._folder / f"{command}.fault").write_text(f"{line}\n")
        (self._folder / f"{command}.times").write_text(f"{times}\n")

    def asked(self, command: str) -> int:
        """How often this command was given."""
        path = self._folder / f"{command}.asked"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def device(self, *, timeout_s: float = 10.0, program: str = "") -> TpmDevice:
        """The TPM through it."""
        tools = self._tools
        return TpmDevice(
            TpmTools(
                tools.folder,
                "swtpm:path=s",
                program=program or str(self._program),
                timeout_s=timeout_s,
                sleep=self.paused.append,
            )
        )

"""tpm2-tools, one command at a time: how it is run, how long it may take, and what its end means.

A tool says the TPM's answer in words and in a number, the response code; both come along in the
error. Some answers mean "not now" and nothing was done: those commands are given again, a few times
and for a few seconds. Everything else is final, a tool that was killed for its time too: whether
its command reached the TPM nobody knows, so whoever gave it must look.

Source: TCG TPM 2.0 Library, Part 2, TPM_RC.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import TYPE_CHECKING, Final

from attestation.collateral.whole_file import read_whole
from wire.errors import ConfigError, UnavailableError
from wire.excerpt import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

TOOL: Final = "tpm2"
# A discrete TPM takes a second for a signature by RSA, and as long again when it is busy.
TIMEOUT_S: Final = 10.0
PAUSES_S: Final = (0.1, 0.3, 1.0, 2.0)  # before each further attempt
COMPLAINT_MAX: Final = 200  # characters of a tool's complaint worth repeating
OUTPUT_MAX: Final = 64 * 1024  # the longest index is as long as its length's 16 bits allow

RC_HANDLE: Final = 0x08B  # no key at a handle, no such index
RC_NV_UNINITIALIZED: Final = 0x14A
RC_AUTH_FAIL, RC_BAD_AUTH, RC_NV_AUTHORIZATION = 0x08E, 0x0A2, 0x149
RC_LOCKOUT: Final = 0x921
_PASSING: Final = frozenset({0x908, 0x909, 0x90A, 0x920, 0x922, 0x923})
#   YIELDED, CANCELED, TESTING, NV_RATE, RETRY, NV_UNAVAILABLE
_FORMAT_ONE, _ERROR_BITS = 0x080, 0x0BF  # the rest says which handle, parameter or session
_BUSY: Final = "Device or resource busy"  # EBUSY: another program has /dev/tpm0 open

_UNOPENED: Final = "Failed to open specified TCTI device"

_PREFIX = re.compile(r"ERROR:(?:\w+:\S+:\d+:)?")  # and where in the tools' source it was said
_CODE = re.compile(r"\((0x[0-9A-Fa-f]{1,8})\)")
_INSTALL: Final = "On Debian: apt-get install tpm2-tools"
_DEVICE: Final = "Run the launcher as root, or give its user the TPM's device (group tss)."
_HINTS: Final[Mapping[int, str]] = {
    RC_LOCKOUT: "The TPM is locked after wrong passwords: wait, or tpm2_dictionarylockout -c.",
    RC_AUTH_FAIL: "It has a password, which this version does not know; use one without.",
    RC_BAD_AUTH: "It has a password, which this version does not know; use one without.",
    RC_NV_AUTHORIZATION: "The index may not be read by the owner.",
}


class TpmToolError(UnavailableError):
    """A tool failed.

    Attributes:
        rc: the TPM's response code without the part that says which argument it is about; 0 where
            the TPM did not answer.
        passing: nothing was done, and the same command may be given again.
    """

    def __init__(self, message: str, rc: int = 0, hint: str = "", *, passing: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.rc = rc
        self.passing = passing


class TpmTools:
    """The tools, at work in one folder.

    Args:
        folder: where they read and write their files.
        tcti: how they reach the TPM, such as "device:/dev/tpmrm0".
        program: the tools' one program.
        timeout_s: how long one may take.
        sleep: waits before a command is given again.

    Attributes:
        folder: as given.
    """

    def __init__(
        self,
        folder: Path,
        tcti: str,
        *,
        program: str = TOOL,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder
        self._program = program
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        self._env["TPM2TOOLS_TCTI"] = tcti

    def tool(self, name: str, *arguments: str) -> bytes:
        """Run one tool; returns its standard output.

        Raises:
            ConfigError: tpm2-tools are not installed.
            TpmToolError: it fails, fails to become free, or takes too long.
        """
        for pause in PAUSES_S:
            try:
                return self._once(name, arguments)
            except TpmToolError as error:
                if not error.passing:
                    raise
            self._sleep(pause)
        return self._once(name, arguments)

    def run(self, command: list[str], **variables: str) -> bytes:
        """Run any program with these variables besides; returns its standard output.

        Raises:
            TpmToolError: it does not run, fails or takes too long.
        """
        return self._run(command[0], command, {**self._env, **variables})

    def output(self, name: str, limit: int = OUTPUT_MAX) -> bytes:
        """What a tool wrote into this file.

        Raises:
            UnavailableError: there is none, or too much.
        """
        try:
            return read_whole(self.folder / name, limit)
        except OSError as error:
            raise UnavailableError(f"{self._program}: wrote no {name}: {error.strerror}") from error

    def _once(self, name: str, arguments: tuple[str, ...]) -> bytes:
        try:
            return self._run(f"{TOOL} {name}", [self._program, name, *arguments], self._env)
        except TpmToolError as error:
            cause = error.__cause__
            if isinstance(cause, FileNotFoundError) and cause.filename == self._program:
                raise ConfigError(
                    f"{TOOL}: found no tpm2-tools on PATH, expected them", hint=_INSTALL
                ) from error
            raise

    def _run(self, name: str, command: list[str], env: Mapping[str, str]) -> bytes:
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as cause:
            raise TpmToolError(
                f"{name}: does not end, expected it within {self._timeout_s:g} s",
                hint="The TPM does not answer: see the kernel's log; another program may hold it.",
            ) from cause
        except OSError as cause:
            raise TpmToolError(f"{name}: does not run") from cause
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            rc = response_code(said)
            raise TpmToolError(
                f"{name}: found exit {done.returncode}, expected 0: {_reason(said)}",
                rc,
                _HINTS.get(rc, _DEVICE if _UNOPENED in said else ""),
                passing=rc in _PASSING or (_UNOPENED in said and _BUSY in said),
            )
        return done.stdout


def response_code(said: str) -> int:
    """The TPM's response code in a tool's words, 0 if there is none."""
    for text in _CODE.findall(said):
        code = int(text, 16)
        if 0 < code < 1 << 12:  # larger ones are of the software's layers, not of the TPM
            return code & _ERROR_BITS if code & _FORMAT_ONE else code
    return 0


def _reason(said: str) -> str:
    """The line that says why: the TPM's answer, or else the first complaint, not what follows."""
    lines = said.splitlines()
    answers = [line for line in lines if ") - " in line and _CODE.search(line)]
    errors = [line for line in lines if line.startswith("ERROR")]
    line = (answers or errors or lines or [""])[0]
    return cut(_PREFIX.sub("", line).strip(), COMPLAINT_MAX)

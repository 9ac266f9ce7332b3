"""A simulated TPM of our own: swtpm on a Unix socket in a state folder, used through tpm2-tools.

No root, no /dev/tpm, nothing kept outside the state folder (and the CA folder, if another one is
named). A real TPM 2.0 command set and real quotes, but no hardware: trust is `simulated`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

from attestation.collateral.whole_file import read_whole
from wire.errors import ConfigError, UnavailableError
from wire.excerpt import cut

from .tpm_tools import COMPLAINT_MAX, TpmTools

if TYPE_CHECKING:
    from pathlib import Path

TOOLS: Final = ("swtpm", "swtpm_setup", "swtpm_localca", "tpm2", "setpriv")
START_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 5.0
TOOL_TIMEOUT_S: Final = 60.0  # manufacturing makes RSA keys; on a busy machine that takes a while
POLL_S: Final = 0.01
CERT_MAX: Final = 16 * 1024  # one certificate in PEM, with words above it

_SOCKET = "s"
_LOG = "swtpm.log"
_ROOT_CERT = "swtpm-localca-rootca-cert.pem"
_ISSUER_CERT = "issuercert.pem"


def missing_tools() -> list[str]:
    """Programs this module needs that are not on PATH."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


class SimulatedTpm:
    """Owns one swtpm process from construction to `close`.

    The process is also killed by the kernel when this one dies, however it dies.

    Args:
        state_dir: TPM state and socket; made if absent, reused if present. One owner at a time.
        ca_dir: CA that certifies endorsement keys; several TPMs may share it.

    Attributes:
        tools: tpm2-tools on it.
        work: a folder for their files.

    Raises:
        ConfigError: a needed program is not installed, or a folder is none, or holds a pipe.
        UnavailableError: swtpm does not start; says how it ended, and its last word.
        OSError: a folder cannot be used.
    """

    def __init__(self, state_dir: Path, ca_dir: Path) -> None:
        absent = missing_tools()
        if absent:
            raise ConfigError(
                f"simulated TPM: found no {', '.join(absent)} on PATH",
                hint="On Debian: apt-get install swtpm swtpm-tools tpm2-tools libtss2-tcti-swtpm0",
            )
        self._dir, self._ca = state_dir.resolve(), ca_dir.resolve()
        for folder in (self._dir, self._ca):
            _usable(folder)
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        self.tools = TpmTools(self._dir, f"swtpm:path={_SOCKET}", timeout_s=TOOL_TIMEOUT_S)
        self.work = self._dir / "work"
        _anew(self.work)  # contexts of an earlier run are dead
        if not (self._dir / "tpm").exists():
            self._manufacture()
        _usable(self._dir / "tpm")
        self._process: subprocess.Popen[bytes] | None = None
        self._spawn_error: OSError | None = None
        self._spawned = threading.Event()
        # The kernel ties the child to the *thread* that started it, so that thread must live as
        # long as the child: it waits for it.
        self._thread = threading.Thread(target=self._own, name="swtpm", daemon=True)
        self._thread.start()
        try:
            self._await_socket()
        except BaseException:
            self.close()
            raise

    def root_pem(self) -> str:
        """The CA's root certificate."""
        return _pem(self._ca / _ROOT_CERT)

    def issuer_pem(self) -> str:
        """The intermediate that signs endorsement key certificates."""
        return _pem(self._ca / _ISSUER_CERT)

    def tool(self, name: str, *arguments: str) -> bytes:
        """Run one tpm2-tools command in the state folder; returns its standard output.

        Raises:
            UnavailableError: it fails or takes too long.
        """
        return self.tools.tool(name, *arguments)

    def close(self) -> None:
        """Stop swtpm and wait for it. May be called again."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(STOP_TIMEOUT_S)

    def _own(self) -> None:
        command = [
            "setpriv", "--pdeathsig", "KILL",
            "swtpm", "socket", "--tpm2", "--tpmstate", "dir=tpm",
            "--server", f"type=unixio,path={_SOCKET}",
            "--ctrl", f"type=unixio,path={_SOCKET}.ctrl",
            "--flags", "not-need-init,startup-clear", "--log", "level=1",
        ]  # fmt: skip
        try:
            for name in (_SOCKET, f"{_SOCKET}.ctrl", _LOG):
                (self._dir / name).unlink(missing_ok=True)
            # A new file: one that is there may be a pipe, and opening that would wait.
            with (self._dir / _LOG).open("xb") as log:
                # Relative socket names in the state folder: a Unix socket path has 107 bytes.
                process = subprocess.Popen(
                    command,
                    cwd=self._dir,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )
        except OSError as cause:
            self._spawn_error = cause
            self._spawned.set()
            return
        self._process = process
        self._spawned.set()
        process.wait()

    def _await_socket(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        self._spawned.wait(START_TIMEOUT_S)
        folder = os.open(self._dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while time.monotonic() < deadline:
                if self._process is None or self._process.poll() is not None:
                    raise self._ended() from self._spawn_error
                with socket.socket(socket.AF_UNIX) as probe:
                    if probe.connect_ex(f"/proc/self/fd/{folder}/{_SOCKET}") == 0:
                        return
                time.sleep(POLL_S)
        finally:
            os.close(folder)
        raise UnavailableError(
            f"swtpm: found no answer on its socket, expected one within {START_TIMEOUT_S:.0f} s"
        )

    def _ended(self) -> UnavailableError:
        """What to say of a swtpm that is not there: how it ended, and its last word."""
        if self._process is None:
            return UnavailableError("swtpm: does not run")
        code = self._process.returncode
        found = f"exit {code}" if code >= 0 else f"signal {-code}"
        with (self._dir / _LOG).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2 * COMPLAINT_MAX))
            words = log.read().decode("utf-8", "replace").strip().splitlines()
        said = cut(words[-1], COMPLAINT_MAX) if words else "it said nothing"
        return UnavailableError(f"swtpm: found {found}, expected it to serve: {said}")

    def _manufacture(self) -> None:
        """Make the TPM: endorsement key, its certificate, PCR banks. Atomic by rename."""
        draft = self._dir / "tpm.new"
        _anew(draft)
        (draft / "localca.conf").write_text(
            f"statedir = {self._ca}\nsigningkey = {self._ca}/signkey.pem\n"
            f"issuercert = {self._ca}/{_ISSUER_CERT}\ncertserial = {self._ca}/certserial\n"
        )
        (draft / "localca.options").write_text(
            "--platform-manufacturer Anchorhold\n--platform-version 1\n--platform-model simulated\n"
        )
        # Own configuration: without it swtpm_setup keeps a CA in a system folder, as root.
        (draft / "setup.conf").write_text(
            f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
            f"create_certs_tool_config = {draft}/localca.conf\n"
            f"create_certs_tool_options = {draft}/localca.options\n"
        )
        command = [
            "swtpm_setup", "--tpm2", "--tpmstate", str(draft), "--create-ek-cert", "--lock-nvram",
            "--overwrite", "--config", str(draft / "setup.conf"), "--pcr-banks", "sha256",
        ]  # fmt: skip
        self.tools.run(command, HOME=str(self._dir))
        draft.rename(self._dir / "tpm")


def _usable(folder: Path) -> None:
    """Make a folder that is not there; refuse what programs that use it would wait for.

    Raises:
        ConfigError: it is no folder, or something in it is neither a file nor a folder.
        OSError: it cannot be made or read.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"simulated TPM: found no folder {folder}, but something else of this name",
            hint="remove it, or name another folder",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.exists() and not (path.is_file() or path.is_dir() or path.is_socket()):
            raise ConfigError(
                f"simulated TPM: found a pipe or a device {path}, expected files only",
                hint="remove it, or name another folder",
            )


def _anew(folder: Path) -> None:
    """Make a folder, empty, in place of whatever has its name.

    Raises:
        OSError: it cannot be removed or made.
    """
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)  # a pipe is not opened: that would wait
    folder.mkdir(mode=0o700)


def _pem(path: Path) -> str:
    try:
        return read_whole(path, CERT_MAX).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "found bytes that are no text"
        raise ConfigError(
            f"TPM's CA: cannot read {path.name}: {found}",
            hint="delete the TPM's folder and the CA's: both are made anew",
        ) from error

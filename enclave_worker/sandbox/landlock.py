"""Landlock allow-list for files, TCP, and signals, degraded bit by bit to the kernel's ABI.

https://docs.kernel.org/userspace-api/landlock.html. Two properties decide how it is used here:
it binds only the calling thread and what that thread starts later, so it comes before any other
thread; and it looks at paths when they are opened, so descriptors already held keep working.

``EXECUTE`` is handled and granted nowhere: after this call no program can be started. Mapping a
shared library is a read, not an execution, so imports go on working.
"""

import errno
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from attestation.posture import Control

from .libc import prctl, syscall
from .outcome import applied, refused, unavailable

__all__ = ("SYSTEM_READ", "restrict", "supported_abi")

_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

# linux/landlock.h, LANDLOCK_ACCESS_FS_*
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_ABI1_FS = (1 << 13) - 1  # … up to MAKE_SYM
_REFER = 1 << 13  # ABI 2: rename and link across folders
_TRUNCATE = 1 << 14  # ABI 3
_IOCTL_DEV = 1 << 15  # ABI 5
_NET_TCP = 0b11  # ABI 4: bind, connect; UDP and Unix sockets are not covered at any of these
_SCOPES = 0b11  # ABI 6: abstract Unix sockets and signals stay inside the domain

_READ_DIRECTORY = _READ_FILE | _READ_DIR
# Newer ABIs only add rights; handling those we do not know would need their meaning first.
_KNOWN_ABI = 7

# What every worker reads besides its staged root and model: system libraries and their cache, CPU
# topology (oneDNN and the thread pool size themselves by it), and its own process entry.
SYSTEM_READ = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/dev/urandom",
    "/dev/null",
)
_SYSTEM_WRITE = ("/dev/null",)


@dataclass(frozen=True, slots=True)
class Rights:
    """What a ruleset of one ABI handles, i.e. denies unless a rule grants it. Bit masks."""

    files: int
    tcp: int
    scopes: int

    @classmethod
    def of(cls, abi: int) -> "Rights":
        """The rights that ABI version `abi` knows."""
        files = _ABI1_FS
        files |= _REFER if abi >= 2 else 0
        files |= _TRUNCATE if abi >= 3 else 0
        files |= _IOCTL_DEV if abi >= 5 else 0
        return cls(files, _NET_TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)

    def attribute(self) -> bytes:
        """``struct landlock_ruleset_attr``; trailing zero fields are left out for old kernels."""
        fields = [self.files, self.tcp, self.scopes]
        while fields[-1] == 0:
            fields.pop()
        return struct.pack(f"={len(fields)}Q", *fields)


def supported_abi() -> tuple[int, int]:
    """The kernel's ABI version and errno (``ENOSYS`` not built, ``EOPNOTSUPP`` switched off)."""
    return syscall("landlock_create_ruleset", 0, 0, _CREATE_RULESET_VERSION)


def restrict(read_paths: Iterable[Path]) -> Mapping[str, Control]:
    """Allow reading beneath `read_paths` and :data:`SYSTEM_READ`, writing ``/dev/null``, no TCP.

    Paths that do not exist are skipped: a rule less grants less. Irrevocable.
    """
    abi, failed = supported_abi()
    if failed:
        missing = unavailable(failed)
        return {"landlock_abi": missing, "landlock_fs": missing, "landlock_net": missing}
    abi = min(abi, _KNOWN_ABI)
    rights = Rights.of(abi)
    failed = _enforce(rights, read_paths)
    if failed:
        broken = refused(failed)
        return {"landlock_abi": broken, "landlock_fs": broken, "landlock_net": broken}
    tcp = applied("tcp") if rights.tcp else unavailable(errno.EOPNOTSUPP, f"ABI {abi} < 4")
    return {"landlock_abi": applied(str(abi)), "landlock_fs": applied(), "landlock_net": tcp}


def _enforce(rights: Rights, read_paths: Iterable[Path]) -> int:
    """Build the ruleset and enter it; returns the errno of the first call that failed, else 0."""
    attribute = rights.attribute()
    ruleset, failed = syscall("landlock_create_ruleset", attribute, len(attribute), 0)
    if failed:
        return failed
    try:
        for path in (*read_paths, *map(Path, SYSTEM_READ)):
            failed = failed or _allow(ruleset, path, _READ_DIRECTORY)
        for device in _SYSTEM_WRITE:
            # TRUNCATE only where it is handled: granting an unhandled right is an error.
            failed = failed or _allow(ruleset, Path(device), _WRITE_FILE | rights.files & _TRUNCATE)
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        return failed or syscall("landlock_restrict_self", ruleset, 0)[1]
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> int:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        absent = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
        return 0 if error.errno in absent else error.errno or errno.EIO
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= ~_READ_DIR
        # struct landlock_path_beneath_attr is packed: u64 access, s32 descriptor.
        rule = struct.pack("=Qi", access, fd)
        return syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, rule, 0)[1]
    finally:
        os.close(fd)

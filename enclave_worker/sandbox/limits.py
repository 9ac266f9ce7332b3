"""Process limits set before the first thread: cores, dumps, capabilities, parent death, privileges.

Each function sets one control, reads it back where the kernel can be asked, and returns the result.
"""

import ctypes
import errno
import os
import resource
import signal
import struct
from collections.abc import Mapping

from attestation.posture import Control

from .libc import prctl, syscall
from .outcome import applied, refused, unavailable

__all__ = ("apply_limits",)

_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAP_VERSION_3 = 0x20080522
_CAP_LAST = 63  # the mask is 64 bits wide; the kernel answers EINVAL past its own last one


def apply_limits() -> Mapping[str, Control]:
    """Set every limit of this module. Call in the main thread before any other thread exists.

    The order matters: capabilities go while ``CAP_SETPCAP`` is still held, and the parent-death
    signal comes after them because a credential change clears it.
    """
    return {
        "capabilities": drop_capabilities(),
        "no_new_privs": no_new_privileges(),
        "dumpable": not_dumpable(),
        "core": no_core_files(),
        "pdeathsig": die_with_parent(),
    }


def no_core_files() -> Control:
    """RLIMIT_CORE 0 for soft and hard: a crash leaves no image of memory on disk."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        return refused(getattr(error, "errno", 0) or errno.EPERM)
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        return refused(0, "limit read back is not zero")
    return applied("0")


def not_dumpable() -> Control:
    """PR_SET_DUMPABLE 0: others of this uid read neither ``/proc/PID/mem`` nor the environment.

    A root user with ``CAP_SYS_PTRACE`` still can; only a confidential VM keeps that one out.
    """
    _, failed = prctl(_PR_SET_DUMPABLE, 0)
    if failed:
        return refused(failed)
    return applied("0") if prctl(_PR_GET_DUMPABLE)[0] == 0 else refused(0, "flag read back is set")


def no_new_privileges() -> Control:
    """PR_SET_NO_NEW_PRIVS: no set-uid gain; Landlock and seccomp need it from a plain user."""
    _, failed = prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if failed:
        return refused(failed)
    return applied("1") if prctl(_PR_GET_NO_NEW_PRIVS)[0] == 1 else refused(0, "flag not set")


def die_with_parent() -> Control:
    """PR_SET_PDEATHSIG SIGKILL: no worker outlives the launcher (or the wrapper) that watches it.

    The signal belongs to the parent *thread*: the launcher must start workers from a thread that
    lives as long as it does.
    """
    parent = os.getppid()
    _, failed = prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if failed:
        return refused(failed)
    if os.getppid() != parent:
        # The parent died between fork and here, so its signal can never come.
        os.kill(os.getpid(), signal.SIGKILL)
    held = ctypes.c_int()
    prctl(_PR_GET_PDEATHSIG, ctypes.addressof(held))
    return applied("SIGKILL") if held.value == signal.SIGKILL else refused(0, "signal not held")


def drop_capabilities() -> Control:
    """Empty every capability set: a user namespace hands its first process all of them.

    Without this the worker could reach mount, bpf and netfilter code in the kernel as the root of
    its own namespace, which is most of the attack surface the namespace was meant to close.
    """
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_CAP_LAST + 1):
        present, failed = prctl(_PR_CAPBSET_READ, capability)
        if failed == errno.EINVAL:
            break
        if present:
            # A plain user may not drop from the bounding set, and holds nothing it could bound:
            # with no_new_privs an exec can add none either, so EPERM here is not a loss.
            prctl(_PR_CAPBSET_DROP, capability)
    header = struct.pack("=Ii", _CAP_VERSION_3, 0)
    result, failed = syscall("capset", header, bytes(24))
    if failed == errno.ENOSYS:
        return unavailable(failed)
    return applied("none held") if result == 0 else refused(failed)

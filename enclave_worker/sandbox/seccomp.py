"""The system-call filter: a classic BPF program built here, installed for every thread at once.

https://docs.kernel.org/userspace-api/seccomp_filter.html. No libseccomp: finding it needs the
loader cache and a subprocess, and a program of our own is short enough to read and to measure.

What stays: reading, writing and receiving on open descriptors (``recvmsg`` brings new ones over a
socket already held), epoll, futex, memory, clocks, threads. What goes is in ``syscalls.py``, plus
the calls judged by argument in :func:`_judged`. A foreign architecture or x32 kills the process:
nobody arrives there by mistake, and its numbers mean other calls.
"""

import ctypes
import errno
import hashlib
import platform
import struct
from collections.abc import Mapping

from attestation.posture import Control

from .libc import address_of, syscall
from .outcome import applied, refused, unavailable
from .syscalls import ABSENT, ARCHITECTURES, DENIED, JUDGED, LAST_KNOWN, Architecture, number

__all__ = ("build", "install")

_SET_MODE_FILTER = 1
_FLAG_TSYNC = 1

_KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS
_ERRNO = 0x00050000
_ALLOW = 0x7FFF0000
_DENY = _ERRNO | errno.EPERM
_ABSENT_CALL = _ERRNO | errno.ENOSYS

# linux/bpf_common.h: class | size | mode, class | operation | source
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_SET = 0x15, 0x25, 0x45
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16

_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020000 | 0x80  # NEWNS…NEWNET, NEWTIME
_AF_UNIX = 1
_SOCK_STREAM = 1
_SOCK_TYPE_MASK = 0xF  # the rest is CLOEXEC and NONBLOCK
# PDEATHSIG, DUMPABLE, SECUREBITS, MM, PTRACER: what an intruder would undo or point elsewhere.
_PRCTL_DENIED = (1, 4, 28, 35, 0x59616D61)
_IOCTL_DENIED = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into the operator's terminal

_Instruction = tuple[int, int, int, int]


def build(machine: str) -> bytes:
    """The filter for `machine` (``x86_64``, ``aarch64``) as ``struct sock_filter[]``.

    Raises:
        KeyError: no system-call table for that architecture.
    """
    architecture = ARCHITECTURES[machine]
    program = [
        _load(_ARCH_AT),
        (_JUMP_EQUAL, 1, 0, architecture.audit),
        _return(_KILL),
        _load(_NUMBER_AT),
    ]
    if architecture.foreign_bit:
        program += [(_JUMP_SET, 0, 1, architecture.foreign_bit), _return(_KILL)]
    program += [(_JUMP_GREATER, 0, 1, LAST_KNOWN), _return(_ABSENT_CALL)]
    for entry in DENIED.values():
        call = number(entry, architecture)
        if call != ABSENT:
            program += [(_JUMP_EQUAL, 0, 1, call), _return(_DENY)]
    for call, verdict in _judged(architecture):
        program += [(_JUMP_EQUAL, 0, len(verdict), call), *verdict]
    program.append(_return(_ALLOW))
    # Little-endian like both architectures: the digest in the posture names these very bytes.
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def install() -> Mapping[str, Control]:
    """Put the filter on every thread of the process. Needs no_new_privs. Irrevocable.

    If the kernel cannot synchronise the threads, the calling thread alone is filtered and `tsync`
    says so: the record never shows more than was done.
    """
    try:
        program = build(platform.machine())
    except KeyError:
        reason = unavailable(errno.ENOSYS, f"no system-call table for {platform.machine()}")
        return {"seccomp": reason, "tsync": reason}
    digest = "sha256:" + hashlib.sha256(program).hexdigest()
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: u16 count, padding to the pointer, address.
    descriptor = struct.pack("@HP", len(program) // 8, address_of(buffer))
    result, failed = syscall("seccomp", _SET_MODE_FILTER, _FLAG_TSYNC, descriptor)
    if result == 0:
        return {"seccomp": applied(digest), "tsync": applied()}
    unsynchronised = refused(failed or errno.ESRCH, "a thread cannot take the filter")
    result, failed = syscall("seccomp", _SET_MODE_FILTER, 0, descriptor)
    if result == 0:
        return {"seccomp": applied(digest), "tsync": unsynchronised}
    missing = failed in (errno.ENOSYS, errno.EINVAL)
    outcome = unavailable(failed) if missing else refused(failed)
    return {"seccomp": outcome, "tsync": outcome}


def _judged(architecture: Architecture) -> list[tuple[int, list[_Instruction]]]:
    """Calls allowed for some arguments; each block ends in a return and never falls through."""
    verdicts = {
        # glibc's fork() is clone: threads pass, processes and new namespaces do not.
        "clone": [
            _argument(0),
            (_JUMP_SET, 0, 2, _CLONE_THREAD),
            (_JUMP_SET, 1, 0, _CLONE_NAMESPACES),
            _return(_ALLOW),
            _return(_DENY),
        ],
        # Its flags lie in memory a filter cannot read; the C library then falls back to clone.
        "clone3": [_return(_ABSENT_CALL)],
        # asyncio needs a stream pair; a datagram socket could address any socket file of the host.
        "socketpair": [
            _argument(0),
            (_JUMP_EQUAL, 0, 4, _AF_UNIX),
            _argument(1),
            (_AND, 0, 0, _SOCK_TYPE_MASK),
            (_JUMP_EQUAL, 0, 1, _SOCK_STREAM),
            _return(_ALLOW),
            _return(_DENY),
        ],
        "sendto": _only_null(4),
        # Reading a limit passes no new value.
        "prlimit64": _only_null(2),
        "prctl": _none_of(0, _PRCTL_DENIED),
        "ioctl": _none_of(1, _IOCTL_DENIED),
    }
    return [(number(JUDGED[name], architecture), block) for name, block in verdicts.items()]


def _only_null(index: int) -> list[_Instruction]:
    """Allow while the 64-bit argument is zero: a pointer's low half alone may be zero."""
    return [
        _argument(index),
        (_JUMP_EQUAL, 0, 3, 0),
        _argument(index, high=True),
        (_JUMP_EQUAL, 0, 1, 0),
        _return(_ALLOW),
        _return(_DENY),
    ]


def _none_of(index: int, values: tuple[int, ...]) -> list[_Instruction]:
    """Deny these values of an ``int`` argument (the kernel reads its low 32 bits, so do we)."""
    tests = [
        (_JUMP_EQUAL, len(values) - position, 0, value) for position, value in enumerate(values)
    ]
    return [_argument(index), *tests, _return(_ALLOW), _return(_DENY)]


def _argument(index: int, *, high: bool = False) -> _Instruction:
    return _load(_ARGUMENTS_AT + 8 * index + (4 if high else 0))


def _load(offset: int) -> _Instruction:
    return (_LOAD, 0, 0, offset)


def _return(verdict: int) -> _Instruction:
    return (_RETURN, 0, 0, verdict)

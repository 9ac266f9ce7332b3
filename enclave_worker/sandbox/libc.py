"""Typed doors into the C library for calls Python has no function for; nothing decides here.

``CDLL(None)`` is the C library already in the process: no search, no ``ldconfig`` subprocess, so it
works in a minimal root and under Landlock (``find_library`` does neither).
"""

import ctypes
import errno
import platform
import sys

__all__ = (
    "NUMBERS",
    "address_of",
    "advise_pages",
    "fill_random",
    "lock_pages",
    "map_pages",
    "prctl",
    "syscall",
    "unmap_pages",
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.restype = ctypes.c_int
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.getrandom.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_libc.getrandom.restype = ctypes.c_ssize_t

_MAP_FAILED = ctypes.c_void_p(-1).value

# Only the calls this package makes itself; the filter's own table is in syscalls.py.
NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "capset": 126,
        "seccomp": 317,
        "landlock_create_ruleset": 444,
        "landlock_add_rule": 445,
        "landlock_restrict_self": 446,
        "memfd_secret": 447,
    },
    "aarch64": {
        "capset": 91,
        "seccomp": 277,
        "landlock_create_ruleset": 444,
        "landlock_add_rule": 445,
        "landlock_restrict_self": 446,
        "memfd_secret": 447,
    },
}


def syscall(name: str, *arguments: object) -> tuple[int, int]:
    """Make the system call `name`; returns ``(result, errno)`` with errno 0 on success.

    An architecture without a table answers ``ENOSYS``, as a kernel without the call would.
    """
    number = NUMBERS.get(platform.machine(), {}).get(name)
    if number is None or not sys.platform.startswith("linux"):
        return -1, errno.ENOSYS
    ctypes.set_errno(0)
    # Every variadic argument is widened: the callee reads whole registers.
    result = _libc.syscall(ctypes.c_long(number), *[_wide(a) for a in arguments])
    return result, ctypes.get_errno() if result < 0 else 0


def prctl(option: int, *arguments: int) -> tuple[int, int]:
    """``prctl(2)``; returns ``(result, errno)``."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    ctypes.set_errno(0)
    result = _libc.prctl(ctypes.c_int(option), *[ctypes.c_ulong(a) for a in padded])
    return result, ctypes.get_errno() if result < 0 else 0


def map_pages(size: int, protection: int, flags: int, fd: int) -> tuple[int, int]:
    """``mmap(2)`` without Python's ``mmap`` object, which would keep the descriptor open."""
    ctypes.set_errno(0)
    address = _libc.mmap(None, size, protection, flags, fd, 0)
    if address is None or address == _MAP_FAILED:
        return 0, ctypes.get_errno()
    return int(address), 0


def unmap_pages(address: int, size: int) -> None:
    """``munmap(2)``."""
    _libc.munmap(address, size)


def lock_pages(address: int, size: int) -> int:
    """``mlock(2)``; returns the errno, 0 when the pages are held in memory."""
    ctypes.set_errno(0)
    return ctypes.get_errno() if _libc.mlock(address, size) else 0


def advise_pages(address: int, size: int, advice: int) -> int:
    """``madvise(2)``; returns the errno."""
    ctypes.set_errno(0)
    return ctypes.get_errno() if _libc.madvise(address, size, advice) else 0


def fill_random(address: int, size: int) -> int:
    """``getrandom(2)`` straight into `address`: no copy on Python's heap. Returns the errno."""
    ctypes.set_errno(0)
    if _libc.getrandom(address, size, 0) != size:
        return ctypes.get_errno() or errno.EIO
    return 0


def address_of(buffer: ctypes.Array[ctypes.c_char]) -> int:
    """The address of a ctypes buffer, as an integer for :func:`syscall`."""
    return ctypes.addressof(buffer)


def _wide(argument: object) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument

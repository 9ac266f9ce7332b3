"""The Nitro Secure Module: CBOR requests over one ioctl on /dev/nsm (linux/nsm.h).

    ioctl  _IOWR(0x0A, 0, {request, response}), both {u64 address, u64 length}
    reply  {"<Request>": {…}}, a bare "<Request>" where there is nothing to say, or {"Error": code}

The driver cuts a reply to the buffer it was given without saying so; the buffer here is as large as
a reply can be, and a reply that does not parse to its end is refused.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cbor2

from attestation.formats.cbor import CborKey, CborValue, Dialect, decode
from wire.errors import MalformedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # fcntl.ioctl's shape: (descriptor, request, struct written back) → result
    Ioctl = Callable[[int, int, bytearray], int]

DEVICE: Final = Path("/dev/nsm")
IOCTL_RAW: Final = 0xC020_0A00  # _IOWR(0x0A, 0, 32 bytes)
REQUEST_MAX: Final = 0x1000
RESPONSE_MAX: Final = 0x3000
CODE_MAX: Final = 64  # "BufferTooSmall" and the like

# An answer is a map of one request to at most four fields; the module streams its maps.
_ANSWER: Final = Dialect("NSM", RESPONSE_MAX, depth_max=4, items_max=128, indefinite_maps=True)
_RAW = struct.Struct("<QQQQ")


class NsmError(UnavailableError):
    """The module answered with an error.

    Args:
        operation: what was asked.
        code: the module's name for what is wrong.
    """

    def __init__(self, operation: str, code: str) -> None:
        super().__init__(f"NSM {operation}: found error {code}, expected an answer")
        self.nsm_code = code


class Nsm:
    """One open device. Not for several threads at once.

    Args:
        device: its path.
        ioctl: the system call.

    Raises:
        UnavailableError: the device cannot be opened.
    """

    def __init__(self, device: Path = DEVICE, ioctl: Ioctl = fcntl.ioctl) -> None:
        self._ioctl = ioctl
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise UnavailableError(
                f"{device}: found {os.strerror(error.errno or 0)}, expected the NSM",
                hint="It exists in a Nitro enclave only; the image must let the launcher open it.",
            ) from error

    def ask(
        self, operation: str, fields: Mapping[str, Any] | None = None
    ) -> dict[CborKey, CborValue]:
        """Send one request; returns the fields of its answer, none for a bare acknowledgement.

        Args:
            operation: "DescribePCR", "ExtendPCR", "LockPCR" or "Attestation".
            fields: the request's, or None for a bare request.

        Raises:
            ValueError: the request is too large.
            NsmError: the module refused.
            UnavailableError: the driver failed, or the answer is not one to this request.
        """
        request = cbor2.dumps(operation if fields is None else {operation: dict(fields)})
        if len(request) > REQUEST_MAX:
            raise ValueError(f"NSM {operation}: found {len(request)} bytes, limit {REQUEST_MAX}")
        answer = _parse(operation, self._exchange(operation, request))
        if answer == operation:
            return {}
        if isinstance(answer, dict) and len(answer) == 1:
            ((name, found),) = answer.items()
            if name == operation and isinstance(found, dict):
                return found
            if name == "Error" and isinstance(found, str) and len(found) <= CODE_MAX:
                raise NsmError(operation, found if found.isalnum() else "?")
        raise UnavailableError(f"NSM {operation}: found an answer to something else")

    def close(self) -> None:
        """Close the device. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _exchange(self, operation: str, request: bytes) -> bytes:
        sent = ctypes.create_string_buffer(request, len(request))
        received = ctypes.create_string_buffer(RESPONSE_MAX)
        raw = bytearray(
            _RAW.pack(
                ctypes.addressof(sent), len(request), ctypes.addressof(received), RESPONSE_MAX
            )
        )
        try:
            self._ioctl(self._fd, IOCTL_RAW, raw)
        except OSError as error:
            raise UnavailableError(
                f"NSM {operation}: found {os.strerror(error.errno or 0)}, expected an answer"
            ) from error
        length = _RAW.unpack(raw)[3]
        if length > RESPONSE_MAX:
            raise UnavailableError(f"NSM {operation}: found {length} bytes, limit {RESPONSE_MAX}")
        return received.raw[:length]


def _parse(operation: str, raw: bytes) -> CborValue:
    try:
        return decode(raw, _ANSWER)
    except MalformedError as error:
        raise UnavailableError(f"NSM {operation}: found no CBOR answer ({error})") from error

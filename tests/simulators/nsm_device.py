"""A model of the Nitro Secure Module behind /dev/nsm's ioctl (linux/nsm.h).

Usable by third parties: `NsmDevice.ioctl` has the shape of `fcntl.ioctl` and reads and writes the
caller's memory through the addresses in its struct, like the driver.

- From Linux' drivers/misc/nsm.c: another command is EINVAL, a request over 4,096 bytes EMSGSIZE; a
  reply longer than the caller's buffer is cut without a word; ETIMEDOUT (after two minutes), EIO
  and ENODATA say nothing about whether the module carried the request out (`fails`).
- From AWS's nsm-api (`ErrorCode`, nsm-check): 32 registers of 48 bytes, 0 to 15 locked from the
  start; locking or extending a locked one is an error, as is an index beyond the last; extending
  hashes the old value and the data, of any length; a document lists the locked registers only.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2

REQUEST_MAX = 0x1000
RESPONSE_MAX = 0x3000
IOCTL_RAW = 0xC0200A00
PCR_LEN = 48

# (registers, user_data, nonce, public_key) to a signed document.
Sign = Callable[[Mapping[int, bytes], bytes | None, bytes | None, bytes | None], bytes]


def unsigned(
    pcrs: Mapping[int, bytes], user_data: bytes | None, nonce: bytes | None, key: bytes | None
) -> bytes:
    """A document as emulators make it: the right members, nobody's signature."""
    payload = {"pcrs": dict(pcrs), "user_data": user_data, "nonce": nonce, "public_key": key}
    return cbor2.dumps([cbor2.dumps({1: -35}), {}, cbor2.dumps(payload), bytes(96)])


@dataclass
class NsmDevice:
    """One module.

    Attributes:
        sign: makes documents.
        max_pcrs: registers it has.
        values, locked: the registers; the image's are locked.
        asked: names of the requests so far.
        fails: errnos for the next calls; a positive one comes before the request is handled, a
            negative one after: the request was carried out and its answer lost.
        answers: raw bytes that replace the next answers.
    """

    sign: Sign = unsigned
    max_pcrs: int = 32
    values: dict[int, bytes] = field(default_factory=lambda: {n: bytes(PCR_LEN) for n in range(32)})
    locked: set[int] = field(default_factory=lambda: set(range(16)))
    asked: list[str] = field(default_factory=list)
    fails: deque[int] = field(default_factory=deque)
    answers: deque[bytes] = field(default_factory=deque)

    def extend(self, index: int, data: bytes) -> None:
        self.values[index] = hashlib.sha384(self.values[index] + data).digest()

    def ioctl(self, fd: int, request: int, raw: bytearray) -> int:
        os.fstat(fd)  # EBADF as the kernel would
        if request != IOCTL_RAW or len(raw) != 32:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        address, length, into, room = struct.unpack("<QQQQ", raw)
        if length > REQUEST_MAX:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        fault = self.fails.popleft() if self.fails else 0
        if fault > 0:
            raise OSError(fault, os.strerror(fault))
        answer = self._handle(ctypes.string_at(address, length))
        if fault < 0:
            raise OSError(-fault, os.strerror(-fault))
        if self.answers:
            answer = self.answers.popleft()
        taken = min(len(answer), room, RESPONSE_MAX)
        ctypes.memmove(into, answer, taken)
        raw[:] = struct.pack("<QQQQ", address, length, into, taken)
        return 0

    def _handle(self, data: bytes) -> bytes:
        request = cbor2.loads(data)
        name, fields = (request, {}) if isinstance(request, str) else next(iter(request.items()))
        self.asked.append(name)
        answer = self._answer(name, fields)
        return cbor2.dumps(answer)

    def _answer(self, name: str, fields: Mapping[str, Any]) -> Any:
        if name == "Attestation":
            parts = [fields.get(part) for part in ("user_data", "nonce", "public_key")]
            if any(part is not None and len(part) > 1024 for part in parts):
                return {"Error": "InputTooLarge"}
            pcrs = {index: self.values[index] for index in sorted(self.locked)}
            return {name: {"document": self.sign(pcrs, *parts)}}
        index = fields.get("index")
        if not isinstance(index, int):
            return {"Error": "InvalidOperation"}
        if not 0 <= index < self.max_pcrs:
            return {"Error": "InvalidIndex"}
        if name == "DescribePCR":
            return {name: {"lock": index in self.locked, "data": self.values[index]}}
        if index in self.locked:
            return {"Error": "ReadOnlyIndex"}
        if name == "LockPCR":
            self.locked.add(index)
            return name
        if name == "ExtendPCR":
            self.extend(index, fields["data"])
            return {name: {"data": self.values[index]}}
        return {"Error": "InvalidOperation"}

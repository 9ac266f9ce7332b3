"""A classic-BPF machine for seccomp programs: decides what a filter answers, without a kernel."""

import struct

MASK = 0xFFFFFFFF


def answer(program: bytes, *, number: int, audit: int, arguments: tuple[int, ...] = ()) -> int:
    """The filter's return value for one system call (``SECCOMP_RET_*`` with data)."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number & MASK, audit, 0, *padded)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        operation, when_true, when_false, k = code[at]
        at += 1
        if operation == 0x06:
            return k
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x15:
            at += when_true if accumulator == k else when_false
        elif operation == 0x25:
            at += when_true if accumulator > k else when_false
        elif operation == 0x45:
            at += when_true if accumulator & k else when_false
        else:
            raise ValueError(f"unknown instruction {operation:#x}")

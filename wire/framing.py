"""Frames: an ordered, authenticated stream with an authenticated end.

    frame i = u8 flags ‖ u24 len(ct) ‖ ct        ct = AES-256-GCM(k, iv XOR u96(i), pt, aad = head)

Order is held by the nonce, flag and length by the aad, the end by FINAL. Spec §6.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import FrameError, OpenError
from .limits import FRAME_CT_MAX, FRAME_HEAD, FRAME_PT_MAX, FRAMES_MAX, TAG_LEN

MORE: Final = 0
FINAL: Final = 1


def frame_head(final: bool, ct_len: int) -> bytes:
    """The four clear, authenticated bytes before a ciphertext."""
    return bytes([FINAL if final else MORE]) + ct_len.to_bytes(3, "big")


def parse_frame_head(head: bytes) -> tuple[bool, int]:
    """`(final, ciphertext length)` of four bytes.

    Raises:
        FrameError: unknown flags, or a length no frame can have.
    """
    flags = head[0]
    if flags not in (MORE, FINAL):
        raise FrameError(f"frame: flags {flags}, expected {MORE} or {FINAL}")
    length = int.from_bytes(head[1:FRAME_HEAD], "big")
    if not TAG_LEN <= length <= FRAME_CT_MAX:
        raise FrameError(f"frame: length {length}, expected {TAG_LEN} to {FRAME_CT_MAX}")
    return flags == FINAL, length


class _Nonces:
    """`iv XOR u96(i)`; an index is used once, in order."""

    __slots__ = ("_base", "_index")

    def __init__(self, iv: bytes) -> None:
        if len(iv) != 12:
            raise ValueError(f"frame iv: expected 12 bytes, found {len(iv)}")
        self._base = int.from_bytes(iv, "big")
        self._index = 0

    def next(self) -> bytes:
        if self._index >= FRAMES_MAX:
            raise FrameError(f"frame: at most {FRAMES_MAX} frames in a stream")
        nonce = (self._base ^ self._index).to_bytes(12, "big")
        self._index += 1
        return nonce


class FrameSealer:
    """Seals one stream's frames, in order, once.

    Args:
        k: AES-256 key, 32 bytes, used for this stream only.
        iv: base nonce, 12 bytes.
    """

    __slots__ = ("_aead", "_nonces", "final")

    def __init__(self, k: bytes, iv: bytes) -> None:
        self._aead = AESGCM(k)
        self._nonces = _Nonces(iv)
        self.final = False

    def seal(self, pt: bytes, final: bool = False) -> bytes:
        """One frame's bytes. After a final frame nothing can follow."""
        if self.final:
            raise RuntimeError("frame: the stream already has its final frame")
        if len(pt) > FRAME_PT_MAX:
            raise ValueError(f"frame: at most {FRAME_PT_MAX} bytes, found {len(pt)}")
        head = frame_head(final, len(pt) + TAG_LEN)
        self.final = final
        return head + self._aead.encrypt(self._nonces.next(), pt, head)


class FrameOpener:
    """Opens a stream of frames as bytes arrive, in any cut.

    Holds at most one incomplete frame. After an error the opener is dead: every later call raises
    the same error, so nothing past a forged frame is ever used.

    Args:
        k: AES-256 key, 32 bytes.
        iv: base nonce, 12 bytes.
        hash_frames: keep `digests`.

    Attributes:
        final: whether the final frame was opened.
        digests: entry n is SHA-256 of the frames 0 to n as received, without the final one; a
            receipt names the hash of those that stood before it was signed.
    """

    __slots__ = ("_aead", "_buffer", "_failed", "_hash", "_nonces", "digests", "final")

    def __init__(self, k: bytes, iv: bytes, hash_frames: bool = False) -> None:
        self._aead = AESGCM(k)
        self._nonces = _Nonces(iv)
        self._buffer = bytearray()
        self._hash = hashlib.sha256() if hash_frames else None
        self.digests: list[bytes] = []
        self._failed: FrameError | OpenError | None = None
        self.final = False

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[bytes]:
        """Plaintexts of the frames completed by `chunk`, in order.

        Raises:
            FrameError: impossible header, or bytes after the final frame.
            OpenError: a frame does not authenticate.
        """
        if self._failed is not None:
            raise self._failed
        try:
            return self._feed(chunk)
        except (FrameError, OpenError) as cause:
            self._failed = cause
            raise

    def _feed(self, chunk: bytes | bytearray | memoryview) -> list[bytes]:
        if not self._buffer:  # whole frames are opened where they lie, without a copy
            with memoryview(chunk) as view:
                found, at = self._open_all(view)
                self._buffer += view[at:]
            return found
        self._buffer += chunk
        with memoryview(self._buffer) as view:
            found, at = self._open_all(view)
        del self._buffer[:at]
        return found

    def _open_all(self, view: memoryview) -> tuple[list[bytes], int]:
        """Plaintexts of the whole frames in `view`, and where the first incomplete one begins."""
        found: list[bytes] = []
        at = 0
        while at < len(view):
            if self.final:
                raise FrameError("frame: bytes follow the final frame")
            if len(view) - at < FRAME_HEAD:
                break
            head = bytes(view[at : at + FRAME_HEAD])
            final, length = parse_frame_head(head)
            end = at + FRAME_HEAD + length
            if end > len(view):
                break
            found.append(self._open(head, view[at + FRAME_HEAD : end]))
            self.final = final
            if self._hash is not None and not final:
                self._hash.update(view[at:end])
                self.digests.append(self._hash.digest())
            at = end
        return found, at

    def _open(self, head: bytes, ct: memoryview) -> bytes:
        with ct:
            try:
                return self._aead.decrypt(self._nonces.next(), ct, head)
            except InvalidTag:
                raise OpenError("a frame did not open") from None

    def finish(self) -> None:
        """Called at the end of input.

        Raises:
            FrameError: the input ended before the final frame.
        """
        if self._failed is not None:
            raise self._failed
        if not self.final:
            raise FrameError("frame: the stream ends before its final frame")

"""The K-quants of GGUF written block by block, after ggml's `ggml-common.h`.

The `gguf` package only reads them. Rounding is the simplest there is; what the bytes stand for is
returned beside them, computed from the numbers before they were packed.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 256
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def k_quantised(values: Floats, kind: str) -> tuple[Bytes, Floats]:
    """Pack [rows, columns] as Q4_K, Q5_K or Q6_K: (bytes [rows, n], what they stand for)."""
    pack = {"Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}[kind]
    blocks = values.reshape(-1, BLOCK)
    packed, meant = pack(blocks)
    rows = values.shape[0]
    return packed.reshape(rows, -1), meant.astype(np.float32).reshape(values.shape)


def _half(values: Floats) -> tuple[Bytes, Floats]:
    """Round to float16: (bytes, the rounded numbers)."""
    half = values.astype(np.float16)
    return half.view(np.uint8).reshape(len(values), 2), half.astype(np.float32)


def _affine(blocks: Floats, most: int) -> tuple[Bytes, Bytes, npt.NDArray[Any], Floats]:
    """Eight parts of 32, each d * scale * q - dmin * least: (head, scales, q [n, 8, 32], meant)."""
    parts = blocks.reshape(-1, 8, 32)
    least = np.maximum(-parts.min(-1), 0)
    step = (parts.max(-1) + least) / most
    d_bytes, d = _half(step.max(-1) / 63)
    m_bytes, m = _half(least.max(-1) / 63)
    scale = np.clip(np.rint(step / np.maximum(d, 1e-9)[:, None]), 0, 63).astype(np.int32)
    lower = np.clip(np.rint(least / np.maximum(m, 1e-9)[:, None]), 0, 63).astype(np.int32)
    width = (d[:, None] * scale)[:, :, None]
    shift = (m[:, None] * lower)[:, :, None]
    q = np.clip(np.rint((parts + shift) / np.maximum(width, 1e-9)), 0, most).astype(np.int32)
    scales = np.zeros((len(parts), 12), np.uint8)
    for j in range(4):
        scales[:, j] = scale[:, j] | scale[:, j + 4] >> 4 << 6
        scales[:, j + 4] = lower[:, j] | lower[:, j + 4] >> 4 << 6
        scales[:, j + 8] = scale[:, j + 4] & 15 | (lower[:, j + 4] & 15) << 4
    return np.concatenate((d_bytes, m_bytes), 1), scales, q, width * q - shift


def _nibbles(q: npt.NDArray[Any]) -> Bytes:
    """Parts 0 and 1 share 32 bytes, and so on: the even part in the low half of each."""
    low, high = q[:, 0::2] & 15, q[:, 1::2] & 15
    return (low | high << 4).astype(np.uint8).reshape(len(q), 128)


def _q4_k(blocks: Floats) -> tuple[Bytes, Floats]:
    """144 bytes: d, dmin, scales[12], qs[128]."""
    head, scales, q, meant = _affine(blocks, 15)
    return np.concatenate((head, scales, _nibbles(q)), 1), meant


def _q5_k(blocks: Floats) -> tuple[Bytes, Floats]:
    """176 bytes: d, dmin, scales[12], qh[32], qs[128]; bit j of qh is part j's fifth."""
    head, scales, q, meant = _affine(blocks, 31)
    high = np.zeros((len(q), 32), np.uint8)
    for part in range(8):
        high |= ((q[:, part] >> 4) << part).astype(np.uint8)
    return np.concatenate((head, scales, high, _nibbles(q)), 1), meant


def _q6_k(blocks: Floats) -> tuple[Bytes, Floats]:
    """210 bytes: ql[128], qh[64], scales[16] signed, d: sixteen parts of 16, d * scale * (q-32)."""
    parts = blocks.reshape(-1, 16, 16)
    step = np.abs(parts).max(-1) / 31
    d_bytes, d = _half(step.max(-1) / 127)
    scale = np.clip(np.rint(step / np.maximum(d, 1e-9)[:, None]), 0, 127).astype(np.int8)
    scale[:, ::3] *= -1  # the sign belongs to the format
    width = (d[:, None] * scale)[:, :, None]
    safe = np.where(width == 0, 1, width)
    q = np.clip(np.rint(parts / safe), -32, 31).astype(np.int32)
    # Each half of 128 is four runs of 32: runs 0 and 2 share bytes of ql, as do 1 and 3.
    runs = (q + 32).reshape(-1, 2, 4, 32)
    low = (runs[:, :, :2] & 15) | (runs[:, :, 2:] & 15) << 4
    high = sum((runs[:, :, r] >> 4) << (2 * r) for r in range(4))
    count = len(parts)
    packed = (
        low.astype(np.uint8).reshape(count, 128),
        np.asarray(high).astype(np.uint8).reshape(count, 64),
        scale.view(np.uint8),
        d_bytes,
    )
    return np.concatenate(packed, 1), width * q

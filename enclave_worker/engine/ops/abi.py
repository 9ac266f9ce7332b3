"""The C interface of the compiled kernels: native/abi.h and native/interface.cpp, for ctypes.

Structures mirror the header member by member; a change of either changes the interface's number.
Addresses are plain integers: whoever passes one keeps what lies there alive.
"""

import ctypes
from collections.abc import Mapping
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import Any

ABI = 2


class Form:
    """How a product takes its weights and rows: bf16, or int8 weights with 8 or 16 bits."""

    BF16, W8A8, W8A16 = 0, 1, 2


class Source:
    """What `ah_pack` reads."""

    FLOAT32, BF16, INT8 = 0, 1, 2


def _members(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Linear(ctypes.Structure):
    """A packed weight matrix."""

    _fields_ = [("packed", c_void_p), *_members(c_int32, "n k form reserved")]


class Layer(ctypes.Structure):
    """One layer: four products, four norms."""

    _fields_ = [
        *_members(Linear, "qkv out gate_up down"),
        *_members(c_void_p, "attention_norm mlp_norm query_norm key_norm"),
    ]


class Shape(ctypes.Structure):
    """Sizes of a model and of its steps."""

    _fields_ = [
        *_members(c_int32, "layers hidden heads kv_heads head_dim intermediate vocab"),
        *_members(c_int32, "positions pages max_rows threads"),
        ("eps", c_float),
    ]


class Weights(ctypes.Structure):
    """Where everything of a model lies."""

    _fields_ = [
        ("layers", c_void_p),
        ("head", Linear),
        *_members(c_void_p, "embedding norm cos sin store"),
    ]


class Chunk(ctypes.Structure):
    """Consecutive new tokens of one sequence."""

    _fields_ = _members(c_int32, "first count start pages adapter")


class LowRank(ctypes.Structure):
    """What an adapter adds to a product: b (a x), with b lying across."""

    _fields_ = [*_members(c_void_p, "a b"), *_members(c_int32, "rank reserved")]


class Step(ctypes.Structure):
    """One step and where its outcome goes."""

    _fields_ = [
        *_members(c_void_p, "tokens chunks table wanted adapters"),
        *_members(c_int32, "rows chunk_count table_count wanted_count adapter_count reserved"),
        *_members(c_void_p, "best finite logits hidden"),
    ]


# What each function returns and takes.
_P, _I, _L = c_void_p, c_int32, c_int64
FUNCTIONS: Mapping[str, tuple[Any, ...]] = {
    "ah_abi": (_I,),
    "ah_supported": (_I,),
    "ah_packed_bytes": (_L, _I, _L, _L),
    "ah_pack": (_I, _I, _I, _P, _P, _P, _L, _L, _P),
    "ah_model": (_P, _P, _P),
    "ah_free": (None, _P),
    "ah_step": (_I, _P, _P),
    "ah_linear": (None, _P, _P, _I, _P, _P, _P),
    "ah_rms_norm": (None, _P, _P, c_float, _I, _I, _P),
    "ah_silu_mul": (None, _P, _I, _I, _P),
    "ah_rotate": (None, _P, _P, _P, _I, _I, _P),
    "ah_store": (None, _P, _P, _I, _I, _P),
    "ah_attention": (None, _P, _I, _I, _I, _I, _I, _P, _P, _P),
}

"""Whole replies of `/v1/embeddings`."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

from .request import ApiRequest
from .results import Identity


def vector_bytes(vector: Sequence[float]) -> bytes:
    """Components as little-endian float32: what base64 carries and the receipt commits to."""
    return struct.pack(f"<{len(vector)}f", *vector)


def embeddings_reply(
    identity: Identity, request: ApiRequest, vectors: Sequence[bytes], tokens: int
) -> dict[str, Any]:
    """A list of `embedding` objects.

    Args:
        identity: of the response.
        request: says how vectors are spelled.
        vectors: of `vector_bytes`.
        tokens: of all inputs.
    """
    plain = request.members.get("encoding_format") != "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _numbers(vector) if plain else base64.b64encode(vector).decode(),
        }
        for index, vector in enumerate(vectors)
    ]
    return {
        "object": "list",
        "data": data,
        "model": identity.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _numbers(vector: bytes) -> list[float]:
    # Nine digits spell a float32 exactly.
    return [float(f"{value:.9g}") for (value,) in struct.iter_unpack("<f", vector)]

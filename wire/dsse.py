"""DSSE v1: signatures over a type and exact bytes, so that no two inputs collide.

Source: the Dead Simple Signing Envelope protocol, version 1.0.
"""

from __future__ import annotations


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: what is signed; type and length come first."""
    name = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)

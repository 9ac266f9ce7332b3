"""Which of its kind's roles a file of a sample has, where the index calls it something else.

Only verification keys are looked for: no two sources call a key set alike. They are the relying
party's own word, so the name must say that they are, and nothing besides: a key that came with a
token, an attacker's, or one that was withdrawn reads as any other key does.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from attestation.formats.jwks import parse_keys
from wire.errors import MalformedError

from .pairing import words_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.scheme import Scheme

KEY_ROLES: Final = ("jwks", "public_key")
KEY_WORDS: Final = frozenset(
    {"key", "keys", "jwk", "jwks", "keyset", "keysets", "pubkey", "pubkeys", "publickey", "pkey"}
    | {"verification", "verifier", "verify", "verifying"}
)
# What else may stand in such a name: what the key is for, its form, and who issues tokens.
BESIDE_WORDS: Final = frozenset(
    {"public", "pub", "set", "signing", "signer", "sign", "signature", "issuer", "service"}
    | {"vendor", "publisher", "trusted", "trust", "anchor", "relying", "party", "attestation"}
    | {"result", "ear", "eat", "corim", "rim", "cose"}
    | {"json", "pem", "der", "spki", "ec", "rsa", "ed", "es", "p"}
    | {"nras", "nvidia", "veraison", "trustee", "coco", "intel", "ita", "azure", "maa", "microsoft"}
    | {"google", "gcp", "amd", "aws", "arm"}
)


def by_kind(scheme: Scheme, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files by the roles of their kind.

    The one file that is called keys, reads as public keys, and has no role of its kind, is the
    kind's keys, unless another has that role. Of two such files neither is: to choose one would be
    to choose the judge.
    """
    keys = [role for role in KEY_ROLES if role in scheme.collateral]
    found = dict(files)
    if not keys or any(role in files for role in keys):
        return found
    named = [role for role in files if _called_keys(role) and _keys(files[role])]
    if len(named) == 1:
        found[keys[0]] = found.pop(named[0])
    return found


def _called_keys(role: str) -> bool:
    words = words_of(role)
    return bool(words & KEY_WORDS) and (KEY_WORDS | BESIDE_WORDS).issuperset(words)


def _keys(data: bytes) -> bool:
    with contextlib.suppress(MalformedError):
        return bool(parse_keys(data).keys)
    return False

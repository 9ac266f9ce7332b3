"""Which of its kind's roles a file of a sample has, where the index calls it something else.

Only verification keys are looked for: no two sources call a key set alike, and what it is shows in
its bytes. They are the relying party's own word, as the whole index is.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from attestation.formats.jwks import parse_keys
from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.scheme import Scheme

KEY_ROLES: Final = ("jwks", "public_key")


def by_kind(scheme: Scheme, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files by the roles of their kind.

    The one file that reads as public keys, and has no role of its kind, is the kind's keys, unless
    another has that role. Of two such files neither is: to choose one would be to choose the judge.
    """
    keys = [role for role in KEY_ROLES if role in scheme.collateral]
    found = dict(files)
    if not keys or any(role in files for role in keys):
        return found
    own = {*scheme.evidence[0], *scheme.evidence[1], *scheme.collateral}
    named = [role for role in files if role not in own and _keys(files[role])]
    if len(named) == 1:
        found[keys[0]] = found.pop(named[0])
    return found


def _keys(data: bytes) -> bool:
    with contextlib.suppress(MalformedError):
        return bool(parse_keys(data).keys)
    return False

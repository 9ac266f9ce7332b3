"""Key sets of token issuers, from the addresses the operator configured.

A key set is a trust anchor: nothing signs it, so TLS to the configured address is all that vouches
for it, and an offline bundle is worth what the way it came is worth. A set with private keys, or
with one name for two keys, is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attestation.formats.jwks import parse_keys
from wire.errors import ConfigError, MalformedError

from .entry import BOUNDS, Checked, Piece
from .fetcher import Request

if TYPE_CHECKING:
    from attestation.collateral_key import CollateralKey

    from .fetcher import Response
    from .services import Services


def request(key: CollateralKey, services: Services) -> Request:
    """The question for one issuer.

    Raises:
        ConfigError: the operator configured no such issuer.
    """
    issuer = key.parts[1]
    url = services.jwks.get(issuer)
    if url is None:
        known = ", ".join(sorted(services.jwks)) or "none"
        raise ConfigError(
            f"jwks: found no address for this issuer, expected one of: {known}",
            hint="add the issuer to the table jwks of the services file",
        )
    return Request(url, BOUNDS["jwks"].size, key.kind)


def unwrap(key: CollateralKey, response: Response) -> Piece:
    """The set as sent."""
    assert key.kind == "jwks"
    return Piece(response.body)


def check(key: CollateralKey, piece: Piece) -> Checked:
    """Whether it is a set of public keys with distinct names.

    Raises:
        MalformedError: it is not.
    """
    assert key.kind == "jwks"
    found = parse_keys(piece.body)
    names = [jwk.kid for jwk in found.keys if jwk.kid is not None]
    if found.single or not found.keys:
        raise MalformedError("key set: expected an object with a list of keys")
    if len(set(names)) != len(names):
        raise MalformedError("key set: found one key id twice, expected each once")
    return Checked()

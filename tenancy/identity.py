"""API keys: `anchorhold_<env>_<kid8>_<43 characters>_<crc>`.

The secret part is 256 random bits, so a keyed hash (not a slow password hash) is enough to store
it: `digest = HMAC-SHA256(pepper, secret)`. The checksum exists for typing errors and secret
scanners, not for security. Keys are shown once, when minted, and are never logged.
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from wire.errors import MalformedError
from wire.ids import b64u

#: Publish this to secret scanners: it finds a leaked key in any text.
KEY_PATTERN = re.compile(
    r"anchorhold_([a-z0-9]{1,12})_([a-z0-9]{8})_([A-Za-z0-9_-]{43})_([0-9a-f]{8})"
)
#: No valid key is longer: refuse before running the pattern on hostile input.
KEY_TEXT_MAX = 96
SECRET_BYTES = 32
#: A forgotten key must die by itself.
LIFE_DEFAULT_S = 90 * 86_400
LIFE_MAX_S = 400 * 86_400
#: What a key may do. `infer`: sealed requests, re-wraps and live challenges.
SCOPES = ("infer",)
TENANT_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as presented: parsed, its checksum right, its secret not yet checked."""

    env: str
    kid: str
    secret: str = field(repr=False)  # a repr ends in tracebacks and logs


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, as far as the gateway knows. Only `KeyTable.authenticate` makes one."""

    tenant: str
    kid: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is stored of a key: enough to check it, not enough to use it. Times in Unix seconds."""

    kid: str
    tenant: str
    digest: str
    created: int
    expires: int
    scopes: tuple[str, ...]
    revoked: bool = False


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def digest_secret(pepper: bytes, secret: str) -> str:
    """HMAC-SHA256 of the secret part under the table's pepper, as hex."""
    return hmac.new(pepper, b"anchorhold/1 api key\0" + secret.encode(), hashlib.sha256).hexdigest()


def mint(env: str, rng: Callable[[int], bytes]) -> tuple[str, ApiKey]:
    """Make a new key.

    Args:
        env: lower-case label of the deployment, 1-12 characters (`dev`, `prod`).
        rng: source of random bytes, called with a count.

    Returns:
        The text to show once, and the same key parsed.

    Raises:
        ValueError: `env` is not such a label.
    """
    if re.fullmatch(r"[a-z0-9]{1,12}", env) is None:
        msg = "env must be 1-12 lower-case letters or digits"
        raise ValueError(msg)
    kid = "".join(_KID_ALPHABET[byte & 31] for byte in rng(8))
    secret = b64u(rng(SECRET_BYTES))
    body = f"anchorhold_{env}_{kid}_{secret}"
    return f"{body}_{_checksum(body)}", ApiKey(env, kid, secret)


def parse(text: str) -> ApiKey:
    """Parse a presented key: form and checksum, nothing about who holds it.

    Raises:
        MalformedError: not of this form, or a typing error. The message never repeats the input.
    """
    match = KEY_PATTERN.fullmatch(text) if len(text) <= KEY_TEXT_MAX else None
    if match is None:
        raise MalformedError("API key: expected the form anchorhold_<env>_<kid>_<secret>_<crc>")
    env, kid, secret, crc = match.groups()
    if not hmac.compare_digest(crc, _checksum(text[: -len(crc) - 1])):
        raise MalformedError("API key: the checksum does not match: the key was mistyped or cut")
    return ApiKey(env, kid, secret)

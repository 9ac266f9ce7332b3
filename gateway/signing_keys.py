"""The gateway's own Ed25519 keys, one PEM file of mode 0600 each: the log's and the directory's."""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from attestation.collateral.whole_file import read_whole
from wire.errors import ConfigError

#: A private key in PEM has 119 bytes; some tools write words above it.
KEY_MAX = 4096


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a key.

    Raises:
        ConfigError: missing, readable by others, or not an Ed25519 key in PEM form.
    """
    try:
        mode = path.stat().st_mode
        raw = read_whole(path, KEY_MAX)
    except OSError as error:
        raise ConfigError(
            f"signing key: cannot read {path.name}: {error.strerror}",
            hint="`anchorhold gateway --config FILE --init` creates the keys that are missing",
        ) from error
    if mode & 0o077:
        raise ConfigError(
            f"signing key: {path.name} can be read by others (mode {mode & 0o777:o})",
            hint="restrict it: chmod 600",
        )
    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"signing key: {path.name} is not an unencrypted PEM key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"signing key: {path.name}: expected Ed25519, found another kind")
    return key


def ensure_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a key, or create it when the file does not exist.

    Raises:
        ConfigError: the file cannot be made, or exists and is not a usable key.
    """
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
        except OSError as error:
            raise ConfigError(f"signing key: cannot create {path}: {error.strerror}") from error
    return load_signing_key(path)

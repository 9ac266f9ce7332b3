"""The `software` attester: a development root signs what it is told. It proves nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from attestation.binding import report_data
from attestation.collateral.whole_file import read_whole
from attestation.evidence import SOFTWARE, Evidence
from attestation.formats.software import LABEL, encode_body, encode_statement
from attestation.measurement import combine
from wire.errors import ConfigError, UnavailableError
from wire.ids import b64u

from .run_parts import RunParts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROOT_PEM_MAX: Final = 4096


def software_root(path: Path) -> Ed25519PrivateKey:
    """The development root key at `path`; made there (mode 0600) if the file does not exist.

    Raises:
        ConfigError: the file is not one Ed25519 private key in PEM.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(fd, "wb") as file:
            key = Ed25519PrivateKey.generate()
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return key
    try:
        loaded = load_pem_private_key(read_whole(path, ROOT_PEM_MAX), None)
    except OSError as error:
        raise ConfigError(
            f"{path.name}: {error.strerror}, expected an Ed25519 private key in PEM"
        ) from error
    except (ValueError, TypeError):
        loaded = None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ConfigError(f"{path.name}: found no key, expected an Ed25519 private key in PEM")
    return loaded


class SoftwareAttester:
    """Makes `software` evidence under a development root.

    Args:
        root_key: the development root. Whoever holds it can vouch for anything.
    """

    kind = SOFTWARE
    trust = "software"

    def __init__(self, root_key: Ed25519PrivateKey) -> None:
        self._root_key = root_key
        self._run = RunParts()

    def measure(self, parts: Mapping[str, str]) -> str:
        """Take the worker's parts; returns the measurement that later evidence will claim.

        Raises:
            MalformedError: see `measurement.combine`.
            RuntimeError: called again with other parts: a measurement is for a whole run.
        """
        return self._run.take(parts)

    def attest(self, binding_raw: bytes, now_ms: int) -> Evidence:
        """Evidence for one binding.

        Args:
            binding_raw: the binding's bytes.
            now_ms: Unix milliseconds.

        Raises:
            RuntimeError: `measure` was not called.
        """
        parts = self._run.known()
        statement = encode_statement(
            report_data=report_data(binding_raw),
            measurement=combine(parts),
            parts=parts,
            ts=now_ms,
        )
        return Evidence(SOFTWARE, encode_body(statement, self._root_key.sign(LABEL + statement)))

    def activate(self, credential: object) -> dict[str, str]:
        """Refused: there is no TPM whose keys could be linked.

        Raises:
            UnavailableError: always.
        """
        del credential
        raise UnavailableError("activation: software evidence has no TPM, expected kind tpm2")

    def trust_anchor(self) -> str:
        """What a policy lists as this attester's root: base64url of the public key."""
        return b64u(self._root_key.public_key().public_bytes_raw())

    def close(self) -> None:
        """Nothing is held open."""

"""A machine with a TPM of its own (`tpm2-quote`): the measurement in PCR 11, quotes by a key that
others certify or list.

    1 key          the persistent key at the handle the operator names; it must be an attestation
                   key, which signs only what its TPM made
    2 certificate  out of the index the operator names, or the first known one that certifies this
                   key: clouds also keep certificates of other keys
    3 quote        over the binding's report, with the registers (`tpm_device`)
    4 event log    the firmware's, where it can be read and is one; a hint that the verifier replays

A TPM alone names no CPU, no memory and no maker that we know: the verdict is `vtpm`, under roots or
keys that the policy names, and never more.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.binding import report32
from attestation.formats.pem import certificates
from attestation.formats.tcg_event_log import parse_event_log
from attestation.formats.tpm_structures import parse_public
from attestation.verify.tpm import check_attestation_key
from wire.errors import AttestationError, ConfigError, MalformedError, UnavailableError

from .files import OsFiles
from .tpm_device import open_device

if TYPE_CHECKING:
    from attestation.formats.tpm_structures import Public

    from .files import Files
    from .tpm_device import TpmDevice

KIND: Final = "tpm2-quote"
TRUST: Final = "vtpm"
# Azure's VMs with a virtual TPM (Trusted Launch) have a certified key here from the start. No other
# maker keeps one: elsewhere somebody makes one persistent, at a handle of his choice.
AK: Final = "0x81000003"
AUTO: Final = "auto"
# Where clouds keep a certificate of an attestation key: Azure; Google Compute Engine, whose keys of
# RSA and ECC are made again from the templates in 0x01c10001 and 0x01c10003.
CERTIFICATES: Final = ("0x01c101d0", "0x01c10000", "0x01c10002")
LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
LOG_MAX: Final = 192 * 1024  # with it the evidence must fit one body; real logs take 20 to 100 KiB
CHAIN_MAX: Final = 32 * 1024


class TpmQuoteGuest:
    """A machine with a TPM.

    Args:
        device: the TPM; closed with the guest, or at once if this fails.
        ak: handle of the attestation key.
        certificate: index of its certificate, "auto" for a known one that fits, "" for none.
        chain: certificates above it, DER or PEM; b"" for none.
        files: file operations.
        log: the firmware's event log.

    Raises:
        ConfigError: there is no such key, it is no attestation key, the index that was named holds
            no certificate of it, or the chain is none.
        UnavailableError: the TPM does not answer.
    """

    kind = KIND

    def __init__(
        self,
        device: TpmDevice | None = None,
        *,
        ak: str = AK,
        certificate: str = AUTO,
        chain: bytes = b"",
        files: Files | None = None,
        log: Path = LOG,
    ) -> None:
        self._device = open_device() if device is None else device
        self._files: Files = OsFiles() if files is None else files
        self._ak, self._log = ak, log
        try:
            _check_chain(chain)
            # 1
            self._key = _attestation_key(self._device, ak)
            # 2
            found = self._certificate(certificate)
        except BaseException:
            self._device.close()
            raise
        roles = {"ak_public": self._key.raw, "ak_cert": found, "ak_chain": chain if found else b""}
        self._known = {role: data for role, data in roles.items() if data}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key's SubjectPublicKeyInfo, in hex, as a policy's `aks` lists it."""
        return hashlib.sha256(_spki(self._key.key)).hexdigest()

    def place(self, measurement: bytes) -> None:
        """Put the measurement into PCR 11.

        Raises:
            ConfigError: the register holds something else: the machine must be started again.
            UnavailableError: the TPM does not answer.
        """
        self._device.measure(measurement)

    def pieces(self, binding_raw: bytes, measurement: bytes) -> dict[str, bytes]:
        """A fresh quote for one binding, and what explains it.

        Raises:
            UnavailableError: no quote, or one of something else.
        """
        # 3
        hash_name = self._key.scheme_hash or "sha256"
        quoted = self._device.quote(self._ak, hash_name, report32(binding_raw), measurement)
        # 4
        return {**quoted.pieces(), **self._known, **self._event_log()}

    def close(self) -> None:
        """Close the TPM."""
        self._device.close()

    def _certificate(self, index: str) -> bytes:
        if index == AUTO:
            candidates = (self._shown(known) for known in CERTIFICATES)
            return next((der for der in candidates if der and self._certifies(der)), b"")
        if not index:
            return b""
        found = self._shown(index)
        if not found or not self._certifies(found):
            what = "a certificate of another key" if found else "no certificate"
            raise ConfigError(
                f"NV {index}: found {what}, expected one of the attestation key at {self._ak}",
                hint='Name the index that has it, or "" and list the key in the policy (aks).',
            )
        return found

    def _shown(self, index: str) -> bytes:
        """The certificate in an index, DER, without what fills the index up; b"" for none."""
        raw = self._device.index(index) or b""
        return raw[: _der_length(raw)]

    def _certifies(self, der: bytes) -> bool:
        try:
            key = x509.load_der_x509_certificate(der).public_key()
            return _spki(key) == _spki(self._key.key)
        except (ValueError, UnsupportedAlgorithm):  # whatever else an index may hold
            return False

    def _event_log(self) -> dict[str, bytes]:
        try:
            log = self._files.read(self._log, LOG_MAX)
            parse_event_log(log)
        except (OSError, MalformedError):
            return {}
        return {"event_log": log}


def _check_chain(chain: bytes) -> None:
    try:
        if chain:
            certificates(chain, "attestation key's chain")
    except MalformedError as error:
        raise ConfigError(error.message, hint="Name a file of certificates, DER or PEM.") from error


def persistent_key(device: TpmDevice, handle: str) -> Public:
    """The key at a handle.

    Raises:
        ConfigError: there is none.
        UnavailableError: the TPM does not answer, or with no key that we know.
    """
    try:
        return parse_public(device.public(handle))
    except MalformedError as error:
        raise UnavailableError(f"TPM: {handle}: {error.message}") from error


def _attestation_key(device: TpmDevice, handle: str) -> Public:
    key = persistent_key(device, handle)
    try:
        check_attestation_key(key)
    except AttestationError as error:
        raise ConfigError(
            f"TPM: {handle}: {error.message}",
            hint="Make one with tpm2_createak and tpm2_evictcontrol, or name another handle.",
        ) from error
    return key


def _der_length(raw: bytes) -> int:
    """How long the DER sequence at the start is, 0 if there is none of two bytes of length."""
    return 4 + int.from_bytes(raw[2:4], "big") if raw[:2] == b"\x30\x82" else 0


def _spki(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return encoded

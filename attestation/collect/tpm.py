"""The `tpm2` attester on a simulated TPM: register, quote, activation.

The measurement is extended into one register once a run; quotes cover the firmware registers and
that one, and carry the binding's 32-byte report as caller's data. Which machine the TPM stands in
it does not say.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from attestation.binding import report32
from attestation.evidence import TPM2, Evidence
from attestation.formats.tpm import BANK, PCR_LEN, encode_body
from attestation.formats.tpm_structures import parse_public
from attestation.measurement import combine, digest_bytes
from attestation.rules.tpm import PCR_DEFAULT
from attestation.verify.credential import Credential
from wire.errors import AttestationError, UnavailableError
from wire.ids import b64u

from .swtpm import SimulatedTpm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EK_HANDLE: Final = "0x81010001"  # where TPM makers keep the RSA endorsement key
EK_CERT_INDEX: Final = "0x1c00002"  # NV index of its certificate (TCG EK Credential Profile)
QUOTED: Final = (*range(8), PCR_DEFAULT)  # firmware, then ours

# How tpm2_activatecredential reads a credential from a file: magic and version before the blobs.
_CREDENTIAL_FILE = bytes.fromhex("badcc0de00000001")


class TpmAttester:
    """Makes `tpm2` evidence on its own simulated TPM. Methods may be called from any thread.

    Args:
        state_dir: the TPM's state; the endorsement key lives as long as it.
        ca_dir: folder of the CA that certifies the endorsement key, shared between TPMs that one
            policy root should cover; state_dir/ca if None.

    Raises:
        ConfigError: swtpm or tpm2-tools are not installed.
        UnavailableError: the TPM does not start or answer.
    """

    kind = TPM2
    trust = "simulated"

    def __init__(self, state_dir: Path, ca_dir: Path | None = None) -> None:
        self._lock = threading.Lock()  # a swtpm socket serves one client at a time
        self._parts: dict[str, str] = {}
        self._tpm = SimulatedTpm(state_dir, state_dir / "ca" if ca_dir is None else ca_dir)
        try:
            self._prepare()
        except BaseException:
            self._tpm.close()
            raise

    def _prepare(self) -> None:
        tpm = self._tpm
        tpm.tool("readpublic", "-c", EK_HANDLE, "-f", "tss", "-o", "work/ek.pub")
        tpm.tool(
            "createak", "-C", EK_HANDLE, "-c", "work/ak.ctx", "-G", "ecc", "-g", "sha256",
            "-s", "ecdsa", "-u", "work/ak.pub", "-f", "tss",
        )  # fmt: skip
        tpm.tool("nvread", EK_CERT_INDEX, "-o", "work/ek.der")
        tpm.tool("flushcontext", "-t")
        self._ek, self._ak, self._ek_cert = (
            self._read(name) for name in ("ek.pub", "ak.pub", "ek.der")
        )
        issuer = load_pem_x509_certificate(tpm.issuer_pem().encode("ascii"))
        self._chain = [issuer.public_bytes(Encoding.DER)]

    def measure(self, parts: Mapping[str, str]) -> str:
        """Extend the register with the measurement of `parts`; returns the measurement.

        Raises:
            MalformedError: see `measurement.combine`.
            RuntimeError: called again with other parts: a register only grows.
        """
        with self._lock:
            if self._parts and self._parts != dict(parts):
                raise RuntimeError("measure: already given other parts for this run")
            measurement = combine(parts)
            if not self._parts:
                value = digest_bytes(measurement).hex()
                self._tpm.tool("pcrextend", f"{PCR_DEFAULT}:{BANK}={value}")
                self._parts = dict(parts)
            return measurement

    def attest(self, binding_raw: bytes, now_ms: int) -> Evidence:
        """A fresh quote for one binding.

        Args:
            binding_raw: the binding's bytes.
            now_ms: unused; a TPM states no time of day. Here so that attesters are alike.

        Raises:
            RuntimeError: `measure` was not called.
            UnavailableError: the TPM does not answer.
        """
        del now_ms
        selection = f"{BANK}:{','.join(map(str, QUOTED))}"
        with self._lock:
            if not self._parts:
                raise RuntimeError("attest: measure the worker first")
            self._tpm.tool("pcrread", selection, "-o", "work/pcrs")
            try:
                self._tpm.tool(
                    "quote", "-c", "work/ak.ctx", "-l", selection, "-q",
                    report32(binding_raw).hex(), "-m", "work/quote", "-s", "work/sig", "-g", BANK,
                )  # fmt: skip
            finally:
                self._tpm.tool("flushcontext", "-t")
            values = self._read("pcrs")
            body = encode_body(
                quote=self._read("quote"),
                sig=self._read("sig"),
                pcrs={
                    register: values[at * PCR_LEN : (at + 1) * PCR_LEN]
                    for at, register in enumerate(QUOTED)
                },
                ak=self._ak,
                ek=self._ek,
                ek_cert=self._ek_cert,
                chain=self._chain,
                parts=self._parts,
            )
        return Evidence(TPM2, body)

    def activate(self, credential: object) -> dict[str, str]:
        """Answer a credential challenge ({"blob", "secret", "ak", "ek"}) with {"secret": b64}.

        Raises:
            MalformedError: not a credential.
            AttestationError: the TPM refuses it: made for other keys (`activation_refused`).
        """
        asked = Credential.from_json(credential)
        blob = _sized(asked.blob) + _sized(asked.enc_secret)
        with self._lock:
            (self._tpm.work / "credential").write_bytes(_CREDENTIAL_FILE + blob)
            (self._tpm.work / "secret").unlink(missing_ok=True)
            tool = self._tpm.tool
            tool("startauthsession", "--policy-session", "-S", "work/session")
            try:
                tool("policysecret", "-S", "work/session", "-c", "e")
                tool(
                    "activatecredential", "-c", "work/ak.ctx", "-C", EK_HANDLE,
                    "-i", "work/credential", "-o", "work/secret", "-P", "session:work/session",
                )  # fmt: skip
            except UnavailableError as cause:
                raise AttestationError(
                    "activation: the TPM refused the challenge, expected one for its own keys",
                    reasons=("activation_refused",),
                ) from cause
            finally:
                tool("flushcontext", "work/session")
                tool("flushcontext", "-t")
            return {"secret": b64u(self._read("secret"))}

    def trust_anchor(self) -> str:
        """What a policy lists as this attester's root: the CA's certificate, PEM."""
        return self._tpm.root_pem()

    def ak_name(self) -> bytes:
        """TPM name of the attestation key of this run."""
        return parse_public(self._ak).name

    def close(self) -> None:
        """Stop the TPM."""
        self._tpm.close()

    def _read(self, name: str) -> bytes:
        return (self._tpm.work / name).read_bytes()


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data

"""The attester of a machine whose hardware signs: measured once, attested as often as asked.

What is the same for every machine is here; where its measurement stands and how it signs is a
`Guest`'s (`tdx`, `snp`, `nitro`, `azure`, `tpm_quote`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attestation.evidence import Evidence
from attestation.formats.container import encode_container
from wire.errors import UnavailableError

from .run_parts import RunParts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.result import Trust


class Guest(Protocol):
    """One kind of confidential guest, seen from inside."""

    @property
    def kind(self) -> str:
        """The kind of evidence it makes."""

    def place(self, measurement: bytes) -> None:
        """Put 32 bytes where the processor signs them, or check that they stand there.

        Raises:
            ConfigError: something else stands there, and nothing here can change that.
            UnavailableError: the place cannot be read or written.
        """

    def pieces(self, binding_raw: bytes, measurement: bytes) -> dict[str, bytes]:
        """Fresh evidence for one binding, by role.

        Raises:
            UnavailableError: none, or one of something else.
        """

    def close(self) -> None:
        """Release what is held open."""


class HardwareAttester:
    """Makes evidence in a confidential guest.

    Args:
        guest: the kind of guest; closed with the attester.
        trust: what its evidence may be called at most.
        anchor: what a policy lists as its root; None where the vendor's is pinned already.
    """

    def __init__(
        self, guest: Guest, *, trust: Trust = "hardware", anchor: str | None = None
    ) -> None:
        self.kind = guest.kind
        self.trust = trust
        self._guest = guest
        self._anchor = anchor
        self._run = RunParts()

    def measure(self, parts: Mapping[str, str]) -> str:
        """Put the measurement of `parts` where the hardware signs it; returns it.

        Raises:
            ConfigError: another measurement stands there: the guest must be started again.
            UnavailableError: the place cannot be read or written.
            RuntimeError: called again with other parts.
        """
        tag = self._run.take(parts)
        self._guest.place(self._run.measurement())
        return tag

    def attest(self, binding_raw: bytes, now_ms: int) -> Evidence:
        """Fresh evidence for one binding.

        Args:
            binding_raw: the binding's bytes.
            now_ms: unused; processors state their own time or none. Attesters are alike.

        Raises:
            RuntimeError: `measure` was not called.
            UnavailableError: no evidence, or evidence of something else.
        """
        del now_ms
        parts, measurement = self._run.known(), self._run.measurement()
        pieces = self._guest.pieces(binding_raw, measurement)
        return Evidence(self.kind, encode_container(pieces, parts))

    def activate(self, credential: object) -> dict[str, str]:
        """Refused: no kind of these links two keys of a TPM.

        Raises:
            UnavailableError: always.
        """
        del credential
        raise UnavailableError(
            f"activation: {self.kind} evidence links no TPM's keys, expected kind tpm2"
        )

    def trust_anchor(self) -> str:
        """What a policy lists; "vendor" where the rule for the kind pins roots by itself."""
        return "vendor" if self._anchor is None else self._anchor

    def close(self) -> None:
        """Close the guest."""
        self._guest.close()

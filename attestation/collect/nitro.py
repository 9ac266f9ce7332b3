"""A Nitro enclave (`aws-nitro-document`): the measurement in PCR 16, documents from the NSM.

    1 describe  PCR 16: unlocked and zero (a fresh enclave), or already this measurement's value
                (the launcher started again); anything else is somebody else's
    2 extend    once, only from zero
    3 lock      so that nothing can follow
    4 describe  again: locked, and exactly the value
    5 document  with the binding's report data as user data and its 32-byte report as nonce; it
                must repeat the former

A call that failed on the way may or may not have reached the module, so nothing is repeated
blindly: after a failure the register is described again and its state decides.
"""

from __future__ import annotations

from typing import Final

from attestation.binding import report32, report_data
from attestation.registers import NITRO_PCR, nitro_pcr_event, nitro_pcr_value
from wire.errors import ConfigError, UnavailableError

from .nsm import Nsm, NsmError

KIND: Final = "aws-nitro-document"
PCR_LEN: Final = 48
DOCUMENT_MAX: Final = 0x3000  # it came in one response
LOOKS: Final = 5  # before extending and before locking, after a failure of each, and at the end


class NitroGuest:
    """A Nitro enclave.

    Args:
        nsm: the module; closed with the enclave.
    """

    kind = KIND

    def __init__(self, nsm: Nsm | None = None) -> None:
        self._nsm = Nsm() if nsm is None else nsm

    def place(self, measurement: bytes) -> None:
        """Put the measurement into PCR 16 and lock it.

        Raises:
            ConfigError: the register holds something else: the enclave must be started again.
            UnavailableError: the module does not answer.
        """
        wanted = nitro_pcr_value(measurement)
        failure: UnavailableError | None = None
        for _ in range(LOOKS):
            # 1 and 4
            value, locked = self._describe()
            if value == wanted and locked:
                return
            if value not in (wanted, bytes(PCR_LEN)) or locked:
                raise ConfigError(
                    f"PCR {NITRO_PCR}: found {'a locked' if locked else 'another'} value, "
                    "expected zeros or this worker's measurement",
                    hint="A register only grows. Start the enclave again for another worker.",
                )
            try:
                if value == wanted:
                    # 3
                    self._nsm.ask("LockPCR", {"index": NITRO_PCR})
                else:
                    # 2
                    event = nitro_pcr_event(measurement)
                    self._nsm.ask("ExtendPCR", {"index": NITRO_PCR, "data": event})
            except UnavailableError as error:
                failure = error
        raise UnavailableError(
            f"PCR {NITRO_PCR}: could not be extended and locked, seen {LOOKS} times"
        ) from failure

    def pieces(self, binding_raw: bytes, measurement: bytes) -> dict[str, bytes]:
        """A fresh document for one binding.

        Raises:
            UnavailableError: the module does not answer.
        """
        del measurement  # locked: it cannot have changed
        # 5
        asked = report_data(binding_raw)
        fields = {"user_data": asked, "nonce": report32(binding_raw), "public_key": None}
        document = self._nsm.ask("Attestation", fields).get("document")
        if not isinstance(document, bytes) or not 0 < len(document) <= DOCUMENT_MAX:
            raise UnavailableError("NSM Attestation: found no document in the answer")
        if asked not in document:
            # A document that is late belongs to a call that was given up.
            raise UnavailableError("NSM Attestation: found a document of another binding")
        return {"document": document}

    def close(self) -> None:
        """Close the module."""
        self._nsm.close()

    def _describe(self) -> tuple[bytes, bool]:
        try:
            found = self._nsm.ask("DescribePCR", {"index": NITRO_PCR})
        except NsmError as error:
            if error.nsm_code == "InvalidIndex":
                raise UnavailableError(
                    f"PCR {NITRO_PCR}: found a module without it, expected 32 registers"
                ) from error
            raise
        value, locked = found.get("data"), found.get("lock")
        if not isinstance(value, bytes) or len(value) != PCR_LEN or not isinstance(locked, bool):
            raise UnavailableError(
                f"PCR {NITRO_PCR}: found no value of {PCR_LEN} bytes and lock in the answer"
            )
        return value, locked

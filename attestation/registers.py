"""Where a worker's measurement stands in each vendor's evidence, so that a verifier can replay it.

The launcher puts the measurement (32 bytes) into a register once, before the worker starts; each
value below is what a verifier recomputes and compares for equality. A register extended twice, or
with anything else, has another value.

    TDX    RTMR3     = SHA-384(0^48 ‖ SHA-384("anchorhold/1 rtmr\\0" ‖ measurement))
    SNP    HOST_DATA = SHA-256("anchorhold/1 host data\\0" ‖ measurement)
    Nitro  PCR16     = SHA-384(0^48 ‖ SHA-384("anchorhold/1 pcr\\0" ‖ measurement)), then locked
    TPM    PCR11     = SHA-256(0^32 ‖ measurement)

SNP has no run-time register: the host states HOST_DATA at launch, and the measured image refuses to
start a worker of another measurement. A host that lies only stops its own worker.

Spec: docs/spec/evidence.md §2.
"""

from __future__ import annotations

import hashlib
from typing import Final

NITRO_PCR: Final = 16  # 0 to 15 are the image's and locked by the hypervisor; 16 is the first free

_RTMR = b"anchorhold/1 rtmr\0"
_HOST_DATA = b"anchorhold/1 host data\0"
_NITRO = b"anchorhold/1 pcr\0"
_EMPTY48 = bytes(48)


def rtmr_event(measurement: bytes) -> bytes:
    """The 48 bytes a TDX launcher extends RTMR3 with."""
    return hashlib.sha384(_RTMR + measurement).digest()


def rtmr_value(measurement: bytes) -> bytes:
    """RTMR3 after that extension and no other, 48 bytes."""
    return hashlib.sha384(_EMPTY48 + rtmr_event(measurement)).digest()


def host_data_value(measurement: bytes) -> bytes:
    """SNP HOST_DATA, 32 bytes."""
    return hashlib.sha256(_HOST_DATA + measurement).digest()


def nitro_pcr_event(measurement: bytes) -> bytes:
    """The 48 bytes a Nitro launcher gives the NSM to extend PCR 16 with, before it locks it.

    The NSM hashes what it is given, of any length, as SHA-384(old ‖ data); it does not hash the
    data first. Sources: AWS on PCR 8 = SHA-384(0^48 ‖ fingerprint) (aws-nitro-enclaves-cli, issue
    446: "each extend operation does a hash between the previous state and the data") and QEMU's
    NSM (hw/virtio/virtio-nsm.c, `extend_pcr`). So the hash over the label is made here.
    """
    return hashlib.sha384(_NITRO + measurement).digest()


def nitro_pcr_value(measurement: bytes) -> bytes:
    """Nitro PCR 16 after that extension and no other, 48 bytes.

    That it stands in a document proves that it is locked: a document's `pcrs` is the "map of all
    locked PCRs at the moment the attestation document was generated" (aws-nitro-enclaves-nsm-api,
    docs/attestation_process.md), 0 to 15 are locked from the start, and a lock lasts until the
    enclave ends. An extension made but not locked gives a document without PCR 16.
    """
    return hashlib.sha384(_EMPTY48 + nitro_pcr_event(measurement)).digest()


def tpm_pcr_value(measurement: bytes) -> bytes:
    """A SHA-256 TPM register that was reset and then extended once, 32 bytes."""
    return hashlib.sha256(bytes(32) + measurement).digest()

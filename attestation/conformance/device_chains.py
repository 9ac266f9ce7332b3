"""The certificate chains of devices in a sample, and which of them is a report's own.

They stand wherever whoever wrote the sample put them: in files of their own, in PEM or its base64,
or as members of a file that holds the reports too. The one whose leaf's key signed a report is its
device's: no other could have. So the signature chooses, before anything else is examined. Where it
chooses none, a chain that is no other device's shows a forged report; else the chain is missing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from attestation.formats import pem
from attestation.formats.nvidia_chain import parse_chain
from attestation.formats.spdm import parse_report
from attestation.verify.spdm import Device, check_signature
from wire.errors import AttestationError, MalformedError

from .wrapped import contents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from attestation.formats.nvidia_chain import DeviceChain

CHAINS_MAX: Final = 48  # sixteen GPUs, the switches between them, and room for others' chains
OWN_MAX: Final = 4  # of one leaf: as the device gave it, and with or without its root
_FIT: Final = (False, None, True)  # whether the leaf is for the report's firmware, likeliest last
_PEM: Final = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class DeviceChains:
    """The chains in a sample's files.

    Attributes:
        parsed: PEM text to what it says, None where it says nothing of a device.
        all_here: whether these are all of them; a device's own may be among the others.
    """

    parsed: Mapping[bytes, DeviceChain | None]
    all_here: bool

    def of(self, report: bytes) -> list[bytes]:
        """The chains whose leaf signed this report, whole ones first; of very many, some."""
        said = parse_report(report)
        own = {
            text: chain
            for text, chain in self.parsed.items()
            if chain is not None and signed(Device(said, chain, None))
        }
        return sorted(own, key=lambda text: bool(own[text].fault))[:OWN_MAX]

    def likeliest(self, report: bytes, taken: AbstractSet[bytes]) -> bytes | None:
        """The chain that a report which none of them signed is examined with: a forged report's.

        None where there is none that can be its device's: one that another report's device has, or
        that is of no device, says nothing of this report.

        Args:
            report: the report.
            taken: the chains that are of other reports; so are all of the same leaf.
        """
        said = parse_report(report)
        keys = {chain.key_sha256 for text in taken if (chain := self.parsed[text]) is not None}
        free = {
            text: 0 if chain is None else 1 + _FIT.index(Device(said, chain, None).fwid_matches)
            for text, chain in self.parsed.items()
            # A CA's certificate names no firmware: the leaf below it is missing.
            if chain is None or (chain.fwids and chain.key_sha256 not in keys)
        }
        return max(free, key=lambda text: free[text], default=None)


def chains_in(files: Iterable[bytes]) -> DeviceChains:
    """The chains in the files, each once, however it is spelled."""
    found: dict[tuple[bytes, ...], bytes] = {}
    for data in dict.fromkeys(files):
        for part in contents(data):
            listed = certificates(part) if part.lstrip().startswith(_PEM) else ()
            if len(listed) > 1:
                found.setdefault(listed, part)
    texts = list(found.values())[:CHAINS_MAX]
    return DeviceChains({text: _parsed(text) for text in texts}, len(texts) == len(found))


def certificates(data: bytes) -> tuple[bytes, ...]:
    """The certificates in a file, DER each; none where it holds anything else."""
    with contextlib.suppress(MalformedError):
        return pem.certificates(data, "sample")
    return ()


def _parsed(text: bytes) -> DeviceChain | None:
    with contextlib.suppress(MalformedError):
        return parse_chain(text)
    return None


def signed(device: Device) -> bool:
    """Whether the key of its chain's leaf signed its report."""
    with contextlib.suppress(AttestationError):
        check_signature(device)
        return True
    return False

"""Evidence as received: a kind and bytes, nothing verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wire.errors import MalformedError
from wire.excerpt import json_kind
from wire.ids import b64u

from .members import Members

SOFTWARE: Final = "software"
TPM2: Final = "tpm2"
KINDS: Final = (SOFTWARE, TPM2)

# Sixteen GPUs (`binding.GPUS_MAX`): a report of 8,192 bytes and a chain of 5,120, as large as NVML
# has them, take 10,924 + 6,828 characters of base64 and 130 around them in the list, which is
# 286,112 bytes; base64url of those in the container 381,483, and the parts about 1,500. A CPU's
# report and certificates take 16 KiB.
EVIDENCE_MAX: Final = 393_216
EVIDENCE_ITEMS_MAX: Final = 4  # one item a kind, with room for kinds this version does not know
# Commas and opening brackets in one body. `tpm2` has most: eight members, 24 registers, four
# certificates and 32 parts, which is 69. All else in a body is long texts: of as many small items
# as fit, each stranger's would hold up every thread for a tenth of a second.
BODY_ITEMS_MAX: Final = 128
KIND_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Evidence:
    """Unverified evidence. Only `attestation.appraise.appraise` turns it into something trusted.

    Attributes:
        kind: the format's name, such as "software" or "tpm2"; unknown kinds are kept.
        body: the format's bytes, at most EVIDENCE_MAX.
    """

    kind: str
    body: bytes

    def to_json(self) -> dict[str, str]:
        """The form it travels in: {"kind", "body": base64url}."""
        return {"kind": self.kind, "body": b64u(self.body)}

    @classmethod
    def from_json(cls, obj: object) -> Evidence:
        """Inverse of `to_json`.

        Raises:
            MalformedError: members missing, unknown or of another type; body too large.
        """
        members = Members(obj, "evidence", required=("kind", "body"))
        return cls(members.text("kind", KIND_MAX), members.blob("body", EVIDENCE_MAX))


def evidence_list(items: object) -> tuple[Evidence, ...]:
    """The evidence items of a received JSON array.

    Raises:
        MalformedError: not an array of one to EVIDENCE_ITEMS_MAX evidence objects.
    """
    if not isinstance(items, list) or not 1 <= len(items) <= EVIDENCE_ITEMS_MAX:
        found = f"an array of {len(items)}" if isinstance(items, list) else json_kind(items)
        raise MalformedError(
            f"evidence: found {found}, expected an array of 1 to {EVIDENCE_ITEMS_MAX} items"
        )
    return tuple(Evidence.from_json(item) for item in items)

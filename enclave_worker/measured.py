"""What the launcher measured, as the worker is told it: the parts, and the system's libraries."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attestation.measurement import parts_of
from attestation.members import Members
from wire.errors import MalformedError
from wire.ids import is_sha256_tag

from .system_libraries import LIBRARIES_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Measured:
    """A statement to compare with; nothing in it is believed.

    Attributes:
        parts: part name to "sha256:" tag; combined, they are the worker's measurement.
        system: library name to "sha256:" tag; as a tree, they are the part `system`.
    """

    parts: Mapping[str, str]
    system: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The form on the control channel."""
        return {"parts": dict(self.parts), "system": dict(self.system)}

    @classmethod
    def from_json(cls, obj: object) -> Measured:
        """Inverse of `to_json`.

        Raises:
            MalformedError: members missing, unknown or of another type.
        """
        members = Members(obj, "measured", required=("parts", "system"))
        system = members.value("system")
        if not isinstance(system, dict) or not 1 <= len(system) <= LIBRARIES_MAX:
            raise members.fail("system", f"an object of 1 to {LIBRARIES_MAX} libraries")
        if not all(is_sha256_tag(tag) for tag in system.values()):
            raise MalformedError('measured.system: expected only "sha256:" tags')
        return cls(parts_of(members.value("parts")), MappingProxyType(dict(system)))

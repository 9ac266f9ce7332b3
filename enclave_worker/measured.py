"""What the launcher measured, as the worker is told it: parts, system libraries, and where."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from attestation.measurement import parts_of
from attestation.members import Members
from wire.errors import MalformedError
from wire.ids import is_sha256_tag

from .system_libraries import LIBRARIES_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACES_MAX: Final = 4096  # a staged root has a few hundred links


@dataclass(frozen=True, slots=True)
class Measured:
    """A statement to compare with; nothing in it is believed.

    Attributes:
        parts: part name to "sha256:" tag; combined, they are the worker's measurement.
        system: library name to "sha256:" tag; as a tree, they are the part `system`.
        places: each measured path with where it led (`mounts.place_of`) when it was measured.
    """

    parts: Mapping[str, str]
    system: Mapping[str, str]
    places: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The form on the control channel."""
        return {
            "parts": dict(self.parts),
            "system": dict(self.system),
            "places": dict(self.places),
        }

    @classmethod
    def from_json(cls, obj: object) -> Measured:
        """Inverse of `to_json`.

        Raises:
            MalformedError: members missing, unknown or of another type.
        """
        members = Members(obj, "measured", required=("parts", "system", "places"))
        system = members.value("system")
        if not isinstance(system, dict) or not 1 <= len(system) <= LIBRARIES_MAX:
            raise members.fail("system", f"an object of 1 to {LIBRARIES_MAX} libraries")
        if not all(is_sha256_tag(tag) for tag in system.values()):
            raise MalformedError('measured.system: expected only "sha256:" tags')
        places = members.value("places")
        if not isinstance(places, dict) or not 1 <= len(places) <= PLACES_MAX:
            raise members.fail("places", f"an object of 1 to {PLACES_MAX} paths")
        if not all(isinstance(place, str) for place in places.values()):
            raise MalformedError("measured.places: expected only texts")
        parts = parts_of(members.value("parts"))
        return cls(parts, MappingProxyType(dict(system)), MappingProxyType(dict(places)))

"""The parts one run was measured with: taken once, never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attestation.measurement import combine, digest_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping


class RunParts:
    """Holds the parts of one run. A register only grows, so a second set can never be right."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}
        self._measurement = ""

    def take(self, parts: Mapping[str, str]) -> str:
        """Keep `parts`; returns their measurement, a "sha256:" tag.

        Raises:
            MalformedError: see `measurement.combine`.
            RuntimeError: called again with other parts.
        """
        if self._parts and self._parts != dict(parts):
            raise RuntimeError("measure: already given other parts for this run")
        self._measurement = combine(parts)
        self._parts = dict(parts)
        return self._measurement

    def known(self) -> dict[str, str]:
        """The parts.

        Raises:
            RuntimeError: none were taken.
        """
        if not self._parts:
            raise RuntimeError("attest: measure the worker first")
        return self._parts

    def measurement(self) -> bytes:
        """The measurement's 32 bytes.

        Raises:
            RuntimeError: no parts were taken.
        """
        self.known()
        return digest_bytes(self._measurement)

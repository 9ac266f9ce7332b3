"""What the certificate library raises for bytes that are no certificate, list or response.

Much of it is raised late, when a name, extension or key is first asked for, and for each there was
an input that raised it: one list, so that the next one is added in one place.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

# InvalidVersion is no ValueError; a BIT STRING within a name gives a TypeError.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
)

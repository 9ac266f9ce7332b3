"""Every bound of the packages that read hostile bytes: stretched, or why no input stretches it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fuzz.bounds_binary import BINARY
from fuzz.bounds_json import JSON
from fuzz.bounds_verify import VERIFY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fuzz.bound import Bound

BOUNDS: Final[Mapping[str, Bound]] = MappingProxyType(
    {bound.name: bound for bound in (*JSON, *BINARY, *VERIFY)}
)

_VALUE: Final = "the greatest value of a number, no count and no length"
_OWN: Final = "a file of the operator's or our own, read in time that grows with it and no faster"
_STATE: Final = "of what we keep, which no input fills at once"
EXEMPT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "formats.corim.TIME_MAX": _VALUE,
        "formats.intel_statements.SVN_MAX": _VALUE,
        "formats.jose.TIME_MAX": _VALUE,
        "formats.nitro.TIME_MAX": _VALUE,
        "formats.rim.INDEX_MAX": _VALUE,
        "formats.spdm.OPAQUE_VERSION_MAX": _VALUE,
        "formats.spdm._SLOT_MAX": _VALUE,
        "formats.spdm._VALUE_TYPE_MAX": _VALUE,
        "verify.signing_key.RSA_EXPONENT_MAX": _VALUE,
        "collateral.signed_json.SEQUENCE_MAX": _VALUE,
        "collateral.amd._DER_INT_MAX": _VALUE,
        "collateral.bundle.BUNDLE_MAX": _OWN,
        "collateral.http_fetcher.CA_MAX": _OWN,
        "collateral.bundle.ENTRIES_MAX": _OWN,
        "collateral.entry.RECORD_MAX": _OWN,
        "conformance.index.INDEX_MAX": _OWN,
        "conformance.wrapped.FILE_MAX": _OWN,
        "conformance.wrapped.ITEMS_MAX": _OWN,
        "conformance.wrapped.MEMBERS_MAX": _OWN,
        "conformance.gpu_file.CERTIFICATES_MAX": _OWN,
        "conformance.gpu_file.FOUND_MAX": _OWN,
        "conformance.gpu_file.SHORT_MAX": _OWN,
        "conformance.gpu_file.UNREAD_MAX": _OWN,
        "conformance.device_chains.CHAINS_MAX": _OWN,
        "conformance.device_chains.OWN_MAX": _OWN,
        "collateral.decoded.BYTES_MAX": _STATE,
        "collateral.store.SIZE_MAX": _STATE,
        "collateral.folder.MARK_MAX": _STATE,
        "collateral.store.ANSWERS_MAX": _STATE,
        "collateral.unkept.BYTES_MAX": _STATE,
        "collateral.unkept.COUNT_MAX": _STATE,
        "collateral.surroundings.LABEL_MAX": "of a setting of the operator's, no file",
        "collateral.http_fetcher.REDIRECTS_MAX": "of a conversation; its tests have a server",
    }
)

"""A file of the GPUs' side, read whole: what is passed over could be a device that fails.

Each part of it is evidence that a GPU's kind reads, vouches for some, or is too short to be any.
Short are the parts together, not each alone: a report may be spelled as numbers, or in lines.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from attestation.formats import pem
from attestation.formats.detached_eat import parse_bundle
from attestation.formats.gpu_list import parse_list
from attestation.formats.spdm import parse_report
from attestation.verify.ocsp import load_response
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError

from .document import check
from .pairing import has_outline, outlined
from .wrapped import as_file, opened, parts, spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

SINGLE, LIST, EAT = "nvidia-gpu-spdm", "nvidia-gpu-spdm-list", "nvidia-nras-eat"
FOUND_MAX: Final = 128  # reports and bundles of one sample: a rack has 72 GPUs
# Bytes of what nothing reads. The shortest report of a real device has 2168, in base64 2892.
SHORT_MAX: Final = 1024  # in one member
UNREAD_MAX: Final = 2048  # in one file
CERTIFICATES_MAX: Final = 128  # of one text beside evidence: five a device
_VOUCHING_MIN: Final = 64  # no certificate is as short
_BUNDLE: Final = "detached_eat"
_COPIES: Final = "claims"  # of the devices' tokens, as NVIDIA's command line adds them


def evidence_in(data: bytes, room: int) -> list[tuple[str, bytes]]:
    """The evidence in a file, with the kind that reads it; SPDM reports as a GPU's.

    Args:
        data: the file.
        room: how many reports and bundles may be there.

    Raises:
        MalformedError: there is none, too many, or something besides that may be evidence.
    """
    found, unread = _evidence(data), 0
    for value in () if found else parts(data):
        inside = _evidence(as_file(value)) if isinstance(value, str | dict | list) else []
        unread += 0 if inside else _unread(value)
        found += inside
    if unread > UNREAD_MAX:
        raise _unknown()
    if not found:
        raise MalformedError("GPU evidence: found nothing that a GPU's kind reads")
    if count(found) > room:
        raise MalformedError(f"GPU evidence: found more than {FOUND_MAX} reports in a sample")
    return found


def count(found: Iterable[tuple[str, bytes]]) -> int:
    """How many reports and bundles these are."""
    return sum(map(_count, found))


def _count(one: tuple[str, bytes]) -> int:
    kind, part = one
    if kind == EAT:  # several bundles may stand in one wrapper
        return len(parse_bundle(part).answers)
    return len(parse_list(part)) if kind == LIST else 1


def _evidence(data: bytes) -> list[tuple[str, bytes]]:
    """The data, or what it says in base64 or hex, as evidence of a kind; one or none."""
    return [(kind, part) for part in spelled(data) for kind in _kinds(part)][:1]


def _kinds(part: bytes) -> Iterator[str]:
    for kind, parse in ((SINGLE, parse_report), (LIST, parse_list), (EAT, _check_bundle)):
        with contextlib.suppress(MalformedError):
            parse(part)
            yield kind


def _check_bundle(part: bytes) -> None:
    """A bundle is one as a whole if what stands beside it is short, or a copy of its claims."""
    tokens = [token.claims for token in parse_bundle(part).devices.values()]
    doc = opened(part)
    check(doc, "detached EAT")
    if isinstance(doc, dict):
        beside = {key: value for key, value in doc.items() if key != _BUNDLE}
        if _COPIES in beside:
            beside[_COPIES] = _not_said(beside[_COPIES], tokens)
        if sum(map(_unread, (*beside, *beside.values()))) > UNREAD_MAX:
            raise _unknown()


def _not_said(claims: object, tokens: Sequence[Mapping[str, Any]]) -> object:
    """Stated claims without those that a device's token states too."""
    if not isinstance(claims, list) or not all(isinstance(entry, dict) for entry in claims):
        return claims
    return [
        {
            name: value
            for name, value in entry.items()
            if not any(name in token and token[name] == value for token in tokens)
        }
        for entry in claims
    ]


def _unread(member: object) -> int:
    """How many bytes a member has that nothing reads; what vouches has none.

    Raises:
        MalformedError: something in it may be evidence.
    """
    rest, size = [member], 0
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            size += _unread_text(value)
        elif not isinstance(value, dict | list):
            size += len(str(value))
        elif has_outline(value):
            raise _unknown()
        else:
            rest += (*value, *value.values()) if isinstance(value, dict) else value
        if size > SHORT_MAX:
            raise _unknown()
    return size


def _unread_text(text: str) -> int:
    data = text.encode()
    texts = spelled(data)
    if len(data) <= SHORT_MAX and any(map(outlined, texts)):
        raise _unknown()
    return 0 if len(data) > _VOUCHING_MIN and any(map(_vouches, texts)) else len(data)


def _unknown() -> MalformedError:
    return MalformedError("GPU evidence: a part of it is none, and nothing known beside it")


def _vouches(data: bytes) -> bool:
    """Whether these are certificates, a manifest or a responder's answer."""
    with contextlib.suppress(MalformedError, AttestationError):
        for der in pem.certificates(data, "sample", CERTIFICATES_MAX):
            load_certificate(der)
        return True
    with contextlib.suppress(MalformedError, AttestationError):
        load_response(data)
        return True
    return _is_manifest(data)


def _is_manifest(data: bytes) -> bool:
    try:
        # As in the rules: only who has the library for them reads manifests.
        from attestation.formats.rim import parse_document
    except ImportError:
        return False
    with contextlib.suppress(MalformedError, AttestationError):
        parse_document(data)
        return True
    return False

"""Reference manifests: NVIDIA's signed golden measurements, and the comparison with a report.

Steps, in order:
 1. the manifest is XML of bounded size without a document type,   rim_malformed
    with one signature, over the whole of it
 2. its signer's chain ends in a pinned manifest root              untrusted_root, chain_invalid,
                                                                   certificate_not_valid_at_time
 3. the signer signed it: ECDSA P-384, SHA-384                     rim_signature_invalid
 4. what was signed parses as measurements of one build            rim_malformed
 5. there is one manifest for the driver and one for the firmware  rim_missing, rim_conflict
    of each device, for its chip, and they do not overlap
 6. each measurement that they name has one of the values named    rim_measurement_mismatch
 7. no certificate of the signers' chains is revoked; where the    revoked, revocation_not_checked,
    rule demands it, each has a response                           certificate_on_hold

Only what the signature covered is read (step 4). A manifest that is only expired is refused like
any other: NVIDIA signs manifests anew. Its newer manifests (CoRIM) are not read here.

This module needs `lxml` and `signxml` (the extra `rim`) and is imported by rules that demand it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from cryptography.hazmat.primitives.asymmetric import ec
from signxml.algorithms import (  # type: ignore[import-not-found, unused-ignore]
    DigestAlgorithm,
    SignatureMethod,
)
from signxml.verifier import (  # type: ignore[import-not-found, unused-ignore]
    SignatureConfiguration,
    XMLVerifier,
)

from attestation.formats.rim import Manifest, SignedDocument, parse_document, parse_manifest
from attestation.formats.spdm import NVDEC0_STATUS
from wire.errors import AttestationError, MalformedError, refused

from .ocsp import check_paths
from .spdm import GPUS
from .x509 import load_certificate, verify_chain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.x509 import Certificate
    from signxml.verifier import (  # type: ignore[import-not-found, unused-ignore]
        VerifyResult,
    )

    from attestation.anchors import Anchors

    from .fleet import Fleet
    from .ocsp import Status
    from .spdm import Device

_refused: Final = partial(refused, about="reference manifest")
# A video decoder that is fused off leaves this block undefined; the report says which it is.
NVDEC0_BLOCK: Final = 36
_NVDEC0_ON: Final = b"\xaa"
_NVDEC0_OFF: Final = b"\x55"


@dataclass(frozen=True, slots=True)
class ReferenceMeasurements:
    """A verified manifest.

    Attributes:
        manifest: what it says.
        path: its signer's certificates, the root last.
        not_after: Unix second at which the first of them ends.
    """

    manifest: Manifest
    path: tuple[Certificate, ...]
    not_after: int


def verify_manifest(raw: bytes, anchors: Anchors, now: int) -> ReferenceMeasurements:
    """Steps 1 to 4 for one manifest; pure.

    Args:
        raw: the XML.
        anchors: the manifest roots that count.
        now: Unix seconds.

    Raises:
        AttestationError: see the steps.
    """
    try:
        document = parse_document(raw)  # step 1
        signer, path, not_after = _chain(document, anchors, now)  # step 2
        signed = _signature(document, signer, now)  # step 3
        return ReferenceMeasurements(parse_manifest(signed), path, not_after)  # step 4
    except MalformedError as cause:
        raise AttestationError(cause.message, reasons=("rim_malformed",)) from cause


def signer_paths(manifests: Sequence[bytes]) -> list[list[Certificate]]:
    """The certificates that manifests present, the signer's first; unverified.

    What does not parse presents none: it is refused when it is verified.
    """
    paths = []
    for raw in manifests:
        with contextlib.suppress(MalformedError, AttestationError):
            paths.append([load_certificate(der) for der in parse_document(raw).certificates])
    return paths


def check_fleet(fleet: Fleet, now: int, *, revocation: bool, accept_hold: bool) -> tuple[str, int]:
    """All steps for the devices of one piece of evidence.

    Args:
        fleet: devices, manifests and OCSP responses.
        now: Unix seconds.
        revocation: whether every certificate of the manifests' signers needs an OCSP response.
        accept_hold: whether certificates on hold are accepted.

    Returns:
        What was found, and the Unix second at which the first of the signers' certificates and the
        responses about them ends.

    Raises:
        AttestationError: see the steps.
    """
    by_build: dict[tuple[str, str], ReferenceMeasurements] = {}
    for raw in fleet.manifests:
        found = verify_manifest(raw, fleet.manifest_anchors, now)
        build = (found.manifest.product, found.manifest.version.casefold())
        if build in by_build:
            raise _refused("rim_conflict", "found two manifests for one build, expected one")
        by_build[build] = found
    details = {_device(device, by_build) for device in fleet.devices}
    paths = [found.path for found in by_build.values()]
    status = check_paths(fleet.responses, paths, now, fleet.ocsp_nonce)
    _check_status(status, revocation=revocation, accept_hold=accept_hold)
    ends = [found.not_after for found in by_build.values()]
    return "; ".join(sorted(details)), min(status.not_after, *ends)


def compare(device: Device, manifests: Sequence[Manifest]) -> str:
    """Steps 5 (no overlap) and 6 for one device.

    Raises:
        AttestationError: `rim_conflict`, `rim_measurement_mismatch`.
    """
    expected: dict[int, tuple[bytes, ...]] = {}
    for manifest in manifests:
        if expected.keys() & manifest.values.keys():
            raise _refused("rim_conflict", "two manifests name one measurement, expected one")
        expected.update(manifest.values)
    passed_over = ""
    if NVDEC0_BLOCK in expected and _decoder_is_off(device):
        del expected[NVDEC0_BLOCK]
        passed_over = f", block {NVDEC0_BLOCK} passed over: NVDEC0 is off"
    found = device.report.measurements
    wrong = [index for index, values in sorted(expected.items()) if found.get(index) not in values]
    if wrong or not expected:
        raise _refused(
            "rim_measurement_mismatch",
            f"found {len(wrong)} of {len(expected)} measurements unlike NVIDIA's"
            + (f", first block {wrong[0]}" if wrong else ""),
        )
    return f"{len(expected)} of {len(found)} measurements are NVIDIA's{passed_over}"


def _chain(
    document: SignedDocument, anchors: Anchors, now: int
) -> tuple[Certificate, tuple[Certificate, ...], int]:  # step 2
    ders = document.certificates
    roots = anchors.among(ders)
    signer, not_after = verify_chain(ders[0], ders[1:], roots, now)
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _refused("rim_signature_invalid", "the signer's key is another, expected P-384")
    path = [load_certificate(der) for der in ders if der not in roots]
    root = next(one for one in map(load_certificate, roots) if one.subject == path[-1].issuer)
    return signer, (*path, root), not_after


def _signature(document: SignedDocument, signer: Certificate, now: int) -> bytes:  # step 3
    config = SignatureConfiguration(
        require_x509=True,
        location="./",
        expect_references=1,
        signature_methods=frozenset({SignatureMethod.ECDSA_SHA384}),
        digest_algorithms=frozenset({DigestAlgorithm.SHA384}),
        verification_time=datetime.fromtimestamp(now, UTC),
    )
    try:
        # One reference gives one result; of anything else this fails, too.
        result = cast(
            "VerifyResult",
            XMLVerifier().verify(document.tree, x509_cert=signer, expect_config=config),
        )
        return bytes(result.signed_data)
    except Exception as cause:  # whatever the library makes of hostile XML is a refusal
        raise _refused("rim_signature_invalid", "does not verify under its signer") from cause


def _device(
    device: Device, by_build: Mapping[tuple[str, str], ReferenceMeasurements]
) -> str:  # step 5
    if device.family is None:
        raise _refused("rim_missing", "found a device of an unknown product")
    if not device.product:
        raise _refused(
            "rim_missing", f"{device.family.chip}: the report names its chip in no way known to us"
        )
    versions = [device.report.vbios_version]
    if device.family.architecture in GPUS:
        versions.append(device.report.driver_version)
    manifests = []
    for version in versions:
        found = by_build.get((device.product, version.casefold()))
        if found is None:
            raise _refused("rim_missing", f"found none for {device.product} {version}")
        manifests.append(found.manifest)
    return compare(device, manifests)


def _check_status(status: Status, *, revocation: bool, accept_hold: bool) -> None:  # step 7
    if revocation and not status.complete:
        raise _refused(
            "revocation_not_checked",
            f"OCSP: found {status.covered} of {status.expected} responses for the signers",
        )
    if status.held and not accept_hold:
        raise _refused("certificate_on_hold", f"found {status.held} certificates on hold")


def _decoder_is_off(device: Device) -> bool:
    status = device.report.opaque.get(NVDEC0_STATUS)
    if status not in (_NVDEC0_ON, _NVDEC0_OFF):
        raise _refused("rim_measurement_mismatch", "NVDEC0: found an unknown status")
    return status == _NVDEC0_OFF

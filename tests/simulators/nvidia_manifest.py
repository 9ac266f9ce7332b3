"""Reference manifests signed like NVIDIA's: SWID tags in XML with one enveloped signature.

Made through `simulators.nvidia.Nvidia.manifest`; needs `lxml` and `signxml`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lxml import etree
from signxml import XMLSigner, methods

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .nvidia_device import Authority, Device

ISO = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"


def golden(device: Device, what: str, facts: Mapping[str, Any]) -> str:
    """The unsigned manifest of a device's driver or firmware, made from its measurements."""
    half = len(device.measurements) // 2
    indices = range(half) if what == "vbios" else range(half, len(device.measurements))
    values: dict[int, list[str]] = {
        index: [device.measurements[index + 1].hex()] for index in indices
    }
    values |= facts.get("values", {})
    default = device.vbios if what == "vbios" else device.driver
    return _manifest_text(
        facts.get("product", device.chip),
        facts.get("version", default),
        values,
        facts.get("inactive", ()),
    )


def signed(
    text: str,
    signer: Authority,
    chain: Sequence[Authority],
    edit: Callable[[str], str],
    changes: Mapping[str, Any],
) -> bytes:
    """The manifest signed, with these parameters of the signature changed."""
    parameters: dict[str, Any] = {
        "method": methods.enveloped,
        "signature_algorithm": "ecdsa-sha384",
        "digest_algorithm": "sha384",
        "c14n_algorithm": "http://www.w3.org/2006/12/xml-c14n11",
        **changes,
    }
    document = XMLSigner(**parameters).sign(
        etree.fromstring(edit(text).encode()),
        key=signer.key,
        cert=[one.pem.decode() for one in chain],
    )
    return bytes(etree.tostring(document))


def _manifest_text(
    product: str, version: str, values: Mapping[int, Sequence[str]], inactive: Sequence[int]
) -> str:
    resources = "".join(
        f'<ns0:Resource type="Measurement" index="{index}" '
        f'active="{index not in inactive}" alternatives="{len(hexes)}" '
        + "".join(f'ns2:Hash{number}="{text}" ' for number, text in enumerate(hexes))
        + f'name="Measurement_{index}" size="48"/>'
        for index, hexes in values.items()
    )
    return (
        f'<SoftwareIdentity xmlns="{ISO}" xmlns:ns0="{ISO}" xmlns:ns2="{SHA384}" name="{product}">'
        f'<ns0:Entity name="NVIDIA Corporation" role="softwareCreator tagCreator"/>'
        f'<ns0:Meta colloquialVersion="{version}" product="{product}" edition="GPU"/>'
        f"<ns0:Payload>{resources}</ns0:Payload></SoftwareIdentity>"
    )

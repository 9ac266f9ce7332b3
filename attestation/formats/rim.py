"""NVIDIA's reference manifest (RIM) of one driver or firmware build: a SWID tag in XML. Parse only.

    <SoftwareIdentity name="GH100" ...>
      <Meta colloquialVersion="96.00.74.00.1A" product="GH100" .../>
      <Payload>
        <Resource type="Measurement" index="0" active="True" alternatives="2"
                  ns2:Hash0="<96 hex>" ns2:Hash1="<96 hex>" name="..." size="48"/>
      </Payload>
      <ds:Signature>…</ds:Signature>
    </SoftwareIdentity>

`index` counts from 0, a report's blocks from 1. An inactive resource says nothing. What is parsed
for its values is what the signature covered, as the verifier returns it, never the file.

Spec: TCG RIM Information Model 1.01, ISO/IEC 19770-2; as NVIDIA publishes them.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from lxml import etree  # type: ignore[import-untyped, import-not-found, unused-ignore]

from wire.errors import MalformedError

from .pem import CERTIFICATE_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

RIM_MAX: Final = 1024 * 1024  # NVIDIA's are 20 KiB
DEPTH_MAX: Final = 16
ELEMENTS_MAX: Final = 4096
INDEX_MAX: Final = 254  # a report's blocks have one-byte indices from 1
ALTERNATIVES_MAX: Final = 64
CERTIFICATES_MAX: Final = 6
DIGEST_LEN: Final = 48

_SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_HASH: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_C14N: Final = (
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
    "http://www.w3.org/2006/12/xml-c14n11",
)
_ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_ATTRIBUTES: Final = frozenset({"type", "index", "active", "alternatives", "name", "size"})
_ACTIVE: Final = {"True": True, "False": False}
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,5}")
_HEX = re.compile(r"[0-9a-fA-F]{96}")
_NAME = re.compile(r"[\x21-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A manifest whose signature is of the one form accepted; unverified.

    Attributes:
        tree: the document.
        certificates: DER, the signer's first, as its key information has them.
    """

    tree: Any
    certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one manifest says of one build.

    Attributes:
        product: the chip, such as "GH100".
        version: the driver's or firmware's version it is for.
        values: report block index (from 1) to the digests that are right for it.
    """

    product: str
    version: str
    values: Mapping[int, tuple[bytes, ...]]


def parse_document(raw: bytes) -> SignedDocument:
    """The document and the shape of its signature.

    Raises:
        MalformedError: too large, not XML, with a DTD or entities, or signed in another form than
            one enveloped signature over the whole document.
    """
    root = parse_xml(raw)
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise _malformed("root: expected SoftwareIdentity")
    # A second signature, or one elsewhere, could cover what is verified while another part is read.
    signatures = [node for node in root.iter() if _local(node) == "Signature"]
    if len(signatures) != 1 or signatures[0] not in list(root):
        raise _malformed(f"found {len(signatures)} signatures, expected one directly in the root")
    signature = signatures[0]
    info = _only(signature, "SignedInfo")
    _algorithm(_only(info, "CanonicalizationMethod"), _C14N)
    reference = _only(info, "Reference")
    if reference.get("URI") != "":
        raise _malformed('reference: expected URI "", the whole document')
    transforms = [node.get("Algorithm") for node in _only(reference, "Transforms")]
    if len(transforms) != 2 or transforms[0] != _ENVELOPED or transforms[1] not in _C14N:
        raise _malformed("reference: expected the enveloped-signature and C14N transforms only")
    if any(len(node) for node in _only(reference, "Transforms")):
        raise _malformed("reference: expected transforms without parameters")
    key = _only(signature, "KeyInfo")
    data = _only(key, "X509Data")
    if len(key) != 1 or not 1 <= len(data) <= CERTIFICATES_MAX:
        raise _malformed(f"key information: expected 1 to {CERTIFICATES_MAX} certificates only")
    return SignedDocument(root, tuple(_certificate(node) for node in data))


def parse_manifest(signed: bytes) -> Manifest:
    """The reference values in what a signature covered.

    Args:
        signed: canonical XML, as the signature's verifier returned it.

    Raises:
        MalformedError: not a manifest, or with a resource that this version does not understand.
    """
    root = parse_xml(signed)
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise _malformed("root: expected SoftwareIdentity")
    meta = _only(root, "Meta", _SWID)
    values: dict[int, tuple[bytes, ...]] = {}
    seen: set[int] = set()
    for node in _only(root, "Payload", _SWID):
        index, active, digests = _resource(node)
        if index in seen:
            raise _malformed(f"resource {index}: found it twice, expected it once")
        seen.add(index)
        if active:
            values[index + 1] = digests
    if not values:  # an empty reference set would match everything
        raise _malformed("found no active measurement, expected one or more")
    return Manifest(
        product=_attribute(meta, "product"),
        version=_attribute(meta, "colloquialVersion"),
        values=MappingProxyType(values),
    )


def parse_xml(raw: bytes) -> Any:
    """The root element of bounded XML without a document type.

    Raises:
        MalformedError: anything else.
    """
    if len(raw) > RIM_MAX:
        raise _malformed(f"found {len(raw)} bytes, expected at most {RIM_MAX}")
    try:
        text = raw.decode("utf-8")  # a parser would also guess UTF-16, past the check below
    except UnicodeDecodeError:
        raise _malformed("expected UTF-8") from None
    # Entities expand without bound and read files: none is declared without a document type.
    if "<!DOCTYPE" in text or "<!ENTITY" in text or "\0" in text:
        raise _malformed("found a document type or entity, expected neither")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, encoding="utf-8"
    )
    try:
        root = etree.fromstring(raw, parser)
    except (etree.XMLSyntaxError, ValueError) as cause:
        raise _malformed("does not parse as XML") from cause
    if root.getroottree().docinfo.doctype:
        raise _malformed("found a document type, expected none")
    for count, node in enumerate(root.iter()):
        if count == ELEMENTS_MAX or sum(1 for _ in node.iterancestors()) > DEPTH_MAX:
            raise _malformed(f"found over {ELEMENTS_MAX} elements or {DEPTH_MAX} levels of them")
    return root


def _resource(node: Any) -> tuple[int, bool, tuple[bytes, ...]]:
    # Another type, or an attribute not known here, may be a demand that would go unmet.
    if node.tag != f"{_SWID}Resource" or node.get("type") != "Measurement":
        raise _malformed("payload: found another resource, expected measurements only")
    index = _number(node, "index", 0, INDEX_MAX)
    active = _ACTIVE.get(node.get("active", ""))
    if active is None:
        raise _malformed(f'resource {index}: expected active "True" or "False"')
    count = _number(node, "alternatives", 1, ALTERNATIVES_MAX)
    _number(node, "size", DIGEST_LEN, DIGEST_LEN)
    names = [f"{_HASH}{number}" for number in range(count)]
    if set(node.attrib) != _ATTRIBUTES | set(names):
        raise _malformed(f"resource {index}: expected {count} digests and the known attributes")
    digests = [node.get(name) for name in names]
    if any(_HEX.fullmatch(digest) is None for digest in digests):
        raise _malformed(f"resource {index}: expected digests of {DIGEST_LEN} bytes in hex")
    return index, active, tuple(bytes.fromhex(digest) for digest in digests)


def _number(node: Any, key: str, low: int, high: int) -> int:
    text = node.get(key, "")
    if _DECIMAL.fullmatch(text) is None or not low <= int(text) <= high:
        raise _malformed(f"resource.{key}: expected a number from {low} to {high}")
    return int(text)


def _attribute(node: Any, key: str) -> str:
    text = node.get(key, "")
    if _NAME.fullmatch(text) is None:
        raise _malformed(f"meta.{key}: expected 1 to 64 printable characters")
    return str(text)


def _only(parent: Any, name: str, namespace: str = _DS) -> Any:
    found = [node for node in parent if node.tag == f"{namespace}{name}"]
    if len(found) != 1:
        raise _malformed(f"{name}: found {len(found)}, expected one")
    return found[0]


def _algorithm(node: Any, accepted: tuple[str, ...]) -> None:
    if node.get("Algorithm") not in accepted or len(node):
        raise _malformed("signature: found another canonicalisation, expected C14N 1.0 or 1.1")


def _certificate(node: Any) -> bytes:
    text = "".join((node.text or "").split())
    if len(text) > CERTIFICATE_MAX * 4 // 3 + 4:
        raise _malformed(
            f"key information: expected certificates of at most {CERTIFICATE_MAX} bytes"
        )
    if node.tag != f"{_DS}X509Certificate" or len(node):
        raise _malformed("key information: expected certificates only")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("key information: expected certificates in base64") from None


def _local(node: Any) -> str:
    return str(node.tag).rpartition("}")[2]


def _malformed(sentence: str) -> MalformedError:
    return MalformedError(f"reference manifest: {sentence}")

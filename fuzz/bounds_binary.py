"""Bounds of what is read as DER, PEM, CBOR, XML, TPM structures, quotes, reports and logs."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import cbor2
from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier
from simulators import corim as publishers
from simulators.event_log import EventLog, sha1_event, u16, u32
from simulators.hardware_tee import amd_of, aws_of
from simulators.intel import Intel
from simulators.intel_parts import octets
from simulators.nitro import NitroEnclave
from simulators.nvidia_device import tlv
from simulators.tee import NOW
from simulators.tpm import AK_ATTRIBUTES, public_area
from simulators.vtpm import NONCE, ec_key

from attestation.formats import (
    amd_certificate,
    certificate_table,
    comid_fields,
    corim,
    dcap_quote,
    nitro,
    nvidia_chain,
    pck,
    pem,
    rim,
    spdm,
    tcg_event_log,
    tpm_attestation,
    tpm_structures,
)
from attestation.replay import replay_all
from attestation.verify.x509 import load_certificate
from fuzz.bound import Bound, der, elements, padded
from fuzz.parsers import protobuf_field
from fuzz.seeds import boot_log, nvidia_vendor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_GUID: Final = b"\x11" * 15


@cache
def _intel() -> Intel:
    return Intel()


def _certificates(raw: bytes) -> object:
    return pem.certificates(raw, "bound")


def _one_certificate(count: int) -> Iterable[bytes]:
    yield pem.encode([b"\x30".ljust(count, b"\1")])
    yield b"\x30".ljust(count, b"\1")


def _many_certificates(count: int) -> Iterable[bytes]:
    yield pem.encode([b"\x30\0"] * count)
    yield pem.encode([bytes(pem.CERTIFICATE_MAX)] * count)


@cache
def _gpu() -> Any:
    return nvidia_vendor().gpu()


def _report(count: int) -> Iterable[bytes]:
    yield _gpu().report(NONCE).ljust(count, b"\0")
    yield bytes((0x11, 0xE0, 1, 0xFF)).ljust(37, b"\0") + b"\xff" * (count - 37)


def _opaque(count: int) -> Iterable[bytes]:
    fields = b"".join(
        u16(kind) + u16(8 if kind == 6 else 0) + (b"1" * 8 if kind == 6 else b"")
        for kind in range(1, count + 1)
    )
    block = bytes((1, 1)) + u16(51) + bytes((1,)) + u16(48) + bytes(48)
    request = bytes((0x11, 0xE0, 1, 0xFF)) + bytes(33)
    head = bytes((0x11, 0x60, 0, 0, 1)) + len(block).to_bytes(3, "little")
    yield request + head + block + bytes(32) + u16(len(fields)) + fields + bytes(96)


def _leaf(oid: str, value: bytes) -> bytes:
    vendor, gpu = nvidia_vendor(), _gpu()
    extension = x509.UnrecognizedExtension(ObjectIdentifier(oid), value)
    leaf = vendor.issue("GH100 A01 GSP FMC LF", gpu.brom, ca=False, serial="7A",
                        extensions=[extension])  # fmt: skip
    return bytes(leaf.pem + b"".join(one.pem for one in gpu.certificates()[1:]))


_FWID_VALUE: Final = tlv(0x30, bytes.fromhex("0609608648016503040202") + tlv(4, bytes(48)))


def _firmware(count: int) -> Iterable[bytes]:
    yield _leaf(nvidia_chain.FWID_TCB_INFO, der(0x30, der(0xA6, _FWID_VALUE * count)))


def _extension(count: int) -> Iterable[bytes]:
    inner = der(0xA6, _FWID_VALUE)
    for fill in (b"\x84\0", b"\x85\1\0"):
        room = count - len(der(0x30, inner + bytes(count // 2))) + count // 2
        filler = (fill * (room // len(fill) + 1))[: room - room % len(fill)]
        left = room - len(filler)
        filler += der(0x84, bytes(left - 2)) if left >= 2 else b""
        yield _leaf(nvidia_chain.FWID_TCB_INFO, der(0x30, inner + filler))
    padding = count - len(der(0x30, inner + der(0x84, bytes(count - 200)))) + count - 200
    yield _leaf(nvidia_chain.FWID_TCB_INFO, der(0x30, inner + der(0x84, bytes(padding))))


def _filled(count: int, raw: bytes) -> bytes:
    return raw.ljust(count, b"\0")


def _quote(**facts: Any) -> bytes:
    intel = Intel()
    for name, value in facts.items():
        if name == "cert_data":
            intel.edits["cert_data"] = partial(_filled, value)
        else:
            setattr(intel, name, value)
    return intel.quote()


def _csp(count: int) -> Iterable[bytes]:
    amd = amd_of(NOW)
    extensions = amd.extensions((10, 0, 23, 84), csp="x") | {"5": der(0x16, b"x" * count)}
    yield amd.provider(extensions=extensions).cert


def _xml(body: str) -> bytes:
    return f'<SoftwareIdentity xmlns="http://x">{body}</SoftwareIdentity>'.encode()


def _elements(count: int) -> Iterable[bytes]:
    yield _xml("<a/>" * (count - 1))
    yield _xml('<a b="c"/>' * (count - 1))


def _levels(count: int) -> Iterable[bytes]:
    # The root has no ancestor.
    yield _xml("<a>" * count + "</a>" * count)
    yield _xml(("<a>" * count + "</a>" * count) * 20)


@cache
def _manifest() -> str:
    signed = nvidia_vendor().manifest(nvidia_vendor().gpu(blocks=8), "driver")
    return bytes(signed).decode()


def _alternatives(count: int) -> Iterable[bytes]:
    vendor = nvidia_vendor()
    values = {40: [f"{n:096x}" for n in range(count)]}
    yield vendor.manifest(vendor.gpu(blocks=8), "driver", values=values)


def _signers(count: int) -> Iterable[bytes]:
    text = _manifest()
    start, end = text.index("<ds:X509Certificate>"), text.index("</ds:X509Data>")
    one = text[start : text.index("</ds:X509Certificate>") + len("</ds:X509Certificate>")]
    yield (text[:start] + one * count + text[end:]).encode()


def _log(raw: bytes) -> None:
    replay_all(tcg_event_log.parse_event_log(raw))


def _events(count: int) -> Iterable[bytes]:
    for banks in (("sha256",), ("sha1", "sha256", "sha384", "sha512")):
        log = EventLog(banks)
        for _ in range(count):
            log.measure(4, b"x")
        yield log.encode()
    yield b"".join(sha1_event(4, 0xD, bytes(20), b"") for _ in range(count))


def _banks(count: int) -> Iterable[bytes]:
    known = [(number, size) for number, (_, size) in tcg_event_log.ALGORITHMS.items()]
    picked = [known[n % len(known)] for n in range(count)]
    data = b"Spec ID Event03\0" + u32(0) + bytes([0, 2, 0, 2]) + u32(count)
    data += b"".join(u16(one) + u16(size) for one, size in picked) + b"\0"
    event = u32(4) + u32(0xD) + u32(count)
    event += b"".join(u16(one) + bytes(size) for one, size in picked) + u32(0)
    yield sha1_event(0, 3, bytes(20), data) + event


def _enclave(**members: Any) -> bytes:
    enclave = NitroEnclave(aws_of(NOW))
    enclave.members = members
    return enclave.document()


def _payload(count: int) -> Iterable[bytes]:
    enclave = NitroEnclave(aws_of(NOW))
    for payload in (bytes(count), b"\x81" * count, b"\xa1\0" * (count // 2), b"\xbf".ljust(count)):
        yield enclave.envelope(cbor2.dumps({1: -35}), payload, bytes(96))


@cache
def _document() -> bytes:
    return _enclave()


def _table_entries(count: int) -> Iterable[bytes]:
    listed = b"".join(_GUID + bytes([n % 256]) + bytes(8) for n in range(count))
    yield listed + bytes(24)


def _quoted(extra: bytes = NONCE, selections: bytes | None = None, count: int = 1) -> bytes:
    one = u16(0x0B)[::-1] + b"\3\1\0\0"
    return (
        bytes.fromhex("ff5443478018") + b"\0\0" + len(extra).to_bytes(2, "big") + extra
        + bytes(16) + b"\1" + bytes(8) + count.to_bytes(4, "big")
        + (one * count if selections is None else selections) + b"\0\x20" + bytes(32)
    )  # fmt: skip


def _selections(count: int) -> Iterable[bytes]:
    ids = (0x04, 0x0B, 0x0C, 0x0D)
    listed = b"".join(ids[n % 4].to_bytes(2, "big") + b"\3\1\0\0" for n in range(count))
    yield _quoted(selections=listed, count=count)


def _wide(count: int) -> Iterable[bytes]:
    yield _quoted(selections=b"\0\x0b" + bytes([count]) + b"\1" * count)


def _area(count: int) -> Iterable[bytes]:
    area = public_area(ec_key("bound"), AK_ATTRIBUTES)[2:]
    yield from (area.ljust(count, b"\0"), bytes(count))


def _message(count: int) -> Iterable[bytes]:
    head = len(protobuf_field(3, bytes(count))) - count
    yield protobuf_field(3, bytes(count - head))
    yield protobuf_field(2, protobuf_field(1, bytes(count - 2 * head)))


def _fields(count: int) -> Iterable[bytes]:
    yield protobuf_field(4, b"") * count


def _quotes(count: int) -> Iterable[bytes]:
    registers = b"\x08\x0b" + protobuf_field(2, protobuf_field(2, bytes(32)))
    one = protobuf_field(1, b"q") + protobuf_field(2, b"s") + protobuf_field(3, registers)
    yield protobuf_field(2, one) * count


def _issuers(count: int) -> Iterable[bytes]:
    yield protobuf_field(7, b"0") * count


def _pck_chain(raw: bytes) -> object:
    return pck.parse_chain(raw, "bound")


def _links(count: int) -> Iterable[bytes]:
    root = _intel().root_der()
    ca = _intel().platform_ca.der(_intel().now)
    yield pem.encode([ca] * (count - 1) + [root])
    yield ca * count


def _pairs(count: int) -> Iterable[bytes]:
    intel = Intel()
    honest = elements(intel.sgx_extension())
    filler = b"".join(
        der(0x30, der(6, b"\x2a\3" + bytes([1 + n // 127, n % 127])) + octets(b""))
        for n in range(count - len(honest))
    )
    intel.pck.sgx = der(0x30, b"".join(honest) + filler)
    yield intel.pck.der(intel.now)


def _corim(members: dict[Any, Any], **facts: Any) -> publishers.CorimPublisher:
    return publishers.CorimPublisher(members=members, **facts)


def _corim_size(count: int) -> Iterable[bytes]:
    spare = count - len(_corim({0: "x" * (count // 2)}).unsigned()) + count // 2
    yield _corim({0: "x" * spare}).unsigned()
    yield b"\x9f" * count
    yield b"\x82\0" * (count // 2)
    yield b"\xd9\x01\xf5" * (count // 3)
    yield b"\x9a" + count.to_bytes(4, "big") + bytes(count - 5)


def _corim_items(count: int) -> Iterable[bytes]:
    yield _corim({9: [0] * (count - 40)}).unsigned()
    yield _corim({9: dict.fromkeys(range(count // 2), 0)}).unsigned()
    yield _corim({9: [[]] * count}).unsigned()


def _corim_depth(count: int) -> Iterable[bytes]:
    yield _corim({9: _nested(count - 2)}).unsigned()
    yield b"\x81" * (count - 1) + b"\0"
    yield b"\xd9\x01\xf5" * (count - 1) + b"\0"


def _nested(levels: int) -> Any:
    made: Any = 0
    for _ in range(levels):
        made = [made]
    return made


def _tags(count: int) -> Iterable[bytes]:
    module = list(cbor2.loads(_corim({}).unsigned()).value[1])
    yield _corim({1: module + [publishers.tagged(505, b"")] * (count - 1)}).unsigned()
    yield _corim({1: module * count}).unsigned()


def _x5chain(count: int) -> Iterable[bytes]:
    yield _corim({}, headers={33: [b"0"] * count}).signed()


def _measurements(count: int) -> Iterable[bytes]:
    publisher = _corim({})
    publisher.reference(publishers.environment("a"), *[publishers.element(n) for n in range(count)])
    yield publisher.comid()
    publisher = _corim({})
    for _ in range(count):
        publisher.reference(publishers.environment("a"), publishers.element(1))
    yield publisher.comid()


def _cut(honest: Callable[[], bytes]) -> Callable[[int], Iterable[bytes]]:
    return padded(honest, b"\0", lambda n: b"\xff" * n)


BINARY: Final = (
    Bound(pem, "CERTIFICATE_MAX", _certificates, _one_certificate),
    Bound(pem, "CERTIFICATES_MAX", _certificates, _many_certificates),
    Bound(pem, "TEXT_MAX", _certificates, padded(
        lambda: pem.encode([b"\x30\0"]), b"\n",
        lambda n: (b"-----BEGIN CERTIFICATE-----" + b"A" * n)[:n],
        lambda n: b"-----BEGIN CERTIFICATE-----" + b"\n" * (n - 52)
        + b"-----END CERTIFICATE-----")),
    Bound(spdm, "REPORT_MAX", spdm.parse_report, _report),
    Bound(spdm, "FIELDS_MAX", spdm.parse_report, _opaque),
    Bound(nvidia_chain, "CHAIN_MAX", nvidia_chain.parse_chain, _cut(lambda: _gpu().chain())),
    Bound(nvidia_chain, "FWIDS_MAX", nvidia_chain.parse_chain, _firmware),
    Bound(nvidia_chain, "EXTENSION_MAX", nvidia_chain.parse_chain, _extension),
    Bound(dcap_quote, "QUOTE_MAX", dcap_quote.parse_quote, _cut(_quote)),
    Bound(dcap_quote, "CERT_DATA_MAX", dcap_quote.parse_quote, lambda n: [_quote(cert_data=n)]),
    Bound(dcap_quote, "QE_AUTH_MAX", dcap_quote.parse_quote, lambda n: [_quote(qe_auth=bytes(n))]),
    Bound(amd_certificate, "CSP_MAX",
          lambda raw: amd_certificate.parse_endorsement(load_certificate(raw)), _csp),
    Bound(rim, "RIM_MAX", rim.parse_xml, padded(
        lambda: _xml("<a/>"), b"\n",
        lambda n: _xml("<a/>" * (n // 4))[:n],
        lambda n: _xml("x" * (n - 60)),
        lambda n: _xml("<a " + " ".join(f'b{k}=""' for k in range(n // 12)) + "/>"),
        lambda n: _xml("&#65;" * (n // 5 - 20)))),
    Bound(rim, "ELEMENTS_MAX", rim.parse_xml, _elements),
    Bound(rim, "DEPTH_MAX", rim.parse_xml, _levels),
    Bound(rim, "ALTERNATIVES_MAX", rim.parse_manifest, _alternatives),
    Bound(rim, "CERTIFICATES_MAX", rim.parse_document, _signers),
    Bound(tcg_event_log, "LOG_MAX", _log, _cut(lambda: boot_log().encode())),
    Bound(tcg_event_log, "EVENTS_MAX", _log, _events),
    Bound(tcg_event_log, "BANKS_MAX", _log, _banks),
    Bound(nitro, "DOCUMENT_MAX", nitro.parse_document, _cut(_document), exact=False),
    Bound(nitro, "PAYLOAD_MAX", nitro.parse_document, _payload, exact=False),
    Bound(nitro, "CERT_MAX", nitro.parse_document, lambda n: [_enclave(certificate=bytes(n)),
                                                              _enclave(cabundle=[bytes(n)])]),
    Bound(nitro, "BUNDLE_MAX", nitro.parse_document, lambda n: [_enclave(cabundle=[b"0"] * n)]),
    Bound(nitro, "DATA_MAX", nitro.parse_document, lambda n: [
        _enclave(**{name: bytes(n)}) for name in ("user_data", "nonce", "public_key")]),
    Bound(nitro, "TEXT_MAX", nitro.parse_document, lambda n: [_enclave(module_id="i" * n)]),
    Bound(certificate_table, "TABLE_MAX", certificate_table.parse_table,
          padded(lambda: bytes(24), b"\1")),
    Bound(certificate_table, "ENTRIES_MAX", certificate_table.parse_table, _table_entries),
    Bound(tpm_structures, "SELECTIONS_MAX", tpm_structures.parse_quote, _selections),
    Bound(tpm_structures, "PCR_BYTES_MAX", tpm_structures.parse_quote, _wide),
    Bound(tpm_structures, "BLOB_MAX", tpm_structures.parse_quote,
          lambda n: [_quoted(extra=bytes(n))]),
    Bound(tpm_structures, "TPM2B_MAX", tpm_structures.parse_public_area, _area, exact=False),
    Bound(tpm_structures, "DER_PAIR_MAX", tpm_structures.parse_any_signature, exact=False,
          make=lambda n: [der(0x30, der(2, b"\1" * ((n - 8) // 2)) * 2), b"\x30".ljust(n, b"\2")]),
    Bound(tpm_attestation, "MESSAGE_MAX", tpm_attestation.parse_attestation, _message),
    Bound(tpm_attestation, "FIELDS_MAX", tpm_attestation.parse_attestation, _fields),
    Bound(tpm_attestation, "QUOTES_MAX", tpm_attestation.parse_attestation, _quotes),
    Bound(tpm_attestation, "INTERMEDIATES_MAX", tpm_attestation.parse_attestation, _issuers),
    Bound(pck, "CHAIN_MAX", _pck_chain, _links),
    Bound(pck, "CHAIN_PEM_MAX", _pck_chain, _cut(lambda: _intel().pck_chain())),
    Bound(pck, "_PAIRS_MAX", pck.parse_pck, _pairs),
    Bound(corim, "SIZE_MAX", corim.parse_manifest, _corim_size),
    Bound(corim, "ITEMS_MAX", corim.parse_manifest, _corim_items, exact=False),
    Bound(corim, "DEPTH_MAX", corim.parse_manifest, _corim_depth),
    Bound(corim, "TAGS_MAX", corim.parse_manifest, _tags),
    Bound(corim, "CERTS_MAX", corim.parse_manifest, _x5chain),
    Bound(comid_fields, "LIST_MAX", corim.parse_manifest, _measurements),
)  # fmt: skip

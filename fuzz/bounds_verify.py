"""Bounds of what is verified: chains, revocation lists, OCSP responses, nodes of many devices."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as built
from simulators import intel
from simulators.gpu_tee import nvidia_of
from simulators.nvidia_device import listing
from simulators.tee import NOW
from simulators.vtpm import NONCE

from attestation.examined import Expected, Question
from attestation.schemes import SCHEMES
from attestation.verify import crl, device, ocsp, tpm_key
from attestation.verify import x509 as chains
from fuzz.bound import Bound, content, der, elements, padded
from fuzz.seeds import nvidia_vendor
from fuzz.targets import LIST_LIMIT_MS
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography import x509

_ONE: Final = (AttestationError,)
_ECDSA: Final = der(0x30, der(6, bytes.fromhex("2a8648ce3d040302")))
_TIME: Final = der(0x17, b"250601000000Z") + der(0x17, b"350601000000Z")


@cache
def _line() -> tuple[bytes, bytes, int]:
    """A certificate, the root that issued it, and a time at which both hold."""
    vendor = intel.Intel()
    return vendor.tcb_signer.der(vendor.now), vendor.root_der(), vendor.now


def _chain(count: int) -> Iterable[Any]:
    _, root, _ = _line()
    yield [root] * count  # what is pinned is no link


def _verify(chain: list[bytes]) -> None:
    leaf, root, now = _line()
    chains.verify_chain(leaf, chain, [root], now)


def _list(issuer: bytes, entries: bytes) -> bytes:
    signed = der(2, b"\1") + _ECDSA + issuer + _TIME
    signed += der(0x30, entries) if entries else b""
    return der(0x30, der(0x30, signed) + _ECDSA + der(3, b"\0" + bytes(64)))


_NAME: Final = der(0x30, der(0x31, der(0x30, der(6, b"\x55\4\3") + der(0x0C, b"issuer"))))
_ENTRY: Final = der(0x30, der(2, b"\1") + der(0x17, b"250601000000Z"))
# With a reason: more to read of each.
_LONG: Final = der(0x30, der(2, b"\1") + der(0x17, b"250601000000Z") + der(
    0x30, der(0x30, der(6, b"\x55\x1d\x15") + der(4, der(0x0A, b"\1")))))  # fmt: skip


def _lists(count: int) -> Iterable[bytes]:
    for entry in (_ENTRY, _LONG):
        many = entry * ((count - 600) // len(entry))
        yield _fitted(count, partial(_behind, many))
    yield from padded(lambda: _list(_NAME, _ENTRY), b"\0")(count)


def _behind(many: bytes, size: int) -> bytes:
    return _list(_NAME, many + _padding_entry(size))


def _fitted(count: int, make: Callable[[int], bytes]) -> bytes:
    """What `make` gives of the size that makes it so long."""
    size = 200
    for _ in range(4):
        size += count - len(make(size))
    return make(size)


def _padding_entry(size: int) -> bytes:
    value = der(0x30, der(0x30, der(6, b"\x2a\3\4\5") + der(4, bytes(size))))
    return der(0x30, der(2, b"\1") + der(0x17, b"250601000000Z") + value)


def _names(count: int) -> Iterable[bytes]:
    one = der(0x31, der(0x30, der(6, b"\x55\4\3") + der(0x0C, b"n")))
    for many in (b"", one * ((count - 300) // len(one))):
        yield _list(der(0x30, _fitted(count, partial(_named, many))), _ENTRY)


def _named(many: bytes, size: int) -> bytes:
    return many + _set(size)


def _set(size: int) -> bytes:
    """A part of a name with so many characters."""
    return der(0x31, der(0x30, der(6, b"\x55\4\3") + der(0x0C, b"n" * size)))


def _loaded(raw: bytes) -> None:
    for entry in crl.load_crl(raw):
        _ = entry.serial_number


@cache
def _answer() -> bytes:
    vendor = nvidia_vendor()
    gpu = vendor.gpu()
    return bytes(vendor.ocsp(gpu.brom, vendor.icas[gpu.chip]))


def _restated(count: int) -> Iterable[bytes]:
    """A response with its one statement so many times; nobody signed that."""
    status, wrapped = elements(_answer())
    kind, data = elements(elements(wrapped)[0])
    basic = elements(elements(der(0x30, content(data)))[0])
    signed = elements(basic[0])
    at = next(n for n, part in enumerate(signed) if part[0] == 0x30)
    signed[at] = der(0x30, elements(signed[at])[0] * count)
    basic[0] = der(0x30, b"".join(signed))
    body = der(0x30, kind + der(4, der(0x30, b"".join(basic))))
    yield der(0x30, status + der(0xA0, body))


def _certified(count: int) -> Iterable[bytes]:
    vendor = nvidia_vendor()
    gpu = vendor.gpu()
    issuer = vendor.icas[gpu.chip]
    builder = _builder(gpu.brom.certificate, issuer.certificate)
    more = builder.certificates([issuer.certificate] * count)
    yield more.sign(issuer.key, hashes.SHA384()).public_bytes(Encoding.DER)


def _sized(count: int) -> Iterable[bytes]:
    """A response that the name of its responder fills."""
    status, wrapped = elements(_answer())
    kind, data = elements(elements(wrapped)[0])
    basic = elements(elements(der(0x30, content(data)))[0])
    signed = elements(basic[0])
    at = next(n for n, part in enumerate(signed) if part[0] in (0xA1, 0xA2))

    def filled(size: int) -> bytes:
        signed[at] = der(0xA1, der(0x30, _set(size)))
        basic[0] = der(0x30, b"".join(signed))
        body = der(0x30, kind + der(4, der(0x30, b"".join(basic))))
        return der(0x30, status + der(0xA0, body))

    yield _fitted(count, filled)
    yield from padded(_answer, b"\0")(count)


def _builder(certificate: x509.Certificate, issuer: x509.Certificate) -> Any:
    one = ocsp.load_response(_answer()).singles[0]
    return (
        built.OCSPResponseBuilder()
        .add_response(
            certificate, issuer, hashes.SHA384(), built.OCSPCertStatus.GOOD,
            one.this_update_utc, one.next_update_utc, None, None,
        )
        .responder_id(built.OCSPResponderEncoding.HASH, issuer)
    )  # fmt: skip


def _answers(count: int) -> Iterable[Any]:
    vendor = nvidia_vendor()
    gpu = vendor.gpu()
    issuer = vendor.icas[gpu.chip]
    ders = [vendor.ocsp(gpu.brom, issuer, start=-60 - n) for n in range(min(count, 40))]
    yield (gpu.brom.certificate, issuer.certificate), ders


def _check_answers(made: Any) -> None:
    path, ders = made
    ocsp.check_paths([ocsp.load_response(one) for one in ders], [path], nvidia_vendor().now)


def _node(count: int, **roles: bytes) -> Any:
    vendor = nvidia_of(NOW)
    evidence = {"evidence_list": listing([vendor.gpu() for _ in range(min(count, 40))], NONCE)}
    return Question(evidence, vendor.anchors, vendor.now, roles, Expected(nonce=NONCE))


def _numbered(role: str, count: int, data: bytes) -> dict[str, bytes]:
    return {role if n == 0 else f"{role}_{n}": data for n in range(count)}


def _manifests(count: int) -> Iterable[Any]:
    vendor = nvidia_of(NOW)
    manifest = vendor.manifest(vendor.gpu(), "driver")
    yield _node(1, **_numbered("rim", count, manifest))


def _responses(count: int) -> Iterable[Any]:
    yield _node(1, **_numbered("ocsp", count, _answer()))


def _examine(question: Question) -> None:
    examined = SCHEMES["nvidia-gpu-spdm-list"].examine(question)
    if not examined.authentic:
        raise AttestationError("refused", reasons=(examined.reasons[0].code,))


VERIFY: Final = (
    Bound(chains, "DEPTH_MAX", _verify, _chain, errors=_ONE),
    Bound(crl, "CRL_MAX", _loaded, _lists, errors=_ONE),
    Bound(crl, "PART_MAX", _loaded, _names, errors=_ONE),
    Bound(ocsp, "RESPONSE_MAX", ocsp.load_response, _sized, errors=_ONE),
    Bound(ocsp, "SINGLES_MAX", ocsp.load_response, _restated, errors=_ONE),
    Bound(ocsp, "CERTIFICATES_MAX", ocsp.load_response, _certified, errors=_ONE),
    Bound(ocsp, "ANSWERS_MAX", _check_answers, _answers, errors=_ONE),
    Bound(ocsp, "RESPONSES_MAX", _examine, _responses, exact=False, errors=_ONE,
          limit_ms=LIST_LIMIT_MS),
    Bound(device, "DEVICES_MAX", _examine, lambda n: [_node(n)], errors=_ONE,
          limit_ms=LIST_LIMIT_MS),
    Bound(device, "MANIFESTS_MAX", _examine, _manifests, exact=False, errors=_ONE,
          limit_ms=LIST_LIMIT_MS),
    Bound(tpm_key, "SPKI_MAX", tpm_key.load_spki,
          padded(lambda: bytes.fromhex("30820122300d06092a864886f70d01010105000382010f00"), b"\0"),
          exact=False, errors=_ONE),
)  # fmt: skip

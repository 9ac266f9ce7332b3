"""The parsers of our own documents: policies, bindings, collateral, indexes, recordings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.bundles import bundled
from simulators.tee import SoftwareTee
from simulators.tpm import TpmTee
from simulators.vendor_collateral import AmdVendor, IntelVendor, OcspVendor, key_set, rim_answer

from attestation import collateral_key as keys
from attestation.anchors import Anchors
from attestation.binding import parse_binding
from attestation.carried import collateral_json, parse_collateral
from attestation.collateral.bundle import parse_bundle, write_bundle
from attestation.collateral.entry import Checked, Piece, decode_entry, encode_entry, make_entry
from attestation.collateral.services import Services, parse_services
from attestation.collateral.vendors import Vendors
from attestation.conformance.index import parse_index
from attestation.evidence import evidence_list
from attestation.formats import container, software, tpm
from attestation.policy import parse_policy
from attestation.posture import parse_posture, parse_record
from attestation.schemes import SCHEMES
from attestation.signed_policy import load_policy, sign_policy
from client.recorded import parse_recorded
from fuzz.seeds import NONCE, Seed, questions, samples_folder
from fuzz.target import Target
from wire.canonical import encode, parse_strict
from wire.errors import (
    AttestationError,
    ConfigError,
    MalformedError,
    PolicyError,
    ReceiptError,
)
from wire.ids import sha256_tag
from wire.verifier_key import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_NOW: Final = 1_790_000_000
_ONE = (MalformedError,)
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
_FMSPC: Final = bytes.fromhex("00806f050000")
_WORDS: Final = (
    b"kind", b"accept", b"min_tcb", b"amd-sev-snp-report", b"intel-tdx-quote", b"tpm2", b"any",
    b"roots", b"measurements", b"sha256:", b"gpu", b"nonce", b"parts", b"deny", b"beacon",
)  # fmt: skip


def _one(
    name: str,
    seeds: Callable[[], Sequence[bytes]],
    read: Callable[[bytes], object],
    errors: tuple[type[Exception], ...] = _ONE,
) -> Target:
    def run(roles: Mapping[str, bytes], context: Any) -> bool:
        del context
        read(roles[""])
        return True

    return Target(name, lambda: [Seed({"": raw}) for raw in seeds()], run, errors, _WORDS)


def _policies() -> list[bytes]:
    tee = SoftwareTee()
    rules = [
        tee.rule,
        TpmTee().rule,
        {
            "kind": "amd-sev-snp-report", "measurements": [tee.measurement()],
            "products": ["Genoa"], "min_tcb": {"Genoa": {"snp": 20}},
            "image": {"measurement_in": ["11" * 48]},
        },
        {
            "kind": "intel-tdx-quote", "measurements": [tee.measurement()],
            "tcb": {"min_eval_number": 18},
            "image": {
                "any_of": [dict.fromkeys(("mr_td", "rt_mr0", "rt_mr1", "rt_mr2"), "11" * 48)]
            },
        },
        {
            "kind": "aws-nitro-document", "measurements": [tee.measurement()],
            "image": {"any_of": [{"pcr0": "11" * 48}]},
        },
    ]  # fmt: skip
    made = {
        **tee.demands,
        "deny": {"chip_ids": ["00" * 64], "kids": []},
        "directory": {"keys": [{"kid": "a", "alg": "ed25519", "pk": "A" * 43}]},
        "log": {"origin": "log.example", "vkeys": [VerifierKey("log.example", bytes(32)).vkey]},
        "freshness": {"beacon_max_age_s": 60},
    }
    each = [json.dumps({**made, "accept": [rule]}).encode() for rule in rules]
    return [*each, json.dumps(tee.demands).encode()]


def _signed() -> list[bytes]:
    return [sign_policy(json.dumps(SoftwareTee().demands).encode(), "tenant", _KEY)]


def _load_signed(raw: bytes) -> None:
    load_policy(raw, [_KEY.public_key().public_bytes_raw()])


def _resigned(raw: bytes) -> None:
    """What a signature does not stop: the same policy key signs nonsense."""
    parse_policy(raw)
    load_policy(sign_policy(raw, "tenant", _KEY), [_KEY.public_key().public_bytes_raw()])


def _carried() -> list[bytes]:
    held = {kind: questions(kind)[-1].collateral for kind in ("amd-sev-snp-report", "corim")}
    return [json.dumps(collateral_json(held)).encode()]


def _parse_carried(raw: bytes) -> None:
    parse_collateral(parse_strict(raw, max_bytes=4 * 1024 * 1024))


def _entries() -> list[Any]:
    key = keys.tcb_info("tdx", _FMSPC)
    other = keys.pck_crl("platform")
    return [
        make_entry(key, Piece(b"{}", "chain"), Checked(_NOW + 60, 3), _NOW),
        make_entry(other, Piece(bytes(64)), Checked(), _NOW),
    ]


def _sealed(raw: bytes) -> bytes:
    """The document with the digest that its content has now: past the first check."""
    try:
        document = json.loads(raw)
        document.pop("digest")
        return encode(document | {"digest": sha256_tag(encode(document))})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MalformedError):
        return raw


def _entry(raw: bytes) -> None:
    decode_entry(_sealed(raw), keys.tcb_info("tdx", _FMSPC), _NOW)


def _bundle(raw: bytes) -> None:
    parse_bundle(_sealed(raw), _NOW)


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda raw: read(raw.decode("utf-8", "replace"))


def _services(raw: bytes) -> None:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return
    parse_services(document)


def _index() -> list[bytes]:
    vector = {
        "id": "a", "kind": "amd-sev-snp-report", "files": {"report": "a.bin"},
        "sha256": {"a.bin": "00" * 32}, "verify_at": "2026-01-01T00:00:00Z",
        "inputs": {"expected_nonce_hex": "00"},
        "expected": {"authentic": True, "strict": "reject", "reasons": ["revoked"], "claims": {}},
    }  # fmt: skip
    made = {
        "schema": "attestation-vectors/1",
        "strict_policy": {"all": ["debug disabled"]},
        "roots": {"amd": {"sha256_der": "00" * 32}},
        "vectors": [vector, {**vector, "id": "b", "verify_at": None}],
    }
    folder = samples_folder()
    whole = [] if folder is None else [json.loads((folder / "index.json").read_bytes())]
    parts = [{**index, "vectors": index["vectors"][:4]} for index in whole]
    return [json.dumps(index).encode() for index in (made, *parts)]


def _recordings() -> list[bytes]:
    return [bundled()]


def _postures() -> list[bytes]:
    return [SoftwareTee().posture()]


def _posture(raw: bytes) -> None:
    parse_posture(raw, SoftwareTee().sig.public_key().public_bytes_raw())


def _software() -> list[bytes]:
    tee = SoftwareTee()
    return [tee.evidence(tee.binding()).body]


def _tpm() -> list[bytes]:
    tee = TpmTee()
    return [tee.evidence(tee.binding()).body]


def _containers() -> list[bytes]:
    evidence = questions("amd-sev-snp-report")[-1].evidence
    return [container.encode_container(evidence, {"model": sha256_tag(b"weights")})]


def _container(raw: bytes) -> None:
    required, optional = SCHEMES["amd-sev-snp-report"].evidence
    container.parse_container(raw, required, optional)


def _items() -> list[bytes]:
    tee = SoftwareTee()
    return [json.dumps([tee.evidence(tee.binding()).to_json()] * 2).encode()]


def _pieces() -> list[Seed]:
    """Vendors' answers as they are stored, each with its key and what vouches for it."""
    intel, amd, ocsp = IntelVendor(_NOW), AmdVendor(_NOW), OcspVendor(_NOW)
    anchors = Anchors(intel.anchors.pins | amd.anchors.pins, simulated=True)
    vendors = Vendors(Services(), bytes, anchors)
    signer = "".join(map(_pem, (intel.signer, intel.root)))
    ca = "".join(map(_pem, (intel.cas["platform"], intel.root)))
    chip, levels = bytes(range(64)), (10, 0, 23, 84)
    chain = Piece(amd.chain())
    answer = ocsp.answer(_question(ocsp))
    rows = (
        (keys.tcb_info("tdx", _FMSPC), Piece(intel.tcb("tdx", _FMSPC.hex()), signer), None),
        (keys.qe_identity("tdx"), Piece(intel.qe("tdx"), signer), None),
        (keys.pck_crl("platform"), Piece(intel.pck_crl("platform"), ca), None),
        (keys.root_crl(), Piece(intel.root_crl()), Piece(b"", ca)),
        (keys.vcek("Genoa", chip, levels), Piece(amd.vcek(chip, levels)), chain),
        (keys.amd("chain", "vcek", "Genoa"), chain, None),
        (keys.amd("crl", "vcek", "Genoa"), Piece(amd.crl()), chain),
        (keys.ocsp(*ocsp.cert_id()), Piece(answer), None),
        (keys.jwks("nvidia-nras"), Piece(key_set("a", "b")), None),
        (keys.rim("driver"), Piece(rim_answer("driver", b"<a/>")), None),
    )
    return [
        Seed({"body": piece.body, "chain": piece.chain.encode()}, (vendors, key, above))
        for key, piece, above in rows
    ]


def _piece(roles: Mapping[str, bytes], context: Any) -> bool:
    vendors, key, above = context
    piece = Piece(roles.get("body", b""), roles.get("chain", b"").decode("utf-8", "replace"))
    vendors.admit(key, piece, fetched_at=_NOW, now=_NOW, chain=above, offline=True)
    return True


def _pem(certificate: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return str(certificate.public_bytes(Encoding.PEM).decode())


def _question(vendor: OcspVendor) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import ocsp

    builder = ocsp.OCSPRequestBuilder().add_certificate(
        vendor.device, vendor.issuer, hashes.SHA384()
    )
    builder = builder.add_extension(x509.OCSPNonce(NONCE), critical=False)
    return builder.build().public_bytes(Encoding.DER)


DOCUMENTS: Final = (
    _one("policy", _policies, parse_policy, (PolicyError,)),
    _one("policy signed", _signed, _load_signed, (PolicyError,)),
    _one("policy resigned", _policies, _resigned, (PolicyError,)),
    _one("binding", lambda: [SoftwareTee().binding()], parse_binding),
    _one("posture", _postures, _posture, (MalformedError, AttestationError)),
    _one("posture record", lambda: [SoftwareTee().record()], parse_record),
    _one("software body", _software, software.parse_body),
    _one("tpm body", _tpm, tpm.parse_body),
    _one("container", _containers, _container),
    _one("evidence items", _items,
         lambda raw: evidence_list(parse_strict(raw, max_bytes=4 * 1024 * 1024))),
    _one("carried collateral", _carried, _parse_carried),
    _one("collateral bundle", lambda: [write_bundle(_entries(), _NOW)], _bundle),
    _one("collateral entry", lambda: [encode_entry(entry) for entry in _entries()], _entry),
    _one("collateral key", lambda: [str(entry.key).encode() for entry in _entries()],
         _text(keys.parse_key)),
    Target("collateral piece", _pieces, _piece, (MalformedError, AttestationError)),
    _one("services", lambda: [json.dumps({"pccs": "https://pccs.example:8081/x",
                                          "amd_kds": "http://127.0.0.1:1", "ca_file": "a.pem",
                                          "jwks": {"a-b": "https://a.example/k"}}).encode()],
         _services, (ConfigError,)),
    _one("conformance index", _index, parse_index),
    _one("recorded", _recordings, parse_recorded, (MalformedError, ReceiptError)),
)  # fmt: skip

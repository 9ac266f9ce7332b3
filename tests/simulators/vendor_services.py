"""The vendors' collateral services on loopback: PCS and PCCS, KDS, RIM, OCSP and key sets.

An honest, programmable server: `answers` holds what each path gives, `faults` what goes wrong on
it. What it serves is signed by `simulators.vendor_collateral` or by any other vendor. Use as a
context manager, over HTTP or, with `tls`, over HTTPS:

    with VendorServices() as served:
        served.intel(IntelVendor(now), "00806f050000")
        HttpFetcher(served.services()).fetch(...)
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.collateral.services import Services

from .vendor_collateral import AmdVendor, IntelVendor, OcspVendor, name, pem, rim_answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from attestation.collateral.fetcher import Request, Response

PCS = "certification/v4"
ROOT_CRL = "/IntelSGXRootCA.der"
PCCS_ROOT_CRL = "/sgx/certification/v4/rootcacrl"
OCSP = "/ocsp"
JWKS = "/keys"
ISSUER = "nvidia-nras"
PIECE = 65_536

Kind = Literal[
    "slow",
    "huge",
    "status",
    "truncated",
    "redirect",
    "wrong",
    "drip",
    "headers",
    "reset",
    "refusal",
]


@dataclass(frozen=True)
class Answer:
    """What a path gives: bytes, or a function of the request's body."""

    body: bytes | Callable[[bytes], bytes]
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What goes wrong, and how often.

    Attributes:
        kind: slow (nothing comes), drip (a byte of the body at a time), headers (a header that
            never ends, likewise), huge (no end), status (that number), refusal (that number, and a
            body that drips),
            truncated (half the announced bytes), redirect (to `target`), wrong (other bytes),
            unmarked (the whole, without saying how long it is), reset (the connection ends).
        times: how many requests it spoils; -1 for all.
    """

    kind: Kind
    times: int = -1
    status: int = 500
    target: str = ""
    body: bytes = b"<html>maintenance</html>"
    headers: dict[str, str] = field(default_factory=dict)


class VendorServices:
    """A running server of them all.

    Attributes:
        answers: path and query to answer.
        faults: the same, to what goes wrong there; "" means everywhere.
        asked: every request: method, path and query, body. headers: theirs, lower-case names.
        url: where it listens.
    """

    def __init__(self, tls: ServerTls | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.faults: dict[str, Fault] = {}
        self.asked: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self._tls = tls
        self._stop = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.context().wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def services(self, **changes: Any) -> Services:
        """An operator's configuration that names this server for everything."""
        found: dict[str, Any] = {
            "intel_pcs": self.url, "intel_root_crl": self.url + ROOT_CRL, "amd_kds": self.url,
            "nvidia_rim": self.url, "nvidia_ocsp": self.url + OCSP,
            "jwks": {ISSUER: self.url + JWKS},
        }  # fmt: skip
        return Services(**found | changes)

    def intel(self, vendor: IntelVendor, fmspc: str, *, pccs: bool = False) -> None:
        """Serve everything about one platform family; as a PCCS, CRLs come in hex."""
        signer = vendor.header(vendor.signer)
        for tee in ("sgx", "tdx"):
            for policy in ("standard", "early"):
                self.answers[f"/{tee}/{PCS}/tcb?fmspc={fmspc}&update={policy}"] = Answer(
                    vendor.tcb(tee, fmspc), {"TCB-Info-Issuer-Chain": signer}
                )
                self.answers[f"/{tee}/{PCS}/qe/identity?update={policy}"] = Answer(
                    vendor.qe(tee), {"SGX-Enclave-Identity-Issuer-Chain": signer}
                )
        for ca, found in vendor.cas.items():
            crl = vendor.pck_crl(ca)
            self.answers[f"/sgx/{PCS}/pckcrl?ca={ca}&encoding=der"] = Answer(
                crl.hex().encode() if pccs else crl,
                {"SGX-PCK-CRL-Issuer-Chain": vendor.header(found)},
            )
        root = vendor.root_crl()
        self.answers[PCCS_ROOT_CRL if pccs else ROOT_CRL] = Answer(
            root.hex().encode() if pccs else root
        )

    def amd(self, vendor: AmdVendor) -> None:
        """Serve a product's chain and CRL."""
        self.answers[f"/vcek/v1/{vendor.product}/cert_chain"] = Answer(vendor.chain())
        self.answers[f"/vcek/v1/{vendor.product}/crl"] = Answer(vendor.crl())

    def vcek(self, vendor: AmdVendor, hwid: bytes, tcb: tuple[int, ...]) -> str:
        """Serve one chip's certificate; returns the path."""
        names = ("fmcSPL", "blSPL", "teeSPL", "snpSPL", "ucodeSPL")[-len(tcb) :]
        query = "&".join(f"{n}={v:02}" for n, v in zip(names, tcb, strict=True))
        path = f"/vcek/v1/{vendor.product}/{hwid.hex()}?{query}"
        self.answers[path] = Answer(vendor.vcek(hwid, tcb))
        return path

    def nvidia(self, vendor: OcspVendor, rims: dict[str, bytes]) -> None:
        """Serve an OCSP responder and reference manifests."""
        self.answers[OCSP] = Answer(vendor.answer)
        for rim_id, manifest in rims.items():
            self.answers[f"/v1/rim/{rim_id}"] = Answer(rim_answer(rim_id, manifest))

    def _fault(self, target: str) -> Fault | None:
        fault = self.faults.get(target) or self.faults.get("")
        if fault is None or fault.times == 0:
            return None
        fault.times -= 1
        return fault

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    served.reply(self)

            do_POST = do_GET  # noqa: N815 -- the library's name

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        return Handler

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, honestly or with its fault."""
        body = handler.rfile.read(int(handler.headers.get("content-length", "0")))
        self.headers.append({key.lower(): value for key, value in handler.headers.items()})
        self.asked.append((handler.command, handler.path, body))
        fault = self._fault(handler.path)
        if fault is not None:
            self._spoil(handler, fault, body)
            return
        answer = self.answers.get(handler.path)
        if answer is None:
            send(handler, 404, b"")
            return
        send(handler, 200, contents(answer, body), answer.headers)

    def _spoil(self, handler: BaseHTTPRequestHandler, fault: Fault, body: bytes) -> None:
        answer = self.answers.get(handler.path, Answer(b"x" * 100))
        handler.close_connection = True
        match fault.kind:
            case "slow":
                self._stop.wait(5)
            case "reset":
                pass
            case "status":
                send(handler, fault.status, fault.body, fault.headers)
            case "redirect":
                send(handler, 302, b"", {"Location": fault.target})
            case "wrong":
                send(handler, 200, fault.body, answer.headers | fault.headers)
            case "truncated":
                whole = contents(answer, body)
                send(handler, 200, whole[: len(whole) // 2], answer.headers, length=len(whole))
            case "drip" | "refusal":
                status = fault.status if fault.kind == "refusal" else 200
                send(handler, status, b"", answer.headers, length=1 << 20)
                while not self._stop.is_set():
                    handler.wfile.write(b"x")
                    time.sleep(0.05)
            case "unmarked":
                handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + contents(answer, body))
            case "headers":
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not self._stop.is_set():
                    handler.wfile.write(b"x")
                    time.sleep(0.05)
            case "huge":
                send(handler, 200, b"", answer.headers, length=1 << 40)
                while not self._stop.is_set():
                    handler.wfile.write(b"x" * PIECE)


def contents(answer: Answer, body: bytes) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else answer.body(body)


def send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> None:
    handler.send_response(status)
    for key, value in (headers or {}).items():
        handler.send_header(key, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


class ServerTls:
    """A private CA and a server certificate for 127.0.0.1 under it.

    Attributes:
        ca_file: the CA in PEM, for `Services.ca_file`.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        key, ca_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        now = datetime.now(UTC)
        ca = self._issue("Loopback CA", ca_key, ca_key, now, None)
        leaf = self._issue("Loopback", key, ca_key, now, host)
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_text(pem(ca))
        self._pair = folder / "server.pem"
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._pair.write_bytes(secret + pem(leaf, ca).encode())

    @staticmethod
    def _issue(
        common: str, key: Any, ca_key: Any, now: datetime, host: str | None
    ) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=host is not None, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=host is None,
            crl_sign=host is None, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .add_extension(usage, critical=True)
            .subject_name(name(common))
            .issuer_name(name("Loopback CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
        )
        if host is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    def context(self) -> ssl.SSLContext:
        """The server's side."""
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_cert_chain(self._pair)
        return found


class Unasked:
    """A fetcher where the vendor of the test answers by itself, and no service is there."""

    def fetch(self, request: Request) -> Response:
        """Refused."""
        raise AssertionError(f"no question expected, found one for {request.url}")

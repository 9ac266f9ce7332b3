"""A machine with a TPM of its own, as its maker or cloud leaves it: swtpm, keys, indices, boot.

A real TPM 2.0 command set behind real tpm2-tools; only the device's name is another. Keys are
persistent at the handles that `collect.tpm_quote` and `collect.azure` know, and register 4 holds
the boot code.

    manufacture(folder)                       # once: slow
    machine = TpmMachine(copy of folder)      # one boot of it: registers as reset, then booted
    machine.define("0x01c101d0", certificate)
    guest = TpmQuoteGuest(machine.device())

`azure_snp(machine)` and `azure_tdx(machine)` put a paravisor's report of the simulated vendors into
it, which names the TPM's own key; `quoting(machine)` has a cloud certify its key. What they return
is appraised as any `HardwareTee`, and what its evidence is comes from the collector.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, Self

from attestation.collect.azure import SNP_KIND, TDX_KIND, AzureGuest
from attestation.collect.hardware import HardwareAttester
from attestation.collect.metadata import MetadataService
from attestation.collect.swtpm import SimulatedTpm
from attestation.collect.tpm_device import TpmDevice
from attestation.collect.tpm_quote import TpmQuoteGuest
from attestation.formats.tpm_structures import parse_public
from attestation.registers import tpm_pcr_value
from attestation.rules.registers import BOOT_PCR
from wire.ids import b64u, unb64u

from .hardware_tee import BOOT_CODE, AzureSnpTee, AzureTdxTee, QuoteTee
from .hcl import Paravisor
from .tee import AUD, NOW

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attestation.evidence import Evidence

EK, RSA_AK, ECC_AK = "0x81010001", "0x81000003", "0x81008f00"
INDEX_MAX = 2048  # of swtpm; Azure's index has 2,600 bytes, the end of them zeros


class TpmKey:
    """The public half of a TPM's key, for simulators that ask a key for it."""

    def __init__(self, raw: bytes) -> None:
        self._key = parse_public(raw).key

    def public_key(self) -> Any:
        """It."""
        return self._key


def manufacture(folder: Path) -> None:
    """Make a TPM with an attestation key of RSA and one of ECC."""
    tpm = SimulatedTpm(folder, folder / "ca")
    try:
        for handle, words in ((RSA_AK, ("rsa", "rsassa")), (ECC_AK, ("ecc", "ecdsa"))):
            tpm.tool(
                "createak", "-C", EK, "-c", "work/ak.ctx", "-G", words[0], "-g", "sha256",
                "-s", words[1], "-u", "work/ak.pub",
            )  # fmt: skip
            tpm.tool("flushcontext", "-t")
            tpm.tool("evictcontrol", "-C", "o", "-c", "work/ak.ctx", handle)
            tpm.tool("flushcontext", "-t")
    finally:
        tpm.close()


class TpmMachine:
    """One boot of a machine.

    Args:
        folder: a copy of what `manufacture` made, for this boot alone.

    Attributes:
        tpm: the TPM.
    """

    def __init__(self, folder: Path) -> None:
        self.tpm = SimulatedTpm(folder, folder / "ca")
        self.extend(BOOT_PCR, BOOT_CODE)

    def extend(self, register: int, value: bytes) -> None:
        """Measure something into a register of the SHA-256 bank."""
        self.tpm.tool("pcrextend", f"{register}:sha256={value.hex()}")

    def define(self, index: str, data: bytes, *, size: int | None = None) -> None:
        """Make an index that the owner reads, with this in it and zeros after it."""
        length = len(data) if size is None else size
        self.tpm.tool(
            "nvdefine", "-C", "o", index, "-s", str(length), "-a", "ownerwrite|ownerread|authread"
        )
        (self.tpm.work / "data").write_bytes(data.ljust(length, b"\0"))
        self.tpm.tool("nvwrite", "-C", "o", index, "-i", "work/data")

    def remove(self, handle: str) -> None:
        """Take a persistent key away."""
        self.tpm.tool("evictcontrol", "-C", "o", "-c", handle)

    def key(self, handle: str) -> TpmKey:
        """A persistent key's public half."""
        return TpmKey(self.device().public(handle))

    def device(self) -> TpmDevice:
        """The TPM, as collectors use it."""
        return TpmDevice(self.tpm.tools)

    def boot_registers(self) -> dict[str, list[str]]:
        """What a rule demands of the boot."""
        return {str(BOOT_PCR): [tpm_pcr_value(BOOT_CODE).hex()]}

    def close(self) -> None:
        """Switch it off."""
        self.tpm.close()


class _Collected:
    """A worker whose evidence is the collector's; over one of `simulators.hardware_tee`."""

    attester: HardwareAttester
    parts: Mapping[str, str]

    def evidence(self, binding_raw: bytes) -> Evidence:
        return self.attester.attest(binding_raw, 0)


class CollectedSnp(_Collected, AzureSnpTee):
    """See `azure_snp`."""


class CollectedTdx(_Collected, AzureTdxTee):
    """See `azure_tdx`."""


class CollectedQuote(_Collected, QuoteTee):
    """See `quoting`."""


def paravisor(tee: AzureSnpTee | AzureTdxTee, machine: TpmMachine) -> Paravisor:
    """A paravisor whose TPM is the machine's. Short of what swtpm's index has no room for."""
    vm = Paravisor(tee._report, machine.key(RSA_AK))
    vm.variable = {**vm.variable, "keys": vm.variable["keys"][:1]}
    del vm.variable["user-data"]
    tee.vm = vm
    tee.rule |= {"pcrs": machine.boot_registers()}
    return vm


def azure_snp(machine: TpmMachine) -> CollectedSnp:
    """A worker in an Azure confidential VM on AMD; not measured yet."""
    tee = CollectedSnp()
    report = paravisor(tee, machine).hcl_report()
    machine.define("0x01400001", report[:INDEX_MAX])
    tee.attester = HardwareAttester(AzureGuest(SNP_KIND, machine.device()))
    return tee


def azure_tdx(machine: TpmMachine, service: QuotingService) -> CollectedTdx:
    """A worker in an Azure confidential VM on Intel, whose host quotes; not measured yet."""
    tee = CollectedTdx()
    report = paravisor(tee, machine).hcl_report(kind=4)
    machine.define("0x01400001", report[:INDEX_MAX])
    service.tee = tee
    metadata = MetadataService(service.address, sleep=lambda _: None)
    tee.attester = HardwareAttester(AzureGuest(TDX_KIND, machine.device(), metadata))
    return tee


def quoting(
    machine: TpmMachine, ak: str = RSA_AK, now: int = NOW, aud: str = AUD, **facts: Any
) -> CollectedQuote:
    """A worker on a machine whose cloud certifies its TPM's key; not measured yet."""
    tee = CollectedQuote(now=now, aud=aud)
    machine.define("0x01c101d0", tee.maker.certify(machine.key(ak)), size=1024)
    tee.rule |= {"pcrs": machine.boot_registers()}
    guest = TpmQuoteGuest(machine.device(), ak=ak, **{"chain": tee.maker.issuer, **facts})
    tee.attester = HardwareAttester(guest, trust="vtpm")
    return tee


class QuotingService:
    """Azure's metadata service on loopback; use as a context manager.

    Attributes:
        address: host and port.
        tee: whose quotes it makes.
        asked: paths and headers of the requests.
        answers: (status, body) of the next answers; then it quotes. A body may be a function that
            is given the handler, to write what it likes.
    """

    def __init__(self) -> None:
        self.tee: AzureTdxTee | None = None
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: list[tuple[int, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        host, port = self._server.server_address[:2]
        self.address = (str(host), int(port))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def quote(self, report: bytes) -> bytes:
        """A quote of the TD that this report is of."""
        assert self.tee is not None
        self.tee.intel.body |= {"report_data": report[128:192], "mr_td": report[528:576]}
        return self.tee.intel.quote()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append((handler.path, {k.lower(): v for k, v in handler.headers.items()}))
        sent = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        status, body = self.answers.pop(0) if self.answers else (200, None)
        if callable(body):
            body(handler)
            return
        if body is None:
            quote = self.quote(unb64u(sent["report"]))
            body = json.dumps({"quote": b64u(quote)}).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

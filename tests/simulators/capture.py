"""Everything an outsider could record while a request passes: memory, files, wire.

The capture is deliberately dumb. It keeps raw bytes and looks for windows of a secret in them, in
the plain form and in the encodings a leak usually takes (base64 at three offsets, hex, JSON).
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


def needles(secret: bytes, size: int, *, distinct: int = 6) -> set[bytes]:
    """Byte strings of which at least one stands in any text that holds a `size`-byte window.

    Long windows are found by their aligned halves: every window of `size` bytes holds one whole
    block of `size // 2` bytes at a multiple of that, so far fewer strings need searching. A string
    of few different bytes, such as spaces, says nothing about where it came from and is left out.
    """
    length, step = (size, 1) if size < 16 else (size // 2, size // 2)
    found = {secret[i : i + length] for i in range(0, len(secret) - length + 1, step)}
    return {needle for needle in found if len(set(needle)) >= distinct}


def encodings(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """The forms under which a secret could stand in a file or a memory."""
    yield "plain", secret
    yield "utf-16", secret.decode("utf-8", "replace").encode("utf-16-le")
    yield "hex", secret.hex().encode()
    yield "json", json.dumps(secret.decode("utf-8", "replace"))[1:-1].encode()
    for skip in range(3):
        yield f"base64+{skip}", base64.b64encode(secret[skip:])[: (len(secret) - skip) // 3 * 4]
        yield (
            f"base64url+{skip}",
            base64.urlsafe_b64encode(secret[skip:])[: (len(secret) - skip) // 3 * 4],
        )


PAGE = 4096
ZEROS = bytes(PAGE)


@dataclass
class Capture:
    """Named byte strings and the search over them."""

    parts: dict[str, bytes] = field(default_factory=dict)

    def add_files(self, name: str, root: Path) -> None:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                self.parts[f"{name}:{path.relative_to(root)}"] = path.read_bytes()
            self.parts[f"{name}-name:{path.relative_to(root)}"] = str(path).encode()

    def add_memory(self, name: str, pid: int) -> None:
        self.parts[f"memory:{name}"] = process_memory(pid)

    def leaks(self, secret: bytes, size: int) -> list[str]:
        """Names of the parts that hold a `size`-byte window of `secret`, with the encoding."""
        found = []
        for form, encoded in encodings(secret):
            # In other encodings a leak is a long run; aligned pieces of twice the size find it.
            wanted = needles(encoded, size if form == "plain" else 2 * size)
            for name, data in self.parts.items():
                if any(needle in data for needle in wanted):
                    found.append(f"{name} ({form})")
        return sorted(set(found))


def process_memory(pid: int) -> bytes:
    """Every writable mapping of a process, as a core dump would hold it, less pages of zeros."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    pieces = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps.splitlines():
            span, perms, *_ = line.split()
            if not perms.startswith("rw") or "[vvar]" in line or "[vsyscall]" in line:
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            with contextlib.suppress(OSError, ValueError, OverflowError):
                memory.seek(start)
                pieces.append(without_zero_pages(memory.read(end - start)))
    return b"\0".join(pieces)


def without_zero_pages(data: bytes) -> bytes:
    """`data` without its empty pages; a run of pages that hold something stays one run."""
    pages = (data[at : at + PAGE] for at in range(0, len(data), PAGE))
    return b"".join(page for page in pages if page != ZEROS[: len(page)])


class Wiretap:
    """A byte-recording relay: listens on loopback or a Unix path, forwards to the real server."""

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self.recorded = bytearray()
        self.port = 0

    async def start(self, listen: Path | None = None) -> None:
        if listen is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            self._server = await asyncio.start_unix_server(self._serve, str(listen))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, Path):
            up_reader, up_writer = await asyncio.open_unix_connection(str(self._target))
        else:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
        await asyncio.gather(
            self._pump(reader, up_writer), self._pump(up_reader, writer), return_exceptions=True
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                self.recorded += chunk
                writer.write(chunk)
                await writer.drain()
        with contextlib.suppress(ConnectionError, OSError):
            writer.close()

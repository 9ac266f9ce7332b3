"""Everything an outsider could record while a request passes: memory, files, wire.

The capture is deliberately dumb. It keeps raw bytes and looks for windows of a secret in them, in the
plain form and in the encodings a leak usually takes (base64 at three offsets, hex, JSON escapes).
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


def windows(secret: bytes, size: int, *, distinct: int = 6) -> set[bytes]:
    """All `size`-byte windows of `secret` with at least `distinct` different bytes.

    A window of one repeated letter or of spaces says nothing about where it came from.
    """
    found = {secret[i : i + size] for i in range(len(secret) - size + 1)}
    return {w for w in found if len(set(w)) >= distinct}


def encodings(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """The forms under which a secret could stand in a file or a memory."""
    yield "plain", secret
    yield "utf-16", secret.decode("utf-8", "replace").encode("utf-16-le")
    yield "hex", secret.hex().encode()
    yield "json", json.dumps(secret.decode("utf-8", "replace"))[1:-1].encode()
    for skip in range(3):
        yield f"base64+{skip}", base64.b64encode(secret[skip:])[: (len(secret) - skip) // 3 * 4]
        yield f"base64url+{skip}", base64.urlsafe_b64encode(secret[skip:])[
            : (len(secret) - skip) // 3 * 4
        ]


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
            wanted = windows(encoded, size)
            for name, data in self.parts.items():
                if any(window in data for window in wanted):
                    found.append(f"{name} ({form})")
        return sorted(set(found))


def process_memory(pid: int) -> bytes:
    """Every readable private mapping of a process, as a core dump would hold it."""
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
                pieces.append(memory.read(end - start))
    return b"\0".join(pieces)


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

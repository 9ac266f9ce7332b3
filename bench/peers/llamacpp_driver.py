"""llama.cpp: its server over loopback, a stream a request; or its own batched benchmark.

The server's figures hold the cost of HTTP and JSON, on both sides, on the same cores. The batched
benchmark has none of that, and no sampling either: it is the most that llama.cpp's kernels do, so
it stands beside the server. It reports rates, no times of tokens.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loop

if TYPE_CHECKING:
    from argparse import Namespace

START_S = 60


class Server:
    """llama-server with a slot a stream."""

    arena = 0

    def __init__(self, given: Namespace) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        arguments = ["-m", given.model, "--host", "127.0.0.1", "--port", str(self.port)]
        arguments += ["-np", str(given.streams), "-c", str(given.tokens), "-kvu"]
        arguments += ["-t", str(given.threads), "-tb", str(given.threads), "-fa", "on"]
        arguments += ["-b", "2048", "-ub", "512", "--no-webui", "--cache-ram", "0"]
        self.process = subprocess.Popen([given.binary, *arguments], stdout=subprocess.DEVNULL)
        self.version = "llama.cpp server"
        self.now = given.now if given.clock == "wall" else self._cpu
        end = time.perf_counter() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.perf_counter() > end:
                raise SystemExit("llama-server: did not answer")
            time.sleep(0.02)

    def _cpu(self) -> float:
        """CPU seconds of the server, all its threads; the client's are not its own."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((x / "schedstat").read_text().split()[0]) for x in threads) / 1e9

    def _answers(self) -> bool:
        """Whether the model is loaded."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5)
        except (urllib.error.URLError, OSError):
            return False
        return True

    async def _one(self, prompt: list[int], out: int, times: list[float]) -> None:
        """One request; its events are its tokens."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        order = {"prompt": prompt, "n_predict": out, "temperature": 0, "samplers": ["temperature"]}
        order |= {"stream": True, "ignore_eos": True, "cache_prompt": False}
        body = json.dumps(order).encode()
        head = "POST /completion HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        while line := await reader.readline():
            if line.startswith(b"data:") and b'"stop":false' in line:
                times.append(self.now())
        writer.close()

    def run(self, prompts: list[list[int]], out: int, **options: bool) -> dict[str, Any]:
        """All requests at once."""
        times: list[list[float]] = [[] for _ in prompts]

        async def together() -> None:
            pairs = zip(prompts, times, strict=True)
            await asyncio.gather(*(self._one(prompt, out, row) for prompt, row in pairs))

        asyncio.run(together())
        return {"times": times}

    def close(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(10)


class Batched:
    """llama-batched-bench, one process a run; it makes its own prompts."""

    version = "llama.cpp batched-bench"
    arena = 0

    def __init__(self, given: Namespace) -> None:
        self.given, self.now = given, given.now

    def run(self, prompts: list[list[int]], out: int, **options: bool) -> dict[str, Any]:
        """Rates as the program says them."""
        given, rows, length = self.given, len(prompts), len(prompts[0])
        arguments = ["-m", given.model, "-npp", str(length), "-ntg", str(out), "-npl", str(rows)]
        arguments += ["-c", str(max(2048, rows * (length + out))), "-b", "2048", "-ub", "512"]
        arguments += ["-t", str(given.threads), "-tb", str(given.threads), "-fa", "on"]
        done = subprocess.run(
            [given.binary, *arguments, "--output-format", "jsonl"],
            capture_output=True,
            text=True,
            check=True,
        )
        line = next(x for x in done.stdout.splitlines() if x.startswith("{"))
        said = json.loads(line)
        return {
            "rates": {
                "decode": said["speed_tg"],
                "prefill": said["speed_pp"],
                "out": rows * out / (said["t_pp"] + said["t_tg"]),
            }
        }


if __name__ == "__main__":
    given = loop.options()
    loop.serve(Batched if Path(given.binary).name == "llama-batched-bench" else Server, given)

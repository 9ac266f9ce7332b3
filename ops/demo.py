"""The demo: the whole service on this machine, one sealed chat, its proof, then a local proxy.

Nothing here is special to the demo but its brevity: the processes, the policy, the evidence and the
checks are the ones a deployment uses.
"""

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from client.api import Client
from client.async_transport import AsyncSealedTransport
from client.clock import wall_clock
from client.proxy import ProxyServer, listen_tcp, new_key
from client.report import Verification
from client.session import Options, load_policy
from enclave_worker.launcher_config import Trust
from evidence.bundle import verify_bundle

from .demo_folder import demo_folder
from .deployment import Deployment, create
from .model_cache import ensure
from .model_manifest import read
from .progress import progress_bar
from .stack import Stack, StackConfig, check_port

PROMPT = "In two sentences: why should a hospital verify a server before it sends a prompt?"
MAX_TOKENS = 120
# Each demo is a deployment of its own: a client that remembers the log of an earlier one, under the
# same name and another key, would rightly call this one a fork.
AUD = "anchorhold-demo"

# No line is wider than a terminal of 80 columns, keys and names filled in.
SNIPPETS = """
curl {url}/chat/completions \\
  -H 'Authorization: Bearer {key}' \\
  -H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "stream": true,
       "messages": [{{"role": "user", "content": "Hello"}}]}}'

from openai import OpenAI
client = OpenAI(
    base_url="{url}",
    api_key="{key}",
)
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Hello"}}],
)
print(answer.choices[0].message.content)
"""

BANNERS = {
    "software": "trust=software: a development key signs the measurement. This shows the whole "
    "path; it hides nothing from root on this machine.",
    "simulated": "trust=simulated: real TPM 2.0 quotes from a software TPM on this machine. No "
    "hardware stands behind them; root on this machine can do everything.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the user chose.

    Attributes:
        trust: evidence kind.
        model: a known model name or a local model folder.
        port: gateway port.
        prompt: what to ask.
        workers: how many.
    """

    trust: Trust = "software"
    model: str = "smollm2"
    port: int = 8010
    prompt: str = PROMPT
    workers: int = 1


class Demo:
    """One run of the demo; `say` writes for people on standard output."""

    def __init__(self, options: DemoOptions) -> None:
        self.options = options
        self.began = time.monotonic()
        self.console = Console(highlight=False, soft_wrap=True)
        self.notes = Console(stderr=True, highlight=False)

    @contextmanager
    def service(self) -> Iterator[tuple[Stack, Deployment, str]]:
        """Everything up and admitted; torn down and deleted at the end."""
        for port in (self.options.port, self.options.port + 1):  # the proxy takes the second
            check_port(port)
        self._head("1  model")
        with progress_bar() as report:
            model = ensure(self.options.model, report=report)
        name = read(model).name
        self._say(f"{name} from {model}")
        with demo_folder() as folder:
            aud = f"{AUD}-{secrets.token_hex(4)}"
            deployment = create(folder / "d", aud=aud, now=wall_clock())
            config = StackConfig(
                deployment=deployment, model_dir=model, model_name=name, port=self.options.port,
                trust=self.options.trust, workers=self.options.workers,
                engine={"dtype": "bfloat16"},
            )  # fmt: skip
            self._head("2  service: measure the worker, confine it, admit it")
            with self._start(config) as stack:
                for wid, launcher in stack.launchers.items():
                    self._say(f"{wid}  measurement {launcher.measurement}")
                ready = time.monotonic() - self.began
                self._say(f"gateway at {stack.url}, ready {ready:.1f} s after start")
                yield stack, deployment, name

    def chat(self, stack: Stack, deployment: Deployment, model: str) -> bool:
        """Verify, send one sealed streaming chat, check the receipt; whether all of it held."""
        options = Options(state_dir=deployment.root / "client")
        with Client(
            stack.url, deployment.api_key, policy=deployment.tenant_policy, options=options
        ) as client:
            self._head("3  verify: every check the client makes before it sends anything")
            self._report(client.verify(model))
            self._head("4  chat: sealed here, opened only by that worker, streamed back sealed")
            self._say(f"> {self.options.prompt}")
            stream = client.chat(
                [{"role": "user", "content": self.options.prompt}],
                model, stream=True, max_tokens=MAX_TOKENS, temperature=0.0,
            )  # fmt: skip
            first = 0.0
            for delta in stream:
                first = first or time.monotonic() - self.began
                sys.stdout.write(delta.text)
                sys.stdout.flush()
            self._say(f"\n(first token {first:.1f} s after start)")
            self._head("5  receipt: signed by the worker's key, proved to be in the log")
            receipt = stream.receipt
            for check in receipt.checks:
                self._check(check.step, check.ok, check.detail)
            used = receipt.usage
            self._say(f"tokens {used['prompt_tokens']} in, {used['completion_tokens']} out")
            self._say(
                f"inclusion proof verified: entry {receipt.index} of a log of {receipt.log_size}"
            )
            self._say(f"trust={receipt.trust}")
            saved = receipt.save(deployment.root / "receipt.json")
        policy = load_policy(deployment.tenant_policy)
        offline = verify_bundle(saved.read_bytes(), policy, wall_clock())
        word = {0: "valid", 3: "below policy (a live TPM activation cannot be repeated offline)"}
        self._say(f"offline check of the saved receipt: {word.get(offline.exit_code, 'INVALID')}")
        expected = 0 if self.options.trust == "software" else 3
        return bool(stream.text.strip()) and offline.exit_code == expected

    def stay(self, stack: Stack, deployment: Deployment, model: str) -> None:
        """Serve the local proxy until interrupted."""
        listener, key = listen_tcp("127.0.0.1", self.options.port + 1), new_key()
        self._head("6  yours now: a local OpenAI-compatible proxy; Ctrl-C stops everything")
        self._say(SNIPPETS.format(url=listener.url, key=key, model=model))
        self._say(
            f"check it yourself:\n  {sys.argv[0]} verify {stack.url} \\\n"
            f"    --policy {deployment.tenant_policy} \\\n"
            f"    --key-file {deployment.key_file}"
        )
        transport = AsyncSealedTransport(
            deployment.tenant_policy, base_url=stack.url, api_key=deployment.api_key,
            options=Options(state_dir=deployment.root / "client"),
        )  # fmt: skip
        # Here an interrupt is the way to end, not a failure.
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(ProxyServer(transport, listener, key).serve())

    def banner(self) -> None:
        """Say what this trust level is, loudly."""
        self.console.print(f"[bold yellow]{BANNERS[self.options.trust]}[/]", soft_wrap=False)

    @contextmanager
    def _start(self, config: StackConfig) -> Iterator[Stack]:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
        with Progress(*columns, console=self.notes, transient=True) as progress:
            tasks = {}

            def task(wid: str) -> Any:
                if wid not in tasks:
                    tasks[wid] = progress.add_task(f"{wid} staging", total=None)
                return tasks[wid]

            def on_progress(wid: str, part: str, done: int, total: int) -> None:
                text = f"{wid} measuring {part}"
                progress.update(task(wid), description=text, completed=done, total=total)

            def on_state(wid: str, state: str, facts: Mapping[str, Any]) -> None:
                progress.update(task(wid), description=f"{wid} {state}", total=None)

            stack = Stack(config, on_progress=on_progress, on_state=on_state)
            try:
                stack.start()
            except BaseException:
                stack.stop()
                raise
        try:
            yield stack
        finally:
            stack.stop()

    def _report(self, verification: Verification) -> None:
        for check in verification.checks:
            self._check(check.step, check.ok, check.detail)
        self._say(f"trust={verification.trust}")

    def _check(self, step: str, ok: bool | None, detail: str) -> None:
        mark = {True: "[green]ok[/]  ", False: "[red]FAIL[/]", None: "[yellow]--[/]  "}[ok]
        self.console.print(f"  {mark} {step}" + (f": {detail}" if detail else ""), markup=True)

    def _head(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/]")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False)

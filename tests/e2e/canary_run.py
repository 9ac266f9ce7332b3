"""One sealed chat with everything recorded: run as a process of its own by test_canary.

Arguments: output folder, model folder. The canary comes on standard input. Writes
`recorded/{gateway.mem,http.bin,link.bin}`, the service's own files under `service/`, and the answer
(which only the client side knows) to `answer.bin`.
"""

import asyncio
import sys
import threading
import time
from pathlib import Path

from simulators.capture import Wiretap, process_memory

from client.api import Client
from client.session import Options
from ops.deployment import create
from ops.stack import Stack, StackConfig, free_port


def main() -> None:
    out, model = Path(sys.argv[1]), Path(sys.argv[2])
    canary = sys.stdin.read()
    recorded = out / "recorded"
    recorded.mkdir()
    deployment = create(out / "service", aud="canary", now=int(time.time()))  # noqa: TID251
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)

    port = free_port()
    link, http = Wiretap(deployment.worker_socket), Wiretap(("127.0.0.1", port))
    relay = out / "relay.sock"
    run(link.start(relay))
    run(http.start())
    config = StackConfig(
        deployment=deployment, model_dir=model, model_name="tiny", port=port,
        engine={"dtype": "float32", "threads": 1}, connect_via=relay,
        gateway={
            "spool_memory_bytes": 0, "telemetry_exporter": "file",
            "telemetry_file": "telemetry.jsonl", "telemetry_interval_s": 0.2,
        },
    )  # fmt: skip
    with Stack(config) as stack:
        client = Client(
            f"http://127.0.0.1:{http.port}", deployment.api_key,
            policy=deployment.tenant_policy, options=Options(state_dir=out / "client"),
        )  # fmt: skip
        pieces = []
        for number, piece in enumerate(
            client.chat(
                [{"role": "user", "content": f"Repeat: {canary}"}],
                model="tiny",
                stream=True,
                max_tokens=200,
                ignore_eos=True,
            )
        ):
            pieces.append(piece.text)
            if number == 1:
                (recorded / "gateway-during.mem").write_bytes(process_memory(stack.gateway.pid))
        (recorded / "gateway.mem").write_bytes(process_memory(stack.gateway.pid))
        time.sleep(0.5)  # one telemetry export
    (recorded / "http.bin").write_bytes(http.recorded)
    (recorded / "link.bin").write_bytes(link.recorded)
    (out / "answer.bin").write_text("".join(pieces))


main()

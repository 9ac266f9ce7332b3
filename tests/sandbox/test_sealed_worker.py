"""Everything together: a staged, wrapped, confined process still infers, over sockets alone."""

import json
import os
import socket
import subprocess

import pytest

from enclave_worker.sandbox import landlock, namespaces
from enclave_worker.stage import stage_worker_root

pytestmark = pytest.mark.sandbox

# Runs as `sealed.main()` in the staged root: confine, import, warm up, seal, then serve one request
# that arrives over a socket which itself arrived over the control socket.
WORKER = """
import json, os, socket, sys
from pathlib import Path

def main():
    config = json.loads(sys.argv[1])
    from enclave_worker.sandbox import confine, memory, posture
    early = confine.confine_early(
        map(Path, config["read"]), wrapper=config["wrapper"], parent_namespaces=config["namespaces"]
    )
    import asyncio
    import torch
    import torch.nn.functional as F
    import tokenizers, safetensors.torch, jinja2.sandbox
    generator = torch.Generator()

    def infer(tokens, kind, threads):
        torch.set_num_threads(threads)
        generator.manual_seed(tokens)
        left = torch.randn(4, tokens, 128, generator=generator).to(kind)
        right = torch.randn(4, 128, tokens, generator=generator).to(kind)
        with torch.inference_mode():
            scores = torch.bmm(left, right).softmax(-1)
            mixed = left.reshape(-1, 128) @ right.reshape(128, -1)
            shaped = F.gelu(mixed) + F.silu(mixed)
            attended = F.scaled_dot_product_attention(left, left, left, is_causal=True)
            drawn = torch.multinomial(scores[0].float(), 1, generator=generator)
        return [out.double().sum().item() for out in (scores, mixed, shaped, attended, drawn)]

    shapes = [(n, k, t) for n in (1, 64) for k in (torch.float32, torch.bfloat16) for t in (1, 2)]
    loop = asyncio.new_event_loop()
    control = socket.socket(fileno=config["fd"])
    seed = memory.SecretBytes.random(32)
    before = [infer(*shape) for shape in shapes]
    late = confine.confine_late()
    same = before == [infer(*shape) for shape in shapes]
    # Shapes nobody warmed up: new kernels are compiled without a file or a process.
    unseen = len(infer(37, torch.bfloat16, 2)) + len(infer(37, torch.float32, 2))

    def answer(call, *arguments):
        try:
            call(*arguments)
        except OSError as error:
            return error.errno
        return 0

    refused = {
        "open": answer(os.open, "/proc/self/status", os.O_RDONLY),
        "model": answer(os.open, config["read"][0], os.O_RDONLY),
        "socket": answer(socket.socket),
        "fork": answer(os.fork),
        "exec": answer(os.execv, sys.executable, ["python"]),
        "spawn": answer(os.posix_spawn, sys.executable, ["python"], {}),
    }
    fields = posture.collect(early, late, secrets=[seed])

    async def serve():
        await asyncio.to_thread(control.setblocking, True)
        _, fds, _, _ = await asyncio.to_thread(socket.recv_fds, control, 16, 1)
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fds[0]))
        asked = json.loads(await reader.readline())
        out = await asyncio.to_thread(infer, asked["tokens"], torch.float32, 2)
        reply = {
            "same": same, "unseen": unseen, "refused": refused, "out": out,
            "posture": {name: control.state for name, control in fields.items()},
        }
        writer.write(json.dumps(reply).encode() + b"\\n")
        await writer.drain()
        writer.close()

    loop.run_until_complete(serve())
    loop.close()
"""


def test_a_sealed_worker_infers_the_same_bits_over_a_received_descriptor(tmp_path, wrapper):
    _, failed = landlock.supported_abi()
    if failed:
        pytest.skip(f"kernel without Landlock: {os.strerror(failed)}")
    root = stage_worker_root(tmp_path / "root")
    (root.parts["first_party"] / "sealed.py").write_text(WORKER)
    ours, theirs = socket.socketpair()
    config = {
        "read": [str(path) for path in root.read_paths],
        "wrapper": "",
        "namespaces": dict(namespaces.namespace_ids()),
        "fd": theirs.fileno(),
    }
    prefix, config["wrapper"] = namespaces.wrap_command([], read_paths=root.read_paths)
    process = subprocess.Popen(
        [*prefix, *root.command("sealed", json.dumps(config))],
        pass_fds=[theirs.fileno()],
        env={},
        stderr=subprocess.PIPE,
    )
    theirs.close()
    near, far = socket.socketpair()
    socket.send_fds(ours, [b"conn"], [far.fileno()])
    far.close()
    near.settimeout(50)
    near.sendall(b'{"tokens": 64}\n')
    with near.makefile("rb") as stream:
        line = stream.readline()
    errors = process.communicate(timeout=10)[1].decode()
    near.close()
    ours.close()
    assert process.returncode == 0, errors
    reply = json.loads(line)
    assert reply["same"]
    assert reply["unseen"] == 10
    assert len(reply["out"]) == 5
    assert set(reply["refused"].values()) == {1}, reply["refused"]
    unmet = {name for name, state in reply["posture"].items() if state != "applied"}
    # What depends on the host, and the one control that torch cannot live with.
    assert unmet <= {"mdwe", "ro_root", "yama", "swap", "uid", "memfd_secret", "mlock"}

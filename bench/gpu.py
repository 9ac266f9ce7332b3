"""The engine's decoder on one GPU: right, and how far from the GPU's limits and from a peer.

    .venv/bin/python bench/gpu.py [--shapes qwen3-0.6b llama-3.2-1b] [--json run.json]
    .venv/bin/python bench/gpu.py --dry        # the same on a CPU, at a tiny shape: no figures

Random weights at the shapes of Qwen3-0.6B and Llama-3.2-1B, bfloat16. For each:
- parity: logits of a float32 copy beside transformers' on the same device;
- prefill: prompt tokens a second, one prompt in chunks of a step's budget;
- decode: tokens a second of N streams, greedy; a step is one upload, one graph, one download, as in
  the engine's loop (scheduling and text are not in);
- transformers' continuous batching, same prompts and lengths, end of sequence ignored;
- the roofline of `bench/engine_roofline.py`, bandwidth (copies) and matrix rate of the same run.
Medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from enclave_worker.engine.logits import Logits

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from engine_roofline import Roofline, Shape  # noqa: E402 - the paths come first

from enclave_worker.engine.config import PAGE_SIZE, EngineConfig  # noqa: E402
from enclave_worker.engine.models.config import parse_config  # noqa: E402
from enclave_worker.engine.models.decoder import Decoder  # noqa: E402
from enclave_worker.engine.models.graphs import cuda_capture  # noqa: E402
from enclave_worker.engine.models.load import gpu_attention  # noqa: E402
from enclave_worker.engine.models.weights import Weights  # noqa: E402
from enclave_worker.engine.plan import Chunk, StepPlan  # noqa: E402

# fmt: off
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}
#: Type, hidden, intermediate, layers, heads, key heads, head dimension, vocabulary, rotation.
SHAPES: dict[str, tuple[str, int, int, int, int, int, int, int, dict[str, Any]]] = {
    "qwen3-0.6b": ("qwen3", 1024, 3072, 28, 16, 8, 128, 151936, {"rope_theta": 1e6}),
    "llama-3.2-1b": ("llama", 2048, 8192, 16, 32, 8, 64, 128256, LLAMA3),
    "tiny": ("qwen3", 64, 96, 2, 4, 2, 16, 384, {"rope_theta": 1e4}),
}
# fmt: on
MAX_LEN, BUDGET = 4096, 512


def make(name: str, folder: Path) -> None:
    """Write a model of a shape, with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, hidden, wide, layers, heads, kv_heads, dim, vocab, rope = SHAPES[name]
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind, hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=dim, vocab_size=vocab,
        rope_parameters={"rope_type": "default", **rope}, max_position_embeddings=MAX_LEN,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def ours(folder: Path, device: str, dtype: str, streams: int) -> Decoder:
    """The decoder as the engine makes it; raises KernelError where Triton's attention is wrong."""
    numbers = torch.float32 if dtype == "float32" else torch.bfloat16
    model = parse_config(json.loads((folder / "config.json").read_text()))
    pages = (streams + 1) * MAX_LEN // PAGE_SIZE
    with Weights(folder, numbers) as weights:
        if device == "cpu":
            return Decoder(model, weights, numbers, pages, MAX_LEN)
        config = EngineConfig(device="cuda", kernels="triton", max_batch=streams)
        attention = gpu_attention(config, model, numbers)
        assert attention is not None  # "triton" is named: it is that, or an error
        return Decoder(
            model, weights, numbers, pages, MAX_LEN, device=torch.device("cuda"),
            attention=attention, capture=cuda_capture(), max_batch=streams,
        )  # fmt: skip


def run(model: Decoder, chunks: list[tuple[list[int], int, int]], *, whole: bool = False) -> Logits:
    """One step of (tokens, position of the first, stream); the last row of each is wanted."""
    each = MAX_LEN // PAGE_SIZE
    ends = np.cumsum([len(new) for new, _, _ in chunks], dtype=np.int32)
    rows = tuple(
        Chunk(int(end) - len(new), len(new), start, range(i * each, i * each + each))
        for (new, start, i), end in zip(chunks, ends, strict=True)
    )
    tokens = np.array([token for new, _, _ in chunks for token in new], np.int32)
    positions = [start + i for new, start, _ in chunks for i in range(len(new))]
    step = StepPlan(tokens, np.array(positions, np.int32), rows, ends - 1, ())
    with torch.inference_mode():
        return model.forward(step, whole=whole)


def prefill(model: Decoder, prompt: list[int], stream: int) -> int:
    """Read a prompt in chunks; the likeliest token after it."""
    starts = range(0, len(prompt), BUDGET)
    return [int(run(model, [(prompt[s : s + BUDGET], s, stream)]).best[0]) for s in starts][-1]


def decode(model: Decoder, last: list[int], length: int, count: int) -> list[float]:
    """`count` greedy steps of all streams; seconds of each."""
    spent = []
    for at in range(length, length + count):
        begin = time.perf_counter()
        last = run(model, [([token], at, i) for i, token in enumerate(last)]).best.tolist()
        spent.append(time.perf_counter() - begin)
    return spent


def parity(folder: Path, device: str, prompt: list[int]) -> float:
    """Largest difference of float32 logits to transformers', over a prompt's last tokens."""
    from transformers import AutoModelForCausalLM

    model = ours(folder, device, "float32", 2)
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    with torch.inference_mode():
        expected = peer(torch.tensor([prompt], device=device)).logits[0].cpu()
    head, worst = prompt[:-4], 0.0
    prefill(model, head, 0)
    for at in range(len(head), len(prompt)):
        values = run(model, [([prompt[at]], at, 0)], whole=True).values
        assert values is not None
        worst = max(worst, float((values[0] - expected[at]).abs().max()))
    return worst


def peer_rate(folder: Path, device: str, prompts: list[list[int]], out: int) -> float:
    """Tokens a second of transformers' continuous batching, prompts included."""
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    config = GenerationConfig(max_new_tokens=out, do_sample=False, eos_token_id=-1, pad_token_id=2)
    # On a CPU it looks at all the memory there is, and takes it.
    sizes = (
        ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64) if device == "cpu" else None
    )
    for _ in range(2):  # the first one captures and compiles
        begin = time.perf_counter()
        answers = model.generate_batch(prompts, config, sizes, persistent_manager=True)
        spent = time.perf_counter() - begin
    made = sum(len(answer.generated_tokens) for answer in answers.values())
    if made != len(prompts) * out:
        raise RuntimeError(f"transformers: found {made} tokens, expected {len(prompts) * out}")
    return made / spent


def limits(device: str, size: int, cube: int) -> Roofline:
    """Bandwidth of copying `size` bytes, read and written; rate of a bf16 product."""

    def fastest(work: Callable[[], object]) -> float:
        spent = []
        for _ in range(10):
            begin = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - begin)
        return min(spent)

    left, right = torch.empty(2, size // 4, device=device)
    a, b = torch.randn(2, cube, cube, device=device).bfloat16()
    rate = 2 * cube**3 / fastest(lambda: a @ b)
    return Roofline(2 * size / fastest(lambda: left.copy_(right)), rate, rate)


def measure(name: str, device: str, args: argparse.Namespace, roof: Roofline) -> dict[str, Any]:
    """Everything about one shape."""
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        make(name, folder)
        shape, most = Shape.read(folder), max(args.streams)
        draw = np.random.default_rng(5)
        prompts = draw.integers(3, SHAPES[name][7], (most, args.prompt)).tolist()
        found: dict[str, Any] = {"shape": name, "parity": parity(folder, device, prompts[0])}
        model = ours(folder, device, "bfloat16", most)
        found |= model.describe()
        last = [prefill(model, prompt, i) for i, prompt in enumerate(prompts)]
        rates = []
        for _ in range(args.rounds):
            begin = time.perf_counter()
            prefill(model, prompts[0], 0)
            rates.append(args.prompt / (time.perf_counter() - begin))
        found["prefill"] = statistics.median(rates)
        most_prefill = shape.prefill(roof, "bfloat16", args.prompt)
        found["prefill_of_roofline"] = found["prefill"] / most_prefill
        for n in args.streams:
            tries = [decode(model, last[:n], args.prompt, args.out) for _ in range(args.rounds)]
            rate = n / statistics.median(statistics.median(spent) for spent in tries)
            context = args.prompt + args.out / 2
            mine: dict[str, float] = {"decode": rate}
            mine["of_roofline"] = rate / shape.decode(roof, "bfloat16", n, context)
            begin = time.perf_counter()
            for i, prompt in enumerate(prompts[:n]):
                prefill(model, prompt, i)
            decode(model, last[:n], args.prompt, args.out - 1)
            mine["whole"] = n * args.out / (time.perf_counter() - begin)
            mine["transformers"] = peer_rate(folder, device, prompts[:n], args.out)
            mine["ratio"] = mine["whole"] / mine["transformers"]
            found[f"streams_{n}"] = mine
        return found


def main() -> None:
    """Print one JSON object a shape."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shapes", nargs="+", default=["qwen3-0.6b", "llama-3.2-1b"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--out", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dry", action="store_true", help="tiny, on the CPU: that it runs")
    args = parser.parse_args()
    device = "cpu" if args.dry else "cuda"
    if args.dry:
        args.shapes, args.streams, args.prompt, args.out, args.rounds = ["tiny"], [1, 3], 20, 6, 1
    elif not torch.cuda.is_available():
        parser.error("found no CUDA device that torch sees; --dry runs on the CPU")
    roof = limits(device, 1 << (20 if args.dry else 30), 64 if args.dry else 8192)
    found = [measure(name, device, args, roof) for name in args.shapes]
    name = "cpu" if args.dry else torch.cuda.get_device_name()
    setup = {"torch": torch.__version__, "device": name}
    run = {"setup": setup, "roofline": [roof.bandwidth, roof.bfloat16], "shapes": found}
    print(json.dumps(run, indent=1))
    if args.json is not None:
        args.json.write_text(json.dumps(run))


if __name__ == "__main__":
    main()

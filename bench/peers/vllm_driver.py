"""vLLM on CPU, its engine stepped in this process: no HTTP, no detokenising."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loop

if TYPE_CHECKING:
    from argparse import Namespace


class VLLM:
    """LLM's own engine core; prefix caching off, since no two prompts begin alike."""

    def __init__(self, given: Namespace) -> None:
        os.environ.update(
            VLLM_ENABLE_V1_MULTIPROCESSING="0",
            VLLM_CPU_KVCACHE_SPACE="1",
            VLLM_CPU_OMP_THREADS_BIND=f"0-{given.threads - 1}",
            VLLM_LOGGING_LEVEL="ERROR",
            VLLM_NO_USAGE_STATS="1",
        )
        import vllm

        config = json.loads((Path(given.model) / "config.json").read_text())
        heads = config["num_key_value_heads"]
        dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        self.version = f"vllm-cpu {vllm.__version__}"
        self.llm = vllm.LLM(
            given.model,
            dtype="bfloat16",
            # A tenth faster than with 8,192, so contexts above this are left out for it.
            max_model_len=given.longest,
            max_num_seqs=given.streams,
            max_num_batched_tokens=2048,
            enable_prefix_caching=False,
            enable_chunked_prefill=True,
            skip_tokenizer_init=True,
            block_size=128,
            # One block more: the engine keeps block 0 to itself.
            num_gpu_blocks_override=-(-given.tokens // 128) + 1,
        )
        blocks = self.llm.llm_engine.vllm_config.cache_config.num_gpu_blocks or 0
        self.arena = 2 * 2 * heads * dim * config["num_hidden_layers"] * 128 * blocks
        self.requests = 0
        self.now = given.now

    def run(self, prompts: list[list[int]], out: int, **options: bool) -> dict[str, Any]:
        """All prompts into the engine, then its steps until none is left."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0,
            max_tokens=out,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        engine, times = self.llm.llm_engine, {}
        for prompt in prompts:
            self.requests += 1
            times[str(self.requests)] = []
            engine.add_request(str(self.requests), {"prompt_token_ids": prompt}, params)
        while engine.has_unfinished_requests():
            for output in engine.step():
                at = self.now()
                key = output.request_id.split("-")[0]
                times[key] += [at] * len(output.outputs[0].token_ids)
        return {"times": list(times.values())}


if __name__ == "__main__":
    loop.serve(VLLM, loop.options())

"""OpenVINO GenAI: its continuous batching pipeline, stepped in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import loop

if TYPE_CHECKING:
    from argparse import Namespace


class OpenVINO:
    """A folder made by optimum-intel; prefix caching off, since no two prompts begin alike."""

    def __init__(self, given: Namespace) -> None:
        import openvino_genai as genai

        scheduler = genai.SchedulerConfig()
        # Whole GiB only; blocks by number where this version has them, which is the same capacity.
        scheduler.num_kv_blocks = -(-given.tokens // 32)
        scheduler.max_num_seqs = given.streams
        scheduler.max_num_batched_tokens = 512
        scheduler.dynamic_split_fuse = True
        self.genai = genai
        self.pipeline = genai.ContinuousBatchingPipeline(
            given.model,
            scheduler_config=scheduler,
            device="CPU",
            properties={
                "INFERENCE_NUM_THREADS": given.threads,
                "INFERENCE_PRECISION_HINT": "bf16",
            },
        )
        self.version = f"openvino-genai {genai.__version__.split('-')[0]}"
        self.arena = 0
        self.requests = 0
        self.now = given.now

    def run(self, prompts: list[list[int]], out: int, **options: bool) -> dict[str, Any]:
        """All prompts into the pipeline, then its steps until none is left."""
        import numpy as np
        import openvino

        config = self.genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = out
        config.ignore_eos, config.do_sample = True, False
        handles, times = [], []
        for prompt in prompts:
            self.requests += 1
            tokens = openvino.Tensor(np.array([prompt], dtype=np.int64))
            handles.append(self.pipeline.add_request(self.requests, tokens, config))
            times.append([])
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            at = self.now()
            for handle, row in zip(handles, times, strict=True):
                while handle.can_read():
                    for output in handle.read().values():
                        row.extend([at] * len(output.generated_ids))
        return {"times": times}


if __name__ == "__main__":
    loop.serve(OpenVINO, loop.options())

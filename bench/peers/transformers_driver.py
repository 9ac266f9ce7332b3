"""transformers: generate() over one static batch of equally long prompts, its best case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import loop

if TYPE_CHECKING:
    from argparse import Namespace


class Transformers:
    """A model and its generate(); rows go in lock step."""

    arena = 0

    def __init__(self, given: Namespace) -> None:
        import torch
        import transformers

        torch.set_num_threads(given.threads)
        self.torch = torch
        self.now = given.now
        self.version = f"transformers {transformers.__version__}"
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            given.model, dtype=torch.bfloat16
        ).eval()

    def run(self, prompts: list[list[int]], out: int, **options: bool) -> dict[str, Any]:
        """One call; a criterion that never stops notes the time of each step."""
        from transformers import StoppingCriteria, StoppingCriteriaList

        times: list[float] = []
        rows, torch, now = len(prompts), self.torch, self.now

        class Clock(StoppingCriteria):
            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                times.append(now())
                return torch.zeros(rows, dtype=torch.bool)

        tokens = torch.tensor(prompts)
        with torch.no_grad():
            self.model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                max_new_tokens=out,
                min_new_tokens=out,
                eos_token_id=None,
                stopping_criteria=StoppingCriteriaList([Clock()]),
            )
        return {"times": [times] * rows}


if __name__ == "__main__":
    loop.serve(Transformers, loop.options())

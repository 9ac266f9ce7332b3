"""The engine's second core: vLLM, stepped in this process, for models and machines ours has not.

vLLM chooses tokens; requests, text, stop strings, answers and their ends stay ours, so that callers
see one engine. It runs in this process without its servers: nothing listens, nothing is pickled
across. What it does not do is scrub freed pages or give the same bits in any company.

Written against vLLM 0.32.
"""

import json
import logging
import os
import secrets
from typing import Any, Final

from .config import PAGE_SIZE, EngineConfig
from .core import Levels, Result
from .errors import KernelError, ModelError, RequestInvalid
from .models.folder import ModelFolder
from .params import Grammar, SamplingParams
from .prefix_cache import PrefixCache
from .sampling.choice import Choice
from .sequence import GenerationRequest, Sequence

_log = logging.getLogger(__name__)

# vLLM's own tokens a page: its CPU attention takes multiples of 32.
BLOCK: Final = 32
_SEED_BITS: Final = (1 << 63) - 1
_DTYPES: Final = {"float32": "float32", "bfloat16": "bfloat16", "w8a8": "bfloat16"}


class VllmCore:
    """vLLM's LLMEngine behind the interface of `core.Core`."""

    def __init__(self, folder: ModelFolder, config: EngineConfig, max_len: int) -> None:
        """Load the model.

        Raises:
            KernelError: vLLM is not installed, or cannot run here.
            ModelError: it does not take this model, or not in this dtype.
        """
        if config.dtype not in _DTYPES:
            raise ModelError(
                f"vllm: found dtype {config.dtype}, expected one of {', '.join(_DTYPES)}"
            )
        _quiet(config.threads)
        try:
            import vllm
            from vllm.engine.arg_utils import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine
        except ImportError as error:
            raise KernelError(
                f"vllm: cannot import it ({error.name}), expected the extra `vllm` installed"
            ) from None
        self._version, self._dtype = vllm.__version__, config.dtype
        self._blocks = -(-config.kv_pages * PAGE_SIZE // BLOCK)
        try:
            self._engine: Any = LLMEngine.from_engine_args(
                EngineArgs(
                    model=str(folder.path),
                    dtype=_DTYPES[config.dtype],
                    load_format="safetensors",
                    trust_remote_code=False,
                    max_model_len=max_len,
                    max_num_seqs=config.max_batch,
                    max_num_batched_tokens=max(config.step_budget, config.max_batch),
                    block_size=BLOCK,
                    num_gpu_blocks_override=self._blocks + 1,  # one is vLLM's own
                    enable_prefix_caching=config.prefix_cache,
                    scheduling_policy="priority",
                    structured_outputs_config={"backend": "guidance"},
                    enforce_eager=True,  # compiling starts a compiler, which the sandbox refuses
                    disable_log_stats=True,
                ),
                enable_multiprocessing=False,
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(f"vllm {self._version}: {str(error)[:200]}") from None
        self._eos = sorted(folder.eos)
        self._scopes = PrefixCache(secrets.token_bytes(32))
        self._sequences: dict[str, Sequence] = {}
        self._internal: dict[str, str] = {}
        self._steps = self._computed = self._hits = self._hit_tokens = self._errors = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._sequences

    def check(self, request: GenerationRequest) -> None:
        """Refuse what vLLM's own checks refuse, such as a temperature above 2."""
        grammar = request.params.grammar
        if grammar is not None and grammar.kind == "calls":
            raise RequestInvalid("tools: found a call to be constrained, which vllm cannot do here")
        if request.adapter:
            raise RequestInvalid("adapter: found one, expected none with back_end vllm")
        try:
            self._params(request.params, 0, request.params.max_tokens)
        except Exception as error:  # its own kinds differ from version to version
            raise RequestInvalid(f"vllm: {str(error)[:200]}") from None

    def add(self, sequence: Sequence) -> None:
        """Hand a sequence to vLLM; a higher weight goes first."""
        request = sequence.request
        prompt = {"prompt_token_ids": list(sequence.tokens), "cache_salt": self._salt(request)}
        most = sequence.limit - sequence.prompt_len
        params = self._params(request.params, sequence.sampler.seed, most)
        self._internal[sequence.id] = self._engine.add_request(
            sequence.id, prompt, params, priority=-request.weight
        )
        self._sequences[sequence.id] = sequence

    def remove(self, sequence: Sequence, *, faulty: bool = False) -> None:
        """Abort a sequence; twice is harmless."""
        if self._sequences.pop(sequence.id, None) is not None:
            self._engine.abort_request([self._internal.pop(sequence.id)], internal=True)
        if faulty:
            self._engine.reset_prefix_cache()

    def step(self) -> list[Result]:
        """Step vLLM once."""
        self._steps += 1
        try:
            outputs = self._engine.step()
        except Exception as error:
            self._errors += 1
            _log.error("vllm step failed: %s", type(error).__name__)
            return [(sequence, [None]) for sequence in self._sequences.values()]
        return [
            self._result(self._sequences[output.request_id], output)
            for output in outputs
            if output.request_id in self._sequences
        ]

    def levels(self) -> Levels:
        """Counters and levels; pages are of vLLM's size, counted in ours."""
        scheduler = self._engine.engine_core.engine_core.scheduler
        free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        waiting = len(scheduler.waiting)
        pages = BLOCK // PAGE_SIZE
        return Levels(
            running=len(self._sequences) - waiting,
            waiting=waiting,
            free_pages=free * pages,  # cached ones are among them: vLLM takes either
            total_pages=self._blocks * pages,
            steps=self._steps,
            computed_tokens=self._computed,
            hits=self._hits,
            hit_tokens=self._hit_tokens,
            step_errors=self._errors,
        )

    def describe(self) -> dict[str, str]:
        """What computes."""
        return {"engine": f"vllm {self._version}", "dtype": self._dtype, "kernels": "vllm"}

    def close(self) -> None:
        """Forget what is cached."""
        self._engine.reset_prefix_cache()

    def _salt(self, request: GenerationRequest) -> str:
        """Who shares cached pages, as one opaque text."""
        return self._scopes.key(request.scope, b"", b"").hex()

    def _params(self, p: SamplingParams, seed: int, most: int) -> Any:
        """The request's parameters in vLLM's words; ends and text are decided on our side."""
        from vllm.sampling_params import RequestOutputKind
        from vllm.sampling_params import SamplingParams as Theirs

        return Theirs(
            temperature=p.temperature,
            top_p=p.top_p,
            top_k=p.top_k,
            min_p=p.min_p,
            presence_penalty=p.presence_penalty,
            frequency_penalty=p.frequency_penalty,
            repetition_penalty=p.repetition_penalty,
            logit_bias=dict(p.logit_bias) or None,
            seed=seed & _SEED_BITS,
            logprobs=p.logprobs,
            max_tokens=most,
            stop_token_ids=None if p.ignore_eos else self._eos,
            ignore_eos=p.ignore_eos,
            detokenize=False,
            structured_outputs=None if p.grammar is None else _structured(p.grammar),
            output_kind=RequestOutputKind.DELTA,
        )

    def _result(self, sequence: Sequence, output: Any) -> Result:
        """One request's new tokens."""
        (completion,) = output.outputs
        if sequence.generated == 0:
            sequence.cached = output.num_cached_tokens or 0
            self._hits += sequence.cached > 0
            self._hit_tokens += sequence.cached
            self._computed += sequence.prompt_len - sequence.cached
        alternatives = completion.logprobs or [None] * len(completion.token_ids)
        most = sequence.request.params.logprobs
        choices: list[Choice | None] = [
            _choice(token, found, most)
            for token, found in zip(completion.token_ids, alternatives, strict=True)
        ]
        self._computed += len(choices)
        if completion.finish_reason in ("abort", "error"):
            choices.append(None)
        return sequence, choices


def _quiet(threads: int) -> None:
    """vLLM is set up by variables, read when it is imported: no servers, no reports, no chatter."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_NO_USAGE_STATS="1",
        VLLM_DO_NOT_TRACK="1",
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_CPU_OMP_THREADS_BIND=f"0-{threads - 1}",
        HF_HUB_OFFLINE="1",
    )


def _structured(grammar: Grammar) -> Any:
    """A grammar in vLLM's words."""
    from vllm.sampling_params import StructuredOutputsParams

    match grammar.kind:
        case "json_schema":
            return StructuredOutputsParams(json=grammar.source)
        case "json_object":
            return StructuredOutputsParams(json_object=True)
        case "regex":
            return StructuredOutputsParams(regex=grammar.source)
        case "choice":
            return StructuredOutputsParams(choice=json.loads(grammar.source))
        case _:
            return StructuredOutputsParams(grammar=grammar.source)


def _choice(token: int, found: Any, most: int | None) -> Choice:
    """A token with the log-probabilities that vLLM gave, likeliest first."""
    if most is None or found is None:
        return Choice(token)
    ranked = sorted(found.items(), key=lambda item: (item[1].rank, item[0]))[:most]
    return Choice(token, found[token].logprob, tuple((t, p.logprob) for t, p in ranked))

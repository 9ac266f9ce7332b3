"""How the engine is sized. One frozen record, read once by the worker's main; no environment."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

DType = Literal["float32", "bfloat16", "w8a8", "w8a16"]
BackEndName = Literal["anchorhold", "vllm"]
Device = Literal["cpu", "cuda"]
# "auto" and "native" leave the instruction set open; a worker's launcher settles it before it
# measures, so that the attested configuration names what computes.
Kernels = Literal["auto", "native", "native-avx512", "native-generic", "triton", "reference"]

# A CPU attention kernel works on 16 keys at a time (16 fp32 lanes of a 512-bit register), so the
# page is the same: any other size would need shuffles in the kernel that replaces the reference.
PAGE_SIZE = 16

_SIZES = (
    "threads",
    "max_batch",
    "kv_pages",
    "step_budget",
    "max_len",
    "max_waiting",
    "newcomer_weight",
)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes and limits of one engine.

    Attributes:
        back_end: what chooses tokens: this engine, or vLLM behind it, where it is installed.
        dtype: of weights, activations and KV cache; logits are always float32. "w8a8" and "w8a16"
            take a model folder with int8 weights, and activations in 8 or 16 bits.
        kernels: what computes: the compiled library of an instruction set, or torch; on a GPU
            torch with Triton's attention, or torch alone.
        device: that holds weights and pages and computes: the processor, or a GPU through torch.
        threads: torch threads. Never more than the cores left beside the event loop: OpenMP
            barriers collapse on an oversubscribed machine.
        max_batch: sequences running at once.
        kv_pages: pages of `page_size` tokens in the KV pool, reserved at start and touched lazily.
        page_size: tokens a page; 16 is the only supported value.
        step_budget: most tokens computed in one step (decode rows first, then prefill chunks);
            bounds how long a running stream waits behind somebody's long prompt.
        max_len: most tokens of prompt + completion; the model's own context also bounds it.
        max_waiting: requests held beyond the running ones before EngineBusy is raised.
        prefix_cache: whether full pages are kept for requests of the same tenant, salt and adapter.
        newcomer_weight: of a tenant that is not there yet: its share of the pages is nobody else's.
    """

    back_end: BackEndName = "anchorhold"
    dtype: DType = "bfloat16"
    kernels: Kernels = "auto"
    device: Device = "cpu"
    threads: int = 1
    max_batch: int = 32
    kv_pages: int = 2048
    page_size: int = PAGE_SIZE
    step_budget: int = 512
    max_len: int = 8192
    max_waiting: int = 256
    prefix_cache: bool = True
    newcomer_weight: int = 1

    def __post_init__(self) -> None:
        """Refuse impossible sizes where they are written down, not in the middle of a step."""
        for name, allowed in (
            ("back_end", get_args(BackEndName)),
            ("dtype", get_args(DType)),
            ("kernels", get_args(Kernels)),
            ("device", get_args(Device)),
        ):
            if getattr(self, name) not in allowed:
                found = getattr(self, name)
                raise ValueError(f"engine {name}: found {found!r}, expected {' or '.join(allowed)}")
        if self.page_size != PAGE_SIZE:
            raise ValueError(f"engine page_size: found {self.page_size}, expected {PAGE_SIZE}")
        if type(self.prefix_cache) is not bool:
            found = self.prefix_cache
            raise ValueError(f"engine prefix_cache: found {found!r}, expected true or false")
        for name in _SIZES:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"engine {name}: found {value!r}, expected an integer >= 1")
        if self.step_budget < self.max_batch:
            raise ValueError(
                f"engine step_budget: found {self.step_budget}, expected at least max_batch "
                f"({self.max_batch}): every running stream gets one token a step"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EngineConfig":
        """Build from parsed JSON; unknown keys are refused by name (ValueError)."""
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"engine config: found unknown key {unknown[0]!r}, expected {known}")
        return cls(**values)

"""The decoder on compiled kernels: weights packed once, then one C call a step.

A row's result is the same bits whatever else is in the step and however its prompt was cut: the
kernels add each row's products in one order (see ops/native/README.md).
"""

import ctypes
import weakref
from collections.abc import Mapping
from collections.abc import Sequence as Sequence_
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from enclave_worker.engine.config import PAGE_SIZE, EngineConfig
from enclave_worker.engine.errors import KernelError, ModelError
from enclave_worker.engine.ops.abi import Chunk, Form, Layer, Linear, LowRank, Shape, Step, Weights
from enclave_worker.engine.ops.library import Library
from enclave_worker.engine.ops.packing import Arena, lazy_memory, packed_bytes
from enclave_worker.engine.plan import StepPlan

from .adapters import Adapter
from .back_end import Logits
from .config import ModelConfig
from .decoder_weights import DecoderWeights, LayerWeights, LinearWeights
from .rope import rope_tables

FORMS: Final = {"bfloat16": Form.BF16, "w8a8": Form.W8A8, "w8a16": Form.W8A16}


class NativeDecoder:
    """A decoder that turns one step's rows into logits; owned by the engine thread.

    Attributes:
        config: the model's shape.
        page_bytes: memory of one page over all layers.
    """

    def __init__(
        self,
        library: Library,
        model: ModelConfig,
        weights: DecoderWeights,
        config: EngineConfig,
        max_len: int,
    ) -> None:
        """Pack the weights layer by layer, each dropped before the next is read.

        Raises:
            ModelError: tensors missing or misshapen, or weights of another kind than the dtype.
        """
        self.config, self._library, self._dtype = model, library, config.dtype
        if model.quantised != (config.dtype != "bfloat16"):
            found = "int8" if model.quantised else "no int8"
            raise ModelError(
                f"model weights: found {found} weights with engine dtype {config.dtype}, expected "
                f"{'w8a8 or w8a16' if model.quantised else 'bfloat16, or a quantised import'}"
            )
        self._kept: list[torch.Tensor] = []  # what C reads by address beside arena and store
        self._arena = Arena(library, self._packed_bytes())
        embedding, head = self._ends(weights)  # the largest come first, when there is least else
        layers = (Layer * model.layers)(*map(self._layer, weights.layers()))
        cos, sin = rope_tables(model.rope, model.head_dim, max_len)
        self.page_bytes = 4 * model.layers * model.kv_heads * model.head_dim * PAGE_SIZE
        # Zeros that the kernel provides on first use.
        self._store: npt.NDArray[np.uint8] = np.frombuffer(
            lazy_memory(config.kv_pages * self.page_bytes), np.uint8
        ).reshape(config.kv_pages, -1)
        table = Weights(
            layers=ctypes.addressof(layers),
            head=head,
            embedding=embedding,
            norm=self._keep(weights.norm()),
            cos=self._keep(cos),
            sin=self._keep(sin),
            store=self._store.ctypes.data,
        )
        weights.finish()
        shape = Shape(
            layers=model.layers,
            hidden=model.hidden,
            heads=model.heads,
            kv_heads=model.kv_heads,
            head_dim=model.head_dim,
            intermediate=model.intermediate,
            vocab=model.vocab_size,
            positions=max_len,
            pages=config.kv_pages,
            max_rows=config.step_budget,
            threads=config.threads,
            eps=model.norm_eps,
        )
        self._layers = layers
        self._model = library.call["ah_model"](ctypes.addressof(shape), ctypes.addressof(table))
        if self._model is None:
            raise KernelError(
                f"native {library.name} kernels: found a model they cannot compute, or no room"
            )
        self.adapt({})
        # Ends its threads; called before the memory that they read goes.
        weakref.finalize(self, library.call["ah_free"], self._model)

    def adapt(self, adapters: Mapping[str, Adapter]) -> None:
        """Take the adapters that chunks may name: one table of all their products."""
        self._adapters = {name: number for number, name in enumerate(adapters)}
        parts = [part for a in adapters.values() for layer in a for part in layer]
        self._low = (LowRank * len(parts))()
        self._low_kept: list[torch.Tensor] = []
        for slot, part in zip(self._low, parts, strict=True):
            if part is not None:
                a, b = part.a.contiguous(), part.b.T.contiguous()
                self._low_kept += a, b
                slot.a, slot.b, slot.rank = a.data_ptr(), b.data_ptr(), len(a)

    def forward(self, plan: StepPlan, *, whole: bool) -> Logits:
        """Compute one step; see BackEnd."""
        wanted = len(plan.wanted)
        best, finite = np.empty(wanted, np.int32), np.empty(wanted, np.uint8)
        values = torch.empty(wanted, self.config.vocab_size) if whole else None
        self._run(
            plan,
            best=best.ctypes.data,
            finite=finite.ctypes.data,
            logits=None if values is None else values.data_ptr(),
        )
        return Logits(best, finite.view(np.bool_), values)

    def hidden(self, plan: StepPlan) -> torch.Tensor:
        """Compute one step up to the last norm: float32 [wanted, hidden], for embeddings."""
        out = torch.empty(len(plan.wanted), self.config.hidden)
        self._run(plan, hidden=out.data_ptr())
        return out

    def _run(self, plan: StepPlan, **outcome: int | None) -> None:
        """One call: the plan by address, and where the outcome goes."""
        chunks = (Chunk * len(plan.chunks))()
        table: list[int] = []
        for slot, chunk in zip(chunks, plan.chunks, strict=True):
            adapter = self._adapters.get(chunk.adapter, -1)
            if chunk.adapter and adapter < 0:  # leaving it out would answer with other weights
                raise KernelError("native step: found an adapter that is not loaded")
            slot.first, slot.count, slot.start = chunk.first, chunk.count, chunk.start
            slot.pages, slot.adapter = len(table), adapter
            table.extend(chunk.pages[: -(-(chunk.start + chunk.count) // PAGE_SIZE)])
        pages = np.array(table, np.int32)
        adapted = any(chunk.adapter for chunk in plan.chunks)
        step = Step(
            tokens=plan.tokens.ctypes.data,
            chunks=ctypes.addressof(chunks),
            table=pages.ctypes.data,
            wanted=plan.wanted.ctypes.data,
            adapters=ctypes.addressof(self._low) if adapted else None,
            rows=len(plan.tokens),
            chunk_count=len(chunks),
            table_count=len(pages),
            wanted_count=len(plan.wanted),
            adapter_count=len(self._adapters) if adapted else 0,
            **outcome,
        )
        if refusal := self._library.call["ah_step"](self._model, ctypes.addressof(step)):
            raise KernelError(f"native step: found one refused for reason {refusal}, expected none")

    def scrub(self, pages: Sequence_[int]) -> None:
        """Overwrite pages with zeros."""
        self._store[list(pages)] = 0

    def is_clean(self, page: int) -> bool:
        """Whether a page holds nothing but zeros."""
        return not self._store[page].any()

    def describe(self) -> dict[str, str]:
        """What computes."""
        return {
            "dtype": self._dtype,
            "kernels": f"native {self._library.name}",
            "library": self._library.digest,
        }

    def _packed_bytes(self) -> int:
        """Memory of all packed weights."""
        c, form = self.config, FORMS[self._dtype]
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        shapes = (q + 2 * kv, c.hidden), (c.hidden, q), (2 * c.intermediate, c.hidden)
        layer = sum(
            packed_bytes(self._library, form, *shape)
            for shape in (*shapes, (c.hidden, c.intermediate))
        )
        return layer * c.layers + packed_bytes(self._library, Form.BF16, c.vocab_size, c.hidden)

    def _ends(self, weights: DecoderWeights) -> tuple[int | None, Linear]:
        """Keep the embedding, unless it is the head, too (None); pack the head."""
        head, embedding = weights.head(), weights.embedding()
        address = None if head is None else self._keep(embedding)
        return address, self._pack(LinearWeights(embedding if head is None else head, None, None))

    def _layer(self, source: LayerWeights) -> Layer:
        """Pack one layer."""
        norms = (source.query_norm, source.key_norm)
        return Layer(
            qkv=self._pack(source.qkv),
            out=self._pack(source.output),
            gate_up=self._pack(source.gate_up),
            down=self._pack(source.down),
            attention_norm=self._keep(source.attention_norm),
            mlp_norm=self._keep(source.mlp_norm),
            query_norm=None if norms[0] is None else self._keep(norms[0]),
            key_norm=None if norms[1] is None else self._keep(norms[1]),
        )

    def _pack(self, source: LinearWeights) -> Linear:
        """Lay out one product; int8 weights in the form of the dtype, others in bf16."""
        form = Form.BF16 if source.scale is None else FORMS[self._dtype]
        return self._arena.pack(form, source.weight, source.scale, source.bias)

    def _keep(self, tensor: torch.Tensor) -> int:
        """The address of a tensor that lives as long as this decoder."""
        self._kept.append(tensor.contiguous())
        return self._kept[-1].data_ptr()

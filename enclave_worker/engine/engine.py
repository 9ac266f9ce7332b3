"""The engine: requests in from any thread, events out of one thread that owns torch.

The loop reads: take what has come in, schedule, run, deliver. Between steps requests join, leave
and are cancelled; with nothing to do the thread sleeps on a condition.
"""

import logging
import secrets
import threading
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import torch

from .config import PAGE_SIZE, EngineConfig
from .core import Core, Levels
from .errors import EngineBusy, EngineStopped, ModelError, RequestInvalid, RequestTooLong
from .events import Finish, TokenEvent
from .models.adapter_folder import REFUSED, list_adapters
from .models.folder import ModelFolder
from .runner import Runner
from .sampling.grammar import Grammars
from .sampling.speculation import Drafter
from .sampling.state import SamplerState
from .sequence import GenerationRequest, Sequence
from .stream import OnEvent, Stream
from .templates import ChatTemplate
from .tokenizer import Tokenizer
from .warmup import warm_up

_log = logging.getLogger(__name__)

# Answers of one request: each takes a place in the batch, and one receipt names them all.
ANSWERS_MAX = 8


@dataclass(frozen=True, slots=True)
class EngineStats(Levels):
    """The core's counters and levels, and what the engine itself counts.

    Attributes:
        sampled_tokens: tokens generated.
    """

    sampled_tokens: int = 0


class Engine:
    """A model that answers many requests at once.

    Attributes:
        config: sizes.
        folder: what the model folder's JSON says.
        tokenizer: the model's.
        template: the model's chat template, or None where it has none.
        adapters: by name, those of the folder, and who may use each.
        max_len: most tokens of prompt + completion.
    """

    def __init__(self, model_dir: Path, config: EngineConfig) -> None:
        """Read the folder's JSON; raises ModelError or TemplateError. No weights yet."""
        self.config = config
        self.folder = ModelFolder.read(model_dir)
        self.adapters = list_adapters(model_dir)
        self.tokenizer = Tokenizer(self.folder.tokenizer_json)
        self._grammars: Grammars | None = None
        source = self.folder.template
        self.template = None if source is None else ChatTemplate(source, self.folder.special)
        positions = self.folder.config.max_positions
        self.max_len = min(config.max_len, positions, config.kv_pages * PAGE_SIZE)
        self._wake = threading.Condition()
        self._streams: dict[str, Stream] = {}
        self._inbox: list[Stream] = []
        self._cancelled: set[str] = set()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loaded = threading.Event()
        self._failure: BaseException | None = None
        self._core: Core | None = None
        self._sampled = 0

    # ------------------------------------------------------------ any thread

    def start(self) -> None:
        """Start the engine thread and load the weights on it; raises ModelError."""
        if self._thread is not None:
            raise RuntimeError("engine: found it started already")
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._thread.start()
        try:  # while the weights load
            self._grammars = Grammars(
                self.folder.tokenizer_json, self.folder.config.vocab_size, self.folder.eos
            )
        except ModelError:
            _log.warning("engine: found a tokenizer that cannot be constrained by grammars")
        self._loaded.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def warm_up(self) -> None:
        """Run every kind of step once; afterwards no file is opened and no thread is made."""
        warm_up(self)

    def submit(self, request: GenerationRequest, on_event: OnEvent) -> None:
        """Queue a request.

        Args:
            request: what to generate.
            on_event: called on the engine thread with each TokenEvent; must not block.

        Raises:
            EngineStopped: not started, or stopped.
            EngineBusy: max_batch + max_waiting answers are held already.
            RequestTooLong: prompt + max_tokens exceed `max_len`.
            RequestInvalid: no tokens, unknown tokens, too many answers, an id in use, or an
                adapter that is not there or not the tenant's.
        """
        streams = [
            Stream(sequence, on_event, self.tokenizer, self.folder.eos)
            for sequence in self._sequences(request)
        ]
        streams[0].followers = streams[1:]
        limit = self.config.max_batch + self.config.max_waiting
        with self._wake:
            if self._stopping or not self._loaded.is_set() or self._failure is not None:
                raise EngineStopped("engine: found it not running")
            if any(s.sequence.request.id == request.id for s in self._streams.values()):
                raise RequestInvalid("engine request id: found one that is in use")
            if len(self._streams) + len(streams) > limit:
                found = f"{len(self._streams)} answers held and {len(streams)} more"
                raise EngineBusy(f"engine: found {found}, expected at most {limit}")
            self._streams.update((stream.sequence.id, stream) for stream in streams)
            self._inbox.append(streams[0])
            self._wake.notify()

    def cancel(self, request_id: str) -> None:
        """Have a request leave before the next step; unknown or finished ids are ignored."""
        with self._wake:
            if any(s.sequence.request.id == request_id for s in self._streams.values()):
                self._cancelled.add(request_id)
                self._wake.notify()

    def stop(self) -> None:
        """Cancel everything, free the model and join the thread. May be called again."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def stats(self) -> EngineStats:
        """Return counters and levels as of about now."""
        core = self._core
        levels = Levels(total_pages=self.config.kv_pages) if core is None else core.levels()
        counts = asdict(levels) | {"waiting": levels.waiting + len(self._inbox)}
        return EngineStats(**counts, sampled_tokens=self._sampled)

    def describe(self) -> dict[str, str]:
        """What computes, for the attested record; of a started engine."""
        return {} if self._core is None else self._core.describe()

    def _sequences(self, request: GenerationRequest) -> list[Sequence]:
        """Check a request and make the running state of its answers."""
        prompt, params = request.prompt_tokens, request.params
        vocab = self.folder.config.vocab_size
        if not prompt or not all(type(t) is int and 0 <= t < vocab for t in prompt):
            raise RequestInvalid(f"prompt tokens: expected one or more, each from 0 to {vocab - 1}")
        total = len(prompt) + params.max_tokens
        if total > self.max_len:
            raise RequestTooLong(
                f"request length: found {len(prompt)} prompt tokens and max_tokens "
                f"{params.max_tokens}, expected at most {self.max_len} together"
            )
        if not 1 <= request.n <= ANSWERS_MAX:
            raise RequestInvalid(f"n: found {request.n}, expected 1 to {ANSWERS_MAX}")
        seed = secrets.randbits(64) if params.seed is None else params.seed
        params.check_vocabulary(vocab)
        if request.adapter:
            if request.adapter not in self.adapters:
                raise RequestInvalid(REFUSED)
            self.adapters[request.adapter].check(request.tenant)
        if self._core is not None:
            self._core.check(request)
        return [self._answer(request, i, answer_seed(seed, i), total) for i in range(request.n)]

    def _answer(self, request: GenerationRequest, index: int, seed: int, limit: int) -> Sequence:
        """The running state of one of a request's answers."""
        params, tokens = request.params, list(request.prompt_tokens)
        matcher = None
        if params.grammar is not None:
            if self._grammars is None:
                raise RequestInvalid("grammar: found a tokenizer that cannot be constrained")
            matcher = self._grammars.compile(params.grammar)
        sampler = SamplerState(params, seed, tokens, matcher)
        drafter = Drafter(tokens, matcher) if params.speculate else None
        return Sequence(request, sampler, tokens, len(tokens), limit, index=index, drafter=drafter)

    # ------------------------------------------------------------ the engine thread

    def _main(self) -> None:
        """Load, then loop until stopped."""
        torch.set_num_threads(self.config.threads)
        with torch.inference_mode():
            try:
                self._core = core = self._make_core()
            except BaseException as error:
                self._failure = error
                return
            finally:
                self._loaded.set()
            try:
                while self._take_in(core):
                    self._step(core)
            finally:
                self._end_all()
                core.close()

    def _make_core(self) -> Core:
        """Load the model onto the core that the configuration names."""
        if self.config.back_end == "vllm":
            from .vllm_core import VllmCore  # takes seconds, and is not always installed

            return VllmCore(self.folder, self.config, self.max_len)
        return Runner(self.folder, self.config, self.max_len)

    def _end_all(self) -> None:
        """End what is still held: cancelled when stopping was asked for, failed otherwise."""
        with self._wake:
            finish: Finish = "cancelled" if self._stopping else "error"
            self._stopping = True
            self._inbox.clear()
            streams = list(self._streams.values())
        for stream in streams:
            self._deliver(stream, stream.end(finish))

    def _take_in(self, core: Core) -> bool:
        """Sleep until there is work; let requests join and leave. False when stopping."""
        with self._wake:
            while core.idle and not (self._inbox or self._cancelled or self._stopping):
                self._wake.wait()
            if self._stopping:
                return False
            joining, self._inbox = self._inbox, []
            streams = self._streams.values() if self._cancelled else ()
            leaving = [s for s in streams if s.sequence.request.id in self._cancelled]
            self._cancelled.clear()
        for stream in joining:
            self._join(core, stream)
        for stream in leaving:
            self._deliver(stream, stream.end("cancelled"))
        return True

    def _step(self, core: Core) -> None:
        """Run a step and deliver what it gave."""
        for sequence, choices in core.step():
            stream = self._streams[sequence.id]
            good = [choice for choice in choices if choice is not None]
            try:
                event = stream.accept(good)
            except Exception as error:
                _log.error("engine text failed: %s", type(error).__name__)
                self._fail(sequence)
                continue
            self._sampled += len(good)
            if len(good) < len(choices) and (event is None or event.finish is None):
                self._fail(sequence)
                continue
            followers, stream.followers = stream.followers, []
            self._begin(followers)
            self._deliver(stream, event)

    def _fail(self, sequence: Sequence) -> None:
        """End one request with an error that carries nothing."""
        stream = self._streams[sequence.id]
        self._deliver(stream, stream.end("error"))

    def _deliver(self, stream: Stream, event: TokenEvent | None) -> None:
        """Tell the listener; pages are free before it hears of the end."""
        if event is None:
            return
        if event.finish is not None:
            self._release(stream, faulty=event.finish == "error")
        try:
            stream.on_event(event)
        except Exception as error:
            _log.error("engine listener failed: %s", type(error).__name__)
            if event.finish is None:
                self._release(stream)

    def _begin(self, followers: list[Stream]) -> None:
        """The first answer has read the prompt, or is gone: the others may join."""
        if self._core is not None:
            for stream in followers:
                if stream.sequence.id in self._streams:
                    self._join(self._core, stream)

    def _join(self, core: Core, stream: Stream) -> None:
        """Hand a sequence to the core; one that it cannot take ends by itself."""
        try:
            core.add(stream.sequence)
        except Exception as error:
            _log.error("engine: found a sequence that cannot be run: %s", type(error).__name__)
            self._deliver(stream, stream.end("error"))

    def _release(self, stream: Stream, *, faulty: bool = False) -> None:
        """Forget an answer and free its pages."""
        followers, stream.followers = stream.followers, []
        self._begin(followers)
        if self._core is not None:
            self._core.remove(stream.sequence, faulty=faulty)
        with self._wake:
            self._streams.pop(stream.sequence.id, None)


def answer_seed(seed: int, index: int) -> int:
    """The seed of a request's answer number `index`; the first has the request's own."""
    if not index:
        return seed
    counter = seed.to_bytes(8, "little") + index.to_bytes(8, "little")
    return int.from_bytes(blake2b(counter, digest_size=8, person=b"answer").digest(), "little")

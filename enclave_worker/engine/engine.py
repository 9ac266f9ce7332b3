"""The engine: requests in from any thread, events out of one thread that owns torch.

The loop reads: take what has come in, schedule, run, deliver. Between steps requests join, leave
and are cancelled; with nothing to do the thread sleeps on a condition.
"""

import logging
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from .config import PAGE_SIZE, EngineConfig
from .errors import EngineBusy, EngineStopped, RequestInvalid, RequestTooLong
from .events import Finish, TokenEvent
from .models.folder import ModelFolder
from .runner import Runner
from .scheduler import Scheduler
from .sequence import GenerationRequest, Sequence
from .stream import OnEvent, Stream
from .templates import ChatTemplate
from .tokenizer import Tokenizer
from .warmup import warm_up

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters and levels, free of content.

    Attributes:
        running: sequences with pages.
        waiting: sequences without.
        free_pages: of `total_pages`.
        total_pages: of the KV pool.
        steps: steps run since start.
        computed_tokens: rows computed: prompts, recomputed tokens and decoding.
        sampled_tokens: tokens generated.
        preemptions: sequences sent back to the line for want of pages.
        step_errors: steps that failed as a whole.
    """

    running: int
    waiting: int
    free_pages: int
    total_pages: int
    steps: int
    computed_tokens: int
    sampled_tokens: int
    preemptions: int
    step_errors: int


class Engine:
    """A model that answers many requests at once.

    Attributes:
        config: sizes.
        folder: what the model folder's JSON says.
        tokenizer: the model's.
        template: the model's chat template, or None where it has none.
        max_len: most tokens of prompt + completion.
    """

    def __init__(self, model_dir: Path, config: EngineConfig) -> None:
        """Read the folder's JSON; raises ModelError or TemplateError. No weights yet."""
        self.config = config
        self.folder = ModelFolder.read(model_dir)
        self.tokenizer = Tokenizer(self.folder.tokenizer_json)
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
        self._runner: Runner | None = None
        self._scheduler: Scheduler | None = None
        self._steps = self._computed = self._sampled = self._step_errors = 0

    # ------------------------------------------------------------ any thread

    def start(self) -> None:
        """Start the engine thread and load the weights on it; raises ModelError."""
        if self._thread is not None:
            raise RuntimeError("engine: found it started already")
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._thread.start()
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
            EngineBusy: max_batch + max_waiting requests are held already.
            RequestTooLong: prompt + max_tokens exceed `max_len`.
            RequestInvalid: no tokens, unknown tokens, or an id in use.
        """
        stream = Stream(self._sequence(request), on_event, self.tokenizer, self.folder.eos)
        limit = self.config.max_batch + self.config.max_waiting
        with self._wake:
            if self._stopping or not self._loaded.is_set() or self._failure is not None:
                raise EngineStopped("engine: found it not running")
            if request.id in self._streams:
                raise RequestInvalid("engine request id: found one that is in use")
            if len(self._streams) >= limit:
                raise EngineBusy(f"engine: found {limit} requests held, which is the limit")
            self._streams[request.id] = stream
            self._inbox.append(stream)
            self._wake.notify()

    def cancel(self, request_id: str) -> None:
        """Have a request leave before the next step; unknown or finished ids are ignored."""
        with self._wake:
            if request_id in self._streams:
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
        runner, scheduler = self._runner, self._scheduler
        pages = self.config.kv_pages
        return EngineStats(
            running=len(scheduler.running) if scheduler else 0,
            waiting=len(scheduler.waiting) + len(self._inbox) if scheduler else 0,
            free_pages=runner.pool.free if runner else pages,
            total_pages=pages,
            steps=self._steps,
            computed_tokens=self._computed,
            sampled_tokens=self._sampled,
            preemptions=scheduler.preemptions if scheduler else 0,
            step_errors=self._step_errors,
        )

    def _sequence(self, request: GenerationRequest) -> Sequence:
        """Check a request and make its running state."""
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
        seed = secrets.randbits(64) if params.seed is None else params.seed
        return Sequence(request, seed, list(prompt), len(prompt), total)

    # ------------------------------------------------------------ the engine thread

    def _main(self) -> None:
        """Load, then loop until stopped."""
        torch.set_num_threads(self.config.threads)
        with torch.inference_mode():
            try:
                self._runner = runner = Runner(self.folder, self.config, self.max_len)
                self._scheduler = scheduler = Scheduler(
                    runner.pool,
                    max_batch=self.config.max_batch,
                    step_budget=self.config.step_budget,
                )
            except BaseException as error:
                self._failure = error
                return
            finally:
                self._loaded.set()
            try:
                while self._take_in(scheduler):
                    self._step(runner, scheduler)
            finally:
                self._end_all()

    def _end_all(self) -> None:
        """End what is still held: cancelled when stopping was asked for, failed otherwise."""
        with self._wake:
            finish: Finish = "cancelled" if self._stopping else "error"
            self._stopping = True
            self._inbox.clear()
            streams = list(self._streams.values())
        for stream in streams:
            self._deliver(stream, stream.end(finish))

    def _take_in(self, scheduler: Scheduler) -> bool:
        """Sleep until there is work; let requests join and leave. False when stopping."""
        with self._wake:
            while scheduler.idle and not (self._inbox or self._cancelled or self._stopping):
                self._wake.wait()
            if self._stopping:
                return False
            joining, self._inbox = self._inbox, []
            leaving = [self._streams[i] for i in self._cancelled if i in self._streams]
            self._cancelled.clear()
        for stream in joining:
            scheduler.add(stream.sequence)
        for stream in leaving:
            self._deliver(stream, stream.end("cancelled"))
        return True

    def _step(self, runner: Runner, scheduler: Scheduler) -> None:
        """Schedule, run, deliver."""
        work = scheduler.schedule()
        if not work:
            return
        self._steps += 1
        try:
            results = runner.run(work)
        except Exception as error:
            self._step_errors += 1
            _log.error("engine step failed: %s", type(error).__name__)
            for item in work:
                self._fail(item.sequence)
            return
        self._computed += sum(item.count for item in work)
        for sequence, token in results:
            if token is None:
                _log.error("engine: found logits that are not finite")
                self._fail(sequence)
                continue
            stream = self._streams[sequence.id]
            try:
                event = stream.accept(token)
            except Exception as error:
                _log.error("engine text failed: %s", type(error).__name__)
                self._fail(sequence)
                continue
            self._sampled += 1
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
            self._release(stream)
        try:
            stream.on_event(event)
        except Exception as error:
            _log.error("engine listener failed: %s", type(error).__name__)
            if event.finish is None:
                self._release(stream)

    def _release(self, stream: Stream) -> None:
        """Forget a request and free its pages."""
        if self._scheduler is not None:
            self._scheduler.remove(stream.sequence)
        with self._wake:
            self._streams.pop(stream.sequence.id, None)

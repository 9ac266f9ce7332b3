"""One answer being written: tokens in, events out, until something ends it."""

from collections.abc import Callable
from collections.abc import Sequence as Sequence_

from .events import Finish, TokenEvent, Usage
from .sampling.choice import Choice
from .sequence import Sequence
from .stops import StopFilter
from .tokenizer import Detokenizer, Tokenizer

OnEvent = Callable[[TokenEvent], None]


class Stream:
    """The writing side of one request.

    Attributes:
        sequence: what is being generated.
        on_event: whom to tell.
        followers: the request's other answers, which begin when this one has read the prompt and
            find it in the prefix cache.
    """

    def __init__(
        self, sequence: Sequence, on_event: OnEvent, tokenizer: Tokenizer, eos: frozenset[int]
    ) -> None:
        """Start before the first token."""
        self.sequence = sequence
        self.on_event = on_event
        self.followers: list[Stream] = []
        self._eos = eos
        self._detokenizer = Detokenizer(tokenizer, sequence.tokens)
        self._stops = StopFilter(sequence.request.params.stop)
        self._unreported: list[Choice] = []

    def accept(self, choices: Sequence_[Choice]) -> TokenEvent | None:
        """Take the next tokens; return an event if they complete text or the answer."""
        sequence, text = self.sequence, ""
        for choice in choices:
            sequence.tokens.append(choice.token)
            self._unreported.append(choice)
            if choice.token in self._eos and not sequence.request.params.ignore_eos:
                return self.end("stop", text)
            text += self._stops.push(self._detokenizer.push(choice.token))
            if self._stops.hit:
                return self._event(text, "stop")
            if len(sequence.tokens) >= sequence.limit:
                return self.end("length", text)
        return self._event(text, None) if text else None

    def end(self, finish: Finish, text: str = "") -> TokenEvent:
        """Return the last event, with what was held back unless a stop string swallowed it.

        A cancelled or failed answer gives up its tail: nobody reads on.
        """
        if finish in ("stop", "length"):
            text += self._stops.push(self._detokenizer.flush())
            if self._stops.hit:
                finish = "stop"
            text += self._stops.flush()
        return self._event(text, finish)

    def _event(self, text: str, finish: Finish | None) -> TokenEvent:
        """Build an event and account for its tokens."""
        choices, self._unreported = tuple(self._unreported), []
        usage = None
        if finish is not None:
            usage = Usage(self.sequence.prompt_len, self.sequence.generated, self.sequence.cached)
        stop = None if finish is None else self._stops.which
        request, index = self.sequence.request, self.sequence.index
        tokens = len(choices)
        return TokenEvent(request.id, text, tokens, finish, usage, index, choices, stop)

"""Text to token ids and back, and back piece by piece while an answer is being written."""

from collections.abc import Sequence as Sequence_

import tokenizers

from .errors import ModelError

# What a decoder puts where bytes do not make up a character, yet or ever.
_REPLACEMENT = "\ufffd"
# Tokens of the prompt's end that give the first piece its context: decoders that drop a leading
# space would otherwise drop it from the answer's first word.
_CONTEXT = 4
# A character is at most 4 bytes and a token at least one, so a longer stretch without any whole
# character is not UTF-8 in the making and is let go, which bounds the work of a token.
_UNDECIDED_MAX = 16


class Tokenizer:
    """The model's tokenizer."""

    def __init__(self, source: str) -> None:
        """Read tokenizer.json; raises ModelError."""
        try:
            self._inner = tokenizers.Tokenizer.from_str(source)
        except Exception as error:
            raise ModelError(f"model file tokenizer.json: {type(error).__name__}") from None
        self._inner.no_padding()
        self._inner.no_truncation()
        self._added = frozenset(self._inner.get_added_tokens_decoder())
        self._byte_level = "ByteLevel" in repr(self._inner.decoder)

    @property
    def vocab_size(self) -> int:
        """Known tokens, special ones included."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text; `special` adds what the tokenizer puts around a text (BOS).

        A rendered chat template already contains its special tokens: leave `special` off there.
        """
        return list(self._inner.encode(text, add_special_tokens=special).ids)

    def piece(self, token: int) -> tuple[str, str]:
        """A token's vocabulary entry, and how the decoder reads it: text, bytes or pieces."""
        entry = str(self._inner.id_to_token(token) or "")
        if token in self._added:
            return entry, "text"
        return entry, "bytes" if self._byte_level else "pieces"

    def decode(self, tokens: Sequence_[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self._inner.decode(tokens, skip_special_tokens=True))


class Detokenizer:
    """Text of an answer, token by token; an incomplete character is held back until it is whole."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence_[int]) -> None:
        """Start after the prompt, whose end is context and never comes out."""
        self._tokenizer = tokenizer
        self._window = list(prompt[-_CONTEXT:])
        self._undecided = 0
        self._shown = tokenizer.decode(self._window)
        if self._shown.endswith(_REPLACEMENT):
            # A prompt cut inside a character is no context: the answer's bytes are the answer's.
            self._window, self._shown = [], ""

    def push(self, token: int) -> str:
        """Return the text this token completes, which may be empty."""
        self._window.append(token)
        self._undecided += 1
        text = self._tokenizer.decode(self._window)
        if text.endswith(_REPLACEMENT) and self._undecided <= _UNDECIDED_MAX:
            # Only the end can still change (some decoders show one sign for each byte of it).
            text, whole = text.rstrip(_REPLACEMENT), False
        else:
            whole = True
        new = text[len(self._shown) :]
        if len(text) > len(self._shown):
            self._shown = text
        if whole:
            self._window = self._window[-self._undecided :]
            self._undecided = 0
            self._shown = self._tokenizer.decode(self._window)
        return new

    def flush(self) -> str:
        """Return what is still held back, as the tokenizer shows incomplete bytes."""
        return self._tokenizer.decode(self._window)[len(self._shown) :]

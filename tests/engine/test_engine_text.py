"""Text comes out whole: no broken characters, no part of a stop string, whatever the tokens."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM

from enclave_worker.engine.errors import ModelError
from enclave_worker.engine.stops import StopFilter
from enclave_worker.engine.tokenizer import Detokenizer, Tokenizer

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
TEXTS = (
    "plain words, and some more.",
    "na\u00efve \u4e2d\u6587\u5b57 \u0440\u0443\u0441\u0441\u043a\u0438\u0439",
    f"emoji \U0001f600 and {FAMILY} and flags \U0001f1eb\U0001f1f7!",
    "  leading and  double spaces\n\n\tand tabs ",
    "\ufffd a real replacement character \ufffd",
)


@pytest.fixture(scope="module")
def byte_level(tiny: tuple[Path, LlamaForCausalLM]) -> Tokenizer:
    """Byte-level BPE that has seen no emoji: each is several tokens."""
    return Tokenizer((tiny[0] / "tokenizer.json").read_text())


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    """A vocabulary in the style of Llama 2: spaces as a sign, unknown bytes as tokens."""
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    words += ["\u2581", "\u2581he", "llo", "h", "e", "l", "o", "\u2581wor", "ld", "w", "r", "d"]
    inner = HfTokenizer(
        models.BPE(
            vocab={word: index for index, word in enumerate(words)},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return Tokenizer(inner.to_str())


def written(tokenizer: Tokenizer, tokens: list[int], prompt: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt)
    return [detokenizer.push(token) for token in tokens] + [detokenizer.flush()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text(text: str, byte_level: Tokenizer) -> None:
    tokens = byte_level.encode(text)
    pieces = written(byte_level, tokens, byte_level.encode("a prompt\n"))
    assert "".join(pieces) == text
    assert pieces[-1] == ("\ufffd" if text.endswith("\ufffd") else "")


def test_an_emoji_of_several_tokens_comes_out_whole(byte_level: Tokenizer) -> None:
    tokens = byte_level.encode("\U0001f600")
    assert len(tokens) == 4
    assert written(byte_level, tokens, [])[:4] == ["", "", "", "\U0001f600"]


def test_an_incomplete_character_appears_only_at_the_end(byte_level: Tokenizer) -> None:
    tokens = byte_level.encode("ok \U0001f600")[:-1]
    pieces = written(byte_level, tokens, [])
    assert "".join(pieces[:-1]) == "ok "
    assert pieces[-1] == "\ufffd"


@settings(deadline=None)
@given(tokens=st.lists(st.integers(3, 330), max_size=40), prompt=st.lists(st.integers(3, 330)))
def test_any_tokens_give_what_decoding_them_at_once_gives(
    tokens: list[int], prompt: list[int], byte_level: Tokenizer
) -> None:
    """Also for bytes that never make a character."""
    whole = byte_level.decode(tokens)
    found = "".join(written(byte_level, tokens, prompt))
    if "\ufffd" * 2 not in whole:  # long runs of broken bytes may be cut into other pieces
        assert found == whole


def test_long_garbage_does_not_pile_up(byte_level: Tokenizer) -> None:
    broken = byte_level.encode("\u00e9")[1]  # a continuation byte on its own
    detokenizer = Detokenizer(byte_level, [])
    for _ in range(500):
        detokenizer.push(broken)
        assert len(detokenizer._window) < 40


@pytest.mark.parametrize("text", ["hello world", "hello \U0001f600 world", "w\u00e9rd"])
def test_sentencepiece_answers_keep_their_first_space(text: str, sentencepiece: Tokenizer) -> None:
    prompt = sentencepiece.encode("hello")
    tokens = sentencepiece.encode(text)  # begins with the sign for a space
    assert "".join(written(sentencepiece, tokens, prompt)) == f" {text}"


def test_special_tokens_never_show(byte_level: Tokenizer) -> None:
    tokens = [*byte_level.encode("a"), 1, 2, *byte_level.encode("b")]
    assert "".join(written(byte_level, tokens, [])) == "ab"


def test_a_broken_tokenizer_file_is_named_without_its_content() -> None:
    with pytest.raises(ModelError, match=r"^model file tokenizer.json: \w+$"):
        Tokenizer(json.dumps({"version": "1.0", "model": {"type": "secret"}}))


@settings(deadline=None, max_examples=300)
@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
    data=st.data(),
)
def test_stop_filter_does_not_depend_on_how_text_is_cut(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    expected = text[: min(ends)[1]] if ends else text
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)) | {0, len(text)})
    watched = StopFilter(stops)
    shown = ""
    for start, end in pairwise(cuts):
        shown += watched.push(text[start:end])
        assert expected.startswith(shown)  # nothing of a stop string is ever out
    assert watched.hit == bool(ends)
    assert shown + watched.flush() == expected


def test_a_stop_string_across_pieces_does_not_leak() -> None:
    watched = StopFilter(["</answer>"])
    assert [watched.push(p) for p in ("yes</", "answ", "er", "> no")] == ["yes", "", "", ""]
    assert watched.hit
    assert watched.push("more") == ""


def test_what_only_looked_like_a_stop_string_comes_out() -> None:
    watched = StopFilter(["</answer>"])
    assert watched.push("a </answ") == "a "
    assert watched.push("ung") == "</answung"
    assert watched.push(" <") == " "
    assert watched.flush() == "<"
    assert not watched.hit

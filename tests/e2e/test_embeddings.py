"""A model that makes vectors, from its folder to the unmodified openai package."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
import torch
from simulators.encoders import random_minilm
from simulators.whole_service import MODEL, running
from tokenizers import Tokenizer
from transformers import BertModel

from anchorhold import Client, Options, SealedTransport, parse_policy, verify_bundle
from ops.model_import import import_model
from ops.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(180)]
TEXTS = ["a sealed text", "numbers 0 1 2 3 4 5 6 7 8 9 in words", "a", "the lazy dog " * 4]
LONGEST = 40


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BertModel]:
    folder = tmp_path_factory.mktemp("source") / "mini"
    folder.mkdir()
    return folder, random_minilm(folder, LONGEST)


@pytest.fixture(scope="module")
def embedding(
    source: tuple[Path, BertModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack whose one worker serves what was imported, a few texts a batch."""
    root = tmp_path_factory.mktemp("s")
    import_model(str(source[0]), root / "model")
    with running(root, root / "model", engine={"step_budget": 64}) as started:
        yield started


def unmodified(stack: Stack, state: Path) -> openai.OpenAI:
    deployment = stack.config.deployment
    transport = SealedTransport(deployment.tenant_policy, options=Options(state_dir=state))
    return openai.OpenAI(
        base_url=f"{stack.url}/v1", api_key=deployment.api_key, max_retries=0,
        http_client=httpx2.Client(transport=transport),
    )  # fmt: skip


@pytest.fixture
def package(embedding: Stack, tmp_path: Path) -> Iterator[openai.OpenAI]:
    with unmodified(embedding, tmp_path / "state") as made:
        yield made


@pytest.fixture(scope="module")
def tokens(source: tuple[Path, BertModel]) -> list[list[int]]:
    """What the model reads of each text: all of it, and nothing behind it."""
    tokenizer = Tokenizer.from_file(str(source[0] / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = [list(tokenizer.encode(text).ids) for text in TEXTS]
    assert 16 < max(map(len, found)) <= LONGEST
    return found


@pytest.fixture(scope="module")
def expected(source: tuple[Path, BertModel], tokens: list[list[int]]) -> torch.Tensor:
    """Each text's vector by transformers."""
    with torch.inference_mode():
        states = [source[1](torch.tensor([ids])).last_hidden_state[0] for ids in tokens]
        return torch.stack([torch.nn.functional.normalize(s.mean(0), dim=0) for s in states])


def test_vectors_are_transformers_own_however_they_are_asked_for(
    package: openai.OpenAI, tokens: list[list[int]], expected: torch.Tensor
) -> None:
    plain = package.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    packed = package.embeddings.create(model=MODEL, input=TEXTS, encoding_format="base64")
    usual = package.embeddings.create(model=MODEL, input=TEXTS)  # the package asks for base64
    read = package.embeddings.create(model=MODEL, input=tokens)
    assert isinstance(packed.data[0].embedding, str)
    for found in (plain, usual, read):
        vectors = torch.tensor([row.embedding for row in found.data])
        assert [row.index for row in found.data] == [0, 1, 2, 3]
        assert (vectors - expected).abs().max() < 1e-4
    # Nine digits of a float32 are all of it.
    exact = [torch.tensor([row.embedding for row in found.data]) for found in (plain, usual)]
    assert torch.equal(*exact)
    count = sum(map(len, tokens))
    for found in (plain, packed, usual, read):
        assert (found.usage.prompt_tokens, found.usage.total_tokens) == (count, count)


def test_one_text_and_one_list_of_tokens_are_one_vector(
    package: openai.OpenAI, tokens: list[list[int]], expected: torch.Tensor
) -> None:
    for asked in (TEXTS[1], tokens[1]):
        (row,) = package.embeddings.create(model=MODEL, input=asked).data
        assert (torch.tensor(row.embedding) - expected[1]).abs().max() < 1e-4


def test_what_the_model_cannot_do_is_refused_inside_the_envelope(package: openai.OpenAI) -> None:
    long = "a b " * LONGEST
    with pytest.raises(openai.BadRequestError, match=rf"input\[1\]: .* expected 1 to {LONGEST}"):
        package.embeddings.create(model=MODEL, input=["a", long])
    with pytest.raises(openai.BadRequestError, match="token id"):
        package.embeddings.create(model=MODEL, input=[10**6])
    with pytest.raises(openai.NotFoundError, match="makes only embeddings") as chat:
        package.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hello"}], max_tokens=1
        )
    assert chat.value.code == "unsupported_operation"
    with pytest.raises(openai.NotFoundError, match="makes only embeddings"):
        package.completions.create(model=MODEL, prompt="hello", max_tokens=1)
    assert len(package.embeddings.create(model=MODEL, input="still there").data) == 1


def test_a_model_of_text_refuses_to_embed(stack: Stack, tmp_path: Path) -> None:
    with (
        unmodified(stack, tmp_path / "state") as package,
        pytest.raises(openai.NotFoundError, match="makes no embeddings"),
    ):
        package.embeddings.create(model=MODEL, input="hello")


def test_the_receipt_names_what_computed_and_verifies_offline(
    embedding: Stack, tokens: list[list[int]], tmp_path: Path
) -> None:
    deployment = embedding.config.deployment
    with Client(
        embedding.url, deployment.api_key, policy=deployment.tenant_policy,
        options=Options(state_dir=tmp_path / "state"),
    ) as client:  # fmt: skip
        receipt = client.request("/v1/embeddings", {"model": MODEL, "input": TEXTS}).receipt
    assert receipt is not None
    claims = receipt.claims
    assert (claims["op"], claims["finish"]) == ("embed", "stop")
    assert claims["model"]["dtype"] == "float32"
    assert claims["eng"]["version"].endswith("+reference")
    assert claims["eng"]["det"] is False
    assert claims["par"] == {"inputs": len(TEXTS), "shape": "embeddings"}
    assert claims["use"]["in"] == sum(map(len, tokens))
    policy = parse_policy(deployment.tenant_policy.read_bytes())
    report = verify_bundle(receipt.bundle, policy, claims["t1"] // 1000)
    assert not [check for check in report.checks if not check.ok]
    assert report.exit_code == 0

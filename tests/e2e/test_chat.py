"""The service as its users meet it: SDK, unmodified openai package, many streams at once."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest

from anchorhold import Client, Options, SealedTransport, parse_policy, verify_bundle
from ops.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(120)]
QUESTION = [{"role": "user", "content": "the quick brown fox"}]
STREAMS = 64


@pytest.fixture
def client(stack: Stack, tmp_path: Path) -> Client:
    deployment = stack.config.deployment
    return Client(
        stack.url, deployment.api_key, policy=deployment.tenant_policy,
        options=Options(state_dir=tmp_path / "state"),
    )  # fmt: skip


@pytest.fixture
def unmodified(stack: Stack, tmp_path: Path) -> Iterator[openai.OpenAI]:
    deployment = stack.config.deployment
    options = Options(state_dir=tmp_path / "state")
    transport = SealedTransport(deployment.tenant_policy, options=options)
    with openai.OpenAI(
        base_url=f"{stack.url}/v1", api_key=deployment.api_key, max_retries=0,
        http_client=httpx2.Client(transport=transport),
    ) as made:  # fmt: skip
        yield made


def test_a_streamed_answer_ends_with_a_verified_receipt(client: Client) -> None:
    with client:
        stream = client.chat(QUESTION, "tiny", stream=True, max_tokens=24, ignore_eos=True)
        for _ in stream:
            pass
    assert stream.complete
    assert stream.text
    assert stream.trust == "software"
    assert stream.finish == "length"
    assert stream.receipt.usage["completion_tokens"] == 24
    assert all(check.ok for check in stream.receipt.checks)


def test_whole_and_streamed_answers_agree_and_verify_offline(client: Client, stack: Stack) -> None:
    with client:
        whole = client.chat(QUESTION, "tiny", max_tokens=24, temperature=0)
        stream = client.chat(QUESTION, "tiny", stream=True, max_tokens=24, temperature=0)
        for _ in stream:
            pass
        assert whole.text == stream.text
    policy = parse_policy(stack.config.deployment.tenant_policy.read_bytes())
    report = verify_bundle(whole.receipt.bundle, policy, whole.receipt.claims["t1"] // 1000)
    assert not [check for check in report.checks if not check.ok]
    assert report.exit_code == 0
    assert report.trust == "software"


def test_seeded_sampling_repeats_itself(client: Client) -> None:
    with client:
        texts = {
            client.chat(QUESTION, "tiny", max_tokens=16, temperature=1.0, seed=11).text
            for _ in range(2)
        }
    assert len(texts) == 1


def test_unmodified_openai_chat_streams_and_does_not(unmodified: openai.OpenAI) -> None:
    whole = unmodified.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=16, temperature=0
    )
    chunks = unmodified.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=16, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    collected = list(chunks)
    text = "".join(c.choices[0].delta.content or "" for c in collected if c.choices)
    assert text == whole.choices[0].message.content
    assert collected[-1].usage is not None
    assert collected[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_unmodified_openai_completions_and_models(unmodified: openai.OpenAI) -> None:
    answer = unmodified.completions.create(model="tiny", prompt="numbers 0 1 2", max_tokens=8)
    assert answer.choices[0].finish_reason in {"length", "stop"}
    assert [model.id for model in unmodified.models.list()] == ["tiny"]
    assert unmodified.models.retrieve("tiny").id == "tiny"


def test_an_unknown_model_is_named_and_nothing_is_sent(unmodified: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        unmodified.chat.completions.create(model="absent", messages=QUESTION)
    assert "absent" in json.dumps(refused.value.body)


def test_sixty_four_streams_at_once_all_complete_with_receipts(client: Client) -> None:
    def one(number: int) -> tuple[int, str, int]:
        stream = client.chat(
            [{"role": "user", "content": f"stream {number}"}],
            "tiny", stream=True, max_tokens=32, temperature=1.0, seed=number, ignore_eos=True,
        )  # fmt: skip
        for _ in stream:
            pass
        assert stream.complete
        return stream.receipt.index, stream.receipt.rid, stream.receipt.usage["completion_tokens"]

    with client, ThreadPoolExecutor(STREAMS) as pool:
        done = list(pool.map(one, range(STREAMS)))
    assert {tokens for _, _, tokens in done} == {32}
    assert len({index for index, _, _ in done}) == STREAMS
    assert len({rid for _, rid, _ in done}) == STREAMS

"""Problem documents: few types for the gateway to send, nothing to believe for the client."""

from __future__ import annotations

import pytest

from wire import problems
from wire.errors import GATEWAY_TEXT_MAX

CT = problems.CONTENT_TYPE


def test_a_problem_reads_back_as_a_hint():
    doc = problems.problem(
        problems.QUEUE_FULL, 429, "queue is full", "try later", retry_after=3, notice={"rid": "x"}
    )
    hint = problems.parse_problem(429, CT + "; charset=utf-8", problems.encode_problem(doc))
    assert (hint.status, hint.type, hint.text) == (
        429,
        "urn:anchorhold:gw:queue_full",
        "queue is full: try later",
    )
    assert (hint.retry_after, hint.notice, hint.code) == (3, {"rid": "x"}, "gateway")
    assert str(hint) == "gateway answered 429: queue is full: try later"


def test_only_known_types_can_be_sent():
    assert len(problems.TYPES) == 13
    with pytest.raises(ValueError, match="problem type"):
        problems.problem("about:blank", 500, "x")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (None, b""),
        ("text/html", b"<h1>oops</h1>"),
        ("application/json", b'{"type":"urn:anchorhold:gw:auth"}'),
        (CT, b""),
        (CT, b"[]"),
        (CT, b'{"type":1,"type":2}'),
        (CT, b"\xff"),
        (CT, b'{"title":"' + b"x" * 70_000 + b'"}'),
    ],
)
def test_any_other_body_is_a_hint_of_its_status_only(content_type, body):
    hint = problems.parse_problem(502, content_type, body)
    assert (hint.status, hint.type, hint.text, hint.retry_after) == (502, "", "", None)


@pytest.mark.parametrize(
    ("body", "attribute", "value"),
    [
        (b'{"type":"urn:anchorhold:gw:mine"}', "type", ""),
        (b'{"type":5}', "type", ""),
        (b'{"title":5,"detail":[]}', "text", ""),
        (b'{"retry_after":true}', "retry_after", None),
        (b'{"retry_after":-1}', "retry_after", None),
        (b'{"retry_after":1.5}', "retry_after", None),
        (b'{"retry_after":99999999}', "retry_after", 3600),
        (b'{"notice":"x"}', "notice", None),
        (b'{"title":"a\\u001b[31mb\\nc"}', "text", "a [31mb c"),
    ],
)
def test_members_of_a_wrong_kind_are_dropped(body, attribute, value):
    assert getattr(problems.parse_problem(500, CT, body), attribute) == value


def test_a_gateways_words_are_cut():
    hint = problems.parse_problem(500, CT, b'{"title":"' + b"x" * 1000 + b'"}')
    assert len(hint.text) == GATEWAY_TEXT_MAX

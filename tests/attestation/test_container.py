"""Live evidence bodies: pieces by role, parts, a closed schema, nothing empty, nothing too long."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.evidence import EVIDENCE_MAX
from attestation.formats.container import encode_container, parse_container
from wire.canonical import encode
from wire.errors import MalformedError
from wire.ids import b64u

PARTS = {"model": "sha256:" + "ab" * 32}
ROLES = {"report": b"\x00" * 1184, "auxblob": b"table"}


def body(**changes: object) -> bytes:
    members: dict[str, object] = {role: b64u(data) for role, data in ROLES.items()}
    members |= {"parts": PARTS, **changes}
    return encode({key: value for key, value in members.items() if value is not None})


def parse(raw: bytes) -> object:
    return parse_container(raw, ("report",), ("auxblob", "other"))


def test_what_is_encoded_is_parsed() -> None:
    found = parse_container(encode_container(ROLES, PARTS), ("report",), ("auxblob", "other"))
    assert (found.roles, found.parts) == (ROLES, PARTS)


@given(
    st.dictionaries(st.sampled_from(["quote", "event_log", "a"]), st.binary(min_size=1), min_size=1)
)
def test_any_bytes_by_any_role_come_back(roles: dict[str, bytes]) -> None:
    found = parse_container(encode_container(roles, PARTS), tuple(roles), ())
    assert found.roles == roles


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"report": None}, '"report" is missing'),
        ({"parts": None}, '"parts" is missing'),
        ({"root": "AA"}, 'unknown key "root"'),
        ({"report": ""}, "at least one byte"),
        ({"auxblob": ""}, "at least one byte"),
        ({"report": "A"}, "base64url"),
        ({"report": "AA=="}, "base64url"),
        ({"report": "AB"}, "base64url"),
        ({"report": 5}, "base64url"),
        ({"report": ["AA"]}, "base64url"),
        ({"parts": {}}, "1 to 32 parts"),
        ({"parts": {"Model": PARTS["model"]}}, "a part's name"),
        ({"parts": {"model": "sha256:00"}}, "sha256"),
        ({"parts": {"model": {"a": 1}}}, "nested|sha256"),
    ],
)  # fmt: skip
def test_one_wrong_member_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(MalformedError, match=sentence):
        parse(body(**changes))


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{}", b'{"parts":1}', b"\xff", b"[" * 9999])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(raw)


def test_a_role_sent_twice_is_refused() -> None:
    raw = json.dumps({"report": "AA", "parts": PARTS}).replace("{", '{"report": "AQ", ', 1)
    with pytest.raises(MalformedError, match="repeats a key"):
        parse(raw.encode())


def test_a_body_beyond_the_limit_is_refused_by_both_ends() -> None:
    with pytest.raises(MalformedError, match="at most"):
        encode_container({"report": bytes(EVIDENCE_MAX)}, PARTS)
    with pytest.raises(MalformedError, match=f"at most {EVIDENCE_MAX}"):
        parse(body(report="A" * EVIDENCE_MAX))


def test_a_container_says_something() -> None:
    with pytest.raises(MalformedError, match="found no role"):
        encode_container({}, PARTS)
    with pytest.raises(ValueError, match='called "parts"'):
        encode_container({"parts": b"x"}, PARTS)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_else(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(raw)

"""Posture records: what they say, who signs them, and what meets a demand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from attestation.posture import (
    CONTROLS,
    Control,
    Posture,
    State,
    encode_posture,
    open_container,
    parse_posture,
    parse_record,
    record_digest,
    sign_posture,
)
from wire.canonical import encode
from wire.errors import AttestationError, MalformedError
from wire.ids import b64u, sha256_tag

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PK = KEY.public_key().public_bytes_raw()
POSTURE = Posture(
    bytes(16),
    {
        "seccomp": Control("applied", "71 rules"),
        "memfd_secret": Control("unavailable", errno=38),
        "swap": Control("refused", errno=1),
    },
)
RECORD = encode_posture(POSTURE)
STATES: tuple[State, ...] = ("refused", "unavailable", "applied")


def test_a_signed_posture_comes_back_as_it_was() -> None:
    found = parse_posture(sign_posture(RECORD, KEY), PK)
    assert (found.boot, dict(found.fields)) == (POSTURE.boot, dict(POSTURE.fields))
    assert record_digest(RECORD) == sha256_tag(RECORD)


def test_another_keys_signature_is_refused() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(AttestationError) as caught:
        parse_posture(sign_posture(RECORD, other), PK)
    assert caught.value.reasons == ("posture_signature_invalid",)


def test_a_signature_made_for_something_else_is_refused() -> None:
    raw = encode({"record": b64u(RECORD), "sig": b64u(KEY.sign(RECORD))})
    with pytest.raises(AttestationError):
        parse_posture(raw, PK)


def test_every_byte_of_the_container_counts() -> None:
    raw = sign_posture(RECORD, KEY)
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises((MalformedError, AttestationError)):
            parse_posture(changed, PK)


@pytest.mark.parametrize(
    ("name", "demanded", "met"),
    [
        ("seccomp", "applied", True),
        ("seccomp", "unavailable", True),
        ("memfd_secret", "applied", False),
        ("memfd_secret", "unavailable", True),
        ("swap", "unavailable", False),
        ("never_heard_of", "unavailable", False),
    ],
)
def test_a_demand_is_met_by_as_strong_or_stronger_never_by_absence(
    name: str, demanded: str, met: bool
) -> None:
    assert POSTURE.meets(name, demanded) is met


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"boot": b64u(bytes(15))},
        {"fields": []},
        {"fields": {"Upper": {"state": "applied", "errno": 0, "detail": ""}}},
        {"fields": {"a": {"state": "on", "errno": 0, "detail": ""}}},
        {"fields": {"a": {"state": "applied", "errno": 5000, "detail": ""}}},
        {"fields": {"a": {"state": "applied", "errno": 0, "detail": "x" * 201}}},
        {"fields": {"a": {"state": "applied", "errno": 0}}},
        {"fields": {f"f{i}": {"state": "applied", "errno": 0, "detail": ""} for i in range(65)}},
        {"extra": 0},
    ],
)
def test_a_record_outside_the_format_is_refused(changes: dict[str, Any]) -> None:
    record = encode({**json.loads(RECORD), **changes})
    with pytest.raises(MalformedError):
        parse_record(record)


def test_a_record_in_another_spelling_is_refused() -> None:
    with pytest.raises(MalformedError, match="canonical"):
        parse_record(json.dumps(json.loads(RECORD), indent=1).encode())


def test_errno_may_be_null() -> None:
    record = encode(
        {
            "v": 1,
            "boot": b64u(bytes(16)),
            "fields": {"a": {"state": "applied", "errno": None, "detail": ""}},
        }
    )
    assert parse_record(record).fields["a"].errno == 0


def test_a_posture_outside_the_format_is_not_encoded() -> None:
    with pytest.raises(MalformedError):
        encode_posture(Posture(bytes(16), {"a": Control("on")}))  # type: ignore[arg-type]


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_our_error(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_posture(raw, PK)
    with pytest.raises(MalformedError):
        parse_record(raw)


@pytest.mark.parametrize("found", STATES)
@pytest.mark.parametrize("demanded", STATES)
def test_a_state_meets_itself_and_whatever_is_weaker(found: State, demanded: State) -> None:
    posture = Posture(bytes(16), {"seccomp": Control(found)})
    assert posture.meets("seccomp", demanded) is (STATES.index(found) >= STATES.index(demanded))


def recorded(**facts: Any) -> Posture:
    return parse_record(encode_posture(Posture(bytes(16), {"c": Control("applied", **facts)})))


def test_a_controls_detail_and_error_number_end_at_their_limits() -> None:
    assert recorded().fields["c"].errno == 0
    assert recorded(errno=None).fields["c"].errno == 0
    for last, fact in (("x" * 200, "detail"), (4095, "errno")):
        assert recorded(**{fact: last})
        with pytest.raises(MalformedError):
            recorded(**{fact: last + last[:1] if isinstance(last, str) else last + 1})
    with pytest.raises(MalformedError):
        recorded(errno=-1)


def record(size: int) -> bytes:
    """A record of exactly so many bytes."""

    def made(spare: int) -> bytes:
        lengths = [min(200, max(0, spare - 200 * number)) for number in range(64)]
        fields = {
            f"{'c' * 30}{number:02}": {"state": "unavailable", "errno": 0, "detail": "x" * length}
            for number, length in enumerate(lengths)
        }
        return encode({"v": 1, "boot": "A" * 22, "fields": fields})

    return made(size - len(made(0)))


def test_a_record_of_sixteen_kibibytes_is_read_and_one_byte_more_is_not() -> None:
    assert len(record(16_384)) == 16_384
    assert len(parse_record(record(16_384)).fields) == 64
    with pytest.raises(MalformedError):
        parse_record(record(16_385))


def test_a_container_of_24_kibibytes_is_read_and_one_byte_more_is_not() -> None:
    container = sign_posture(record(6000), KEY)
    assert open_container(container.ljust(24_576))
    with pytest.raises(MalformedError):
        open_container(container.ljust(24_577))


def test_the_specification_names_every_control_that_a_policy_may_demand() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "spec" / "evidence.md"
    listed = " ".join(page.read_text().split()).partition("Controls: ")[2].partition(". ")[0]
    assert tuple(re.findall(r"`(\w+)`", listed)) == CONTROLS
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name) for name in CONTROLS)

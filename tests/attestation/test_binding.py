"""Bindings: closed schema, exact types, and hashes over the received bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.tee import SoftwareTee

from attestation.binding import Beacon, Kem, opens_until, parse_binding, report32, report_data
from wire.errors import MalformedError
from wire.ids import b64u, kid_of
from wire.limits import TIME_MAX
from wire.suites import HYBRID, X25519

TEE = SoftwareTee()
HONEST: dict[str, Any] = json.loads(TEE.binding())


def encoded(**changes: Any) -> bytes:
    return json.dumps({**HONEST, **changes}).encode()


def test_a_binding_says_what_was_encoded() -> None:
    other = SoftwareTee("other")
    other.facts["kems"] = [other.kem(HYBRID), other.kem(X25519)]
    other.facts["beacon"] = Beacon("log", 5, bytes(range(32)))
    other.facts["nonce"] = bytes(32)
    binding = parse_binding(other.binding())
    for name in ("aud", "wid", "boot", "epoch", "sig_pk", "image", "policy", "nbf", "exp"):
        assert getattr(binding, name) == other.facts[name]
    assert binding.kems == tuple(other.facts["kems"])
    assert binding.models == tuple(other.facts["models"])
    assert (binding.beacon, binding.nonce) == (other.facts["beacon"], bytes(32))
    assert binding.limits == {"hdr": 8192, "frame": 65536, "body": 8388608, "k": 8}
    assert binding.kids() == {kem.suite: kid_of(kem.suite, kem.pk) for kem in binding.kems}
    assert binding.bh == hashlib.sha256(other.binding()).digest()


def test_reports_are_domain_separated_hashes_of_the_received_bytes() -> None:
    raw = TEE.binding()
    assert report_data(raw) == hashlib.sha512(b"anchorhold/1 report\0" + raw).digest()
    assert report32(raw) == hashlib.sha256(b"anchorhold/1 report32\0" + raw).digest()
    spaced = json.dumps(HONEST, indent=1).encode()
    assert parse_binding(spaced).epoch == parse_binding(raw).epoch
    assert report_data(spaced) != report_data(raw)


@pytest.mark.parametrize("key", sorted(HONEST))
def test_every_member_is_needed(key: str) -> None:
    members = {name: value for name, value in HONEST.items() if name != key}
    with pytest.raises(MalformedError, match=f'key "{key}" is missing'):
        parse_binding(json.dumps(members).encode())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"extra": 1}, 'found unknown key "extra"'),
        ({"v": 2}, r"binding.v: found 2, expected"),
        ({"v": True}, r"binding.v: found true, expected"),
        ({"v": 1.0}, r"binding.v: found a decimal, expected"),
        ({"aud": ""}, "binding.aud"),
        ({"aud": "a\u00e9"}, r"binding.aud: found .a\?., expected 1 to"),
        ({"wid": "w" * 257}, "binding.wid"),
        ({"boot": b64u(bytes(15))}, r"binding.boot: .* expected 16 bytes"),
        ({"boot": HONEST["boot"] + "="}, "binding.boot"),
        ({"epoch": -1}, "binding.epoch"),
        ({"kems": []}, "binding.kems"),
        ({"kems": HONEST["kems"] * 2}, "found a suite twice"),
        ({"kems": [{"suite": HYBRID, "pk": b64u(bytes(32))}]}, "expected 1216 bytes"),
        ({"kems": [{"suite": "later", "pk": b64u(bytes(5000))}]}, "at most 4096 bytes"),
        ({"sig": {"alg": "rsa", "pk": b64u(bytes(32))}}, "binding.sig.alg"),
        ({"sig2": {}}, "sig2: found an object, expected null"),
        ({"image": "sha256:" + "A" * 64}, "binding.image"),
        ({"models": []}, "binding.models"),
        ({"models": HONEST["models"] * 2}, "found a name twice"),
        ({"limits": {"hdr": 1}}, 'key "frame" is missing'),
        ({"limits": {"hdr": 0, "frame": 1, "body": 1, "k": 1}}, "binding.limits.hdr: found 0"),
        ({"pad": []}, "binding.pad"),
        ({"pad": ["off", "off"]}, "in it, expected each item once"),
        ({"feat": [1]}, "binding.feat"),
        ({"exp": HONEST["nbf"]}, "expected a time after nbf"),
        ({"exp": TIME_MAX + 1}, f"binding.exp: .* expected an integer from 0 to {TIME_MAX}"),
        ({"nbf": 2**50, "exp": 2**50 + 3600}, f"binding.nbf: .* from 0 to {TIME_MAX}"),
        ({"nbf": 2**53}, "binding.nbf"),
        ({"beacon": {"log": "l", "size": 1}}, 'key "root" is missing'),
        ({"nonce": b64u(bytes(31))}, "expected 32 bytes"),
        ({"posture": "md5:00"}, "binding.posture"),
    ],
)
def test_a_wrong_member_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MalformedError, match=sentence):
        parse_binding(encoded(**changes))


def test_a_binding_with_a_repeated_key_is_refused() -> None:
    raw = encoded()
    with pytest.raises(MalformedError, match="repeats a key"):
        parse_binding(raw[:-1] + b',"aud":"other"}')


def test_a_binding_beyond_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedError, match="at most 16384 bytes"):
        parse_binding(b" " * 16_385)


def test_keys_of_unknown_suites_are_kept() -> None:
    raw = encoded(kems=[*HONEST["kems"], {"suite": "later", "pk": b64u(b"pk")}])
    assert parse_binding(raw).kems[-1] == Kem("later", b"pk")


@pytest.mark.parametrize(("life", "kept"), [(8, 2), (3600, 900), (24 * 3600, 900)])
def test_keys_outlive_their_binding_by_a_quarter_of_its_life_and_15_minutes_at_most(
    life: int, kept: int
) -> None:
    assert opens_until(1000, 1000 + life) == 1000 + life + kept
    tee = SoftwareTee()
    tee.facts["exp"] = tee.facts["nbf"] + life
    assert parse_binding(tee.binding()).opens_until == tee.facts["exp"] + kept


def test_what_cannot_be_parsed_is_not_encoded() -> None:
    tee = SoftwareTee()
    tee.facts["boot"] = bytes(15)
    with pytest.raises(MalformedError):
        tee.binding()


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_our_error(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_binding(raw)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(HONEST)), _JSON)
def test_any_json_in_any_member_is_parsed_or_refused(key: str, value: Any) -> None:
    with contextlib.suppress(MalformedError):
        assert parse_binding(encoded(**{key: value})).raw

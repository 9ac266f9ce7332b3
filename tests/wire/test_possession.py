"""Who holds a binding's keys can say so on one link, about one binding; nobody else can."""

from __future__ import annotations

import hashlib
import os

import pytest

from wire.errors import MalformedError, OpenError
from wire.ids import kid_of
from wire.possession import Possession, ask_possession, possession_info, prove_possession
from wire.schedule import wrap_info
from wire.suites import HYBRID, SUITES, X25519
from wire.wraps import Candidate

NONCE, BH = b"n" * 32, b"b" * 32
KEYS = [SUITES[name].generate(os.urandom) for name in (HYBRID, X25519)]
HELD = [(kid_of(key.suite, key.pk), key) for key in KEYS]
LISTED = [Candidate(kid, key.suite, key.pk) for kid, key in HELD]


def ask(nonce: bytes = NONCE, bh: bytes = BH) -> Possession:
    return ask_possession(LISTED, nonce, bh, os.urandom)


def test_the_holder_of_all_keys_proves_it():
    question = ask()
    assert question.proves(prove_possession(HELD, question.sealed, NONCE, BH))


def test_the_answer_is_the_one_specified():
    drawn = [b"1" * 32, b"2" * 32]
    left = list(drawn)
    question = ask_possession(LISTED, NONCE, BH, lambda n: left.pop(0)[:n])
    spelled = b"anchorhold/1 possessed\0" + NONCE + BH + b"".join(drawn)
    assert prove_possession(HELD, question.sealed, NONCE, BH) == hashlib.sha256(spelled).digest()


def test_the_info_names_key_link_and_binding_and_is_no_wraps():
    kid = LISTED[0].kid
    assert possession_info(kid, NONCE, BH) == b"anchorhold/1 possession\0" + kid + NONCE + BH
    assert not possession_info(kid, NONCE, BH).startswith(wrap_info(kid, b""))


@pytest.mark.parametrize("lacking", [0, 1])
def test_whoever_lacks_one_key_cannot(lacking):
    question, held = ask(), list(HELD)
    kid, key = held[lacking]
    held[lacking] = (kid, SUITES[key.suite].generate(os.urandom))
    with pytest.raises(OpenError):
        prove_possession(held, question.sealed, NONCE, BH)


@pytest.mark.parametrize(
    "elsewhere", [{"nonce": b"m" * 32}, {"bh": b"c" * 32}], ids=["link", "binding"]
)
def test_a_question_of_another_link_or_binding_opens_nowhere(elsewhere):
    """So the holder of a key, asked on its own link about its own binding, helps nobody."""
    question = ask(**elsewhere)
    with pytest.raises(OpenError):
        prove_possession(HELD, question.sealed, NONCE, BH)


def test_an_answer_to_another_question_proves_nothing():
    first, second = ask(), ask()
    assert not second.proves(prove_possession(HELD, first.sealed, NONCE, BH))
    assert not first.proves(b"")


def test_a_wrap_is_no_question_and_a_question_no_wrap():
    """A gateway cannot pass a request's wrap off as a question."""
    kid, key = HELD[0]
    suite, th = SUITES[key.suite], b"t" * 32
    wrap = suite.seal(key.pk, wrap_info(kid, th), b"s" * 64)
    with pytest.raises(OpenError):
        prove_possession(HELD[:1], [wrap], NONCE, BH)
    with pytest.raises(OpenError):
        suite.open(key, wrap_info(kid, th), ask().sealed[0])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_secrets_is_refused(count):
    sealed = (*ask().sealed, b"")[:count]
    with pytest.raises(OpenError, match="2 sealed secrets expected"):
        prove_possession(HELD, sealed, NONCE, BH)


def test_a_secret_of_another_length_is_refused():
    kid, key = HELD[1]
    sealed = SUITES[key.suite].seal(key.pk, possession_info(kid, NONCE, BH), b"s" * 31)
    with pytest.raises(OpenError, match="secrets of 32 bytes"):
        prove_possession(HELD[1:], [sealed], NONCE, BH)


def test_a_key_that_nothing_can_be_sealed_to_is_malformed():
    zero = Candidate(kid_of(X25519, bytes(32)), X25519, bytes(32))
    with pytest.raises(MalformedError):
        ask_possession([zero], NONCE, BH, os.urandom)


def test_a_question_shows_no_secret():
    question = ask()
    assert question._answer.hex() not in repr(question)
    assert repr(question._answer) not in repr(question)

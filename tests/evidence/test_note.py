"""Signed notes and checkpoints: official cases, and every way a head can lie."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from simulators.log import SimulatedLog, flip

from evidence.checkpoint import (
    Checkpoint,
    SignedCheckpoint,
    open_checkpoint,
    parse_checkpoint,
    peek_checkpoint,
)
from evidence.merkle import leaf_hash
from evidence.note import NoteSigner, make_vkey, open_note, split_note
from wire.errors import MalformedError
from wire.verifier_key import parse_vkey

if TYPE_CHECKING:
    from pathlib import Path

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = NoteSigner("log.test/a", KEY)
TEXT = "one line\nanother line\n"


def test_a_signed_note_opens_under_its_key() -> None:
    opened = open_note(SIGNER.sign(TEXT), [SIGNER.key])
    assert opened.text == TEXT
    assert [item.name for item in opened.verified] == ["log.test/a"]


def test_vkeys_survive_a_round_trip() -> None:
    assert parse_vkey(SIGNER.vkey) == SIGNER.key
    assert make_vkey("log.test/a", KEY.public_key()) == SIGNER.vkey


@given(st.integers(0, 8 * len(SIGNER.sign(TEXT).encode()) - 1))
def test_any_flipped_bit_of_a_note_is_refused(bit: int) -> None:
    with pytest.raises(MalformedError):
        open_note(flip(SIGNER.sign(TEXT).encode(), bit), [SIGNER.key])


def test_the_same_name_with_another_key_is_not_the_log() -> None:
    other = NoteSigner("log.test/a", Ed25519PrivateKey.generate())
    with pytest.raises(MalformedError) as caught:
        open_note(other.sign(TEXT), [SIGNER.key])
    assert caught.value.code == "note_unsigned"


def test_a_bad_signature_by_a_known_key_spoils_a_note_others_signed() -> None:
    other = NoteSigner("witness.test/w", Ed25519PrivateKey.generate())
    good = SIGNER.sign(TEXT)
    forged = other.sign("another text\n").split("\n\n")[1]
    with pytest.raises(MalformedError) as caught:
        open_note(good + forged, [SIGNER.key, other.key])
    assert caught.value.code == "note_bad_signature"
    assert open_note(good + forged, [SIGNER.key]).unverified[0].name == "witness.test/w"


@pytest.mark.parametrize("name", ["", "two words", "plus+sign", "line\nbreak"])
def test_names_that_could_break_a_line_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="key name"):
        NoteSigner(name, KEY)
    with pytest.raises(ValueError, match="key name"):
        make_vkey(name, KEY.public_key())


def test_text_without_a_final_newline_is_not_signed() -> None:
    with pytest.raises(MalformedError):
        SIGNER.sign("no newline")


@pytest.mark.parametrize("vkey", ["", "name", "name+00000000", "two words+00000000+AAAA"])
def test_a_malformed_vkey_is_refused(vkey: str) -> None:
    with pytest.raises(MalformedError):
        parse_vkey(vkey)


def test_a_signature_twice_counts_once() -> None:
    note = SIGNER.sign(TEXT)
    again = note + note.split("\n\n")[1]
    assert len(open_note(again, [SIGNER.key]).verified) == 1


def test_a_second_spelling_of_the_same_signature_is_refused() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    note = SIGNER.sign(TEXT)
    assert note.endswith("=\n")  # 68 bytes leave two spare bits in the last character
    last = alphabet.index(note[-3])
    respelled = note[:-3] + alphabet[last | 1] + note[-2:]
    with pytest.raises(MalformedError, match="canonical"):
        open_note(respelled, [SIGNER.key])


def test_a_signature_no_longer_than_its_key_id_is_refused() -> None:
    line = base64.b64encode(SIGNER.key.key_id).decode()
    with pytest.raises(MalformedError, match="longer than its key id"):
        split_note(f"{TEXT}\n\u2014 log.test/a {line}\n")


def test_a_note_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(MalformedError, match="at most"):
        split_note("x" * 70_000 + "\n\n")


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_opens_to_size_and_root(log: SimulatedLog) -> None:
    log.append("test.x", {})
    head = open_checkpoint(log.checkpoint(), log.origin, [log.vkey])
    assert (head.size, head.root) == (1, log.root())


def test_a_checkpoint_of_another_log_by_the_same_key_is_refused(log: SimulatedLog) -> None:
    other = NoteSigner(log.origin, log.key)
    note = other.sign(Checkpoint("log.test/other", 1, bytes(32)).text())
    with pytest.raises(MalformedError) as caught:
        open_checkpoint(note, log.origin, [log.vkey])
    assert caught.value.code == "checkpoint_wrong_log"


def test_only_opening_makes_a_signed_checkpoint(log: SimulatedLog) -> None:
    with pytest.raises(TypeError, match="open_checkpoint only"):
        SignedCheckpoint(Checkpoint(log.origin, 1, bytes(32)), "note", ())


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n",
        f"origin\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"origin\n01\n{ROOT}\n",
        f"origin\n-1\n{ROOT}\n",
        f"origin\n0x1\n{ROOT}\n",
        f"origin\n{2**63}\n{ROOT}\n",
        f"origin\n1\n{ROOT[:-4]}\n",
        "origin\n1\nnot base64!\n",
        "origin\n1\n" + "A" * 43 + "B=\n",
        f"origin\n1\n{ROOT}\n\n",
        f"origin\n\u0661\n{ROOT}\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_checkpoint(text)


def test_extension_lines_are_signed_and_ignored() -> None:
    note = SIGNER.sign(f"log.test/a\n7\n{ROOT}\nextension\n")
    assert open_checkpoint(note, "log.test/a", [SIGNER.vkey]).size == 7


# ---------------------------------------------------------------- official vectors


def test_official_notes_are_judged_as_published(vectors: Path) -> None:
    cases = json.loads((vectors / "signed-note/notes.json").read_text())
    assert len(cases) >= 10
    for case in cases:
        note = base64.b64decode(case["note_b64"])
        keys = [parse_vkey(item) for item in case["vkeys"]]
        if case["expect"] == "ok":
            opened = open_note(note, keys)
            assert [item.name for item in opened.verified] == case["verified"]
            assert [item.name for item in opened.unverified] == case["unverified"]
        else:
            with pytest.raises(MalformedError):
                open_note(note, keys)


def test_we_sign_the_published_note_byte_for_byte(vectors: Path) -> None:
    case = json.loads((vectors / "signed-note/signing.json").read_text())
    *_, name, _, encoded = case["skey"].split("+", 4)
    signer = NoteSigner(name, Ed25519PrivateKey.from_private_bytes(base64.b64decode(encoded)[1:]))
    assert signer.vkey == case["vkey"]
    assert signer.sign(case["text"]) == case["expected_note"]
    for text in case["bad_texts"]:
        with pytest.raises(MalformedError):
            signer.sign(text)
    for vkey in case["bad_vkeys"]:
        with pytest.raises(MalformedError):
            parse_vkey(vkey)


def test_published_checkpoints_parse(vectors: Path) -> None:
    for case in json.loads((vectors / "checkpoint/parse-only.json").read_text()):
        head = peek_checkpoint(case["checkpoint"])
        assert (head.origin, head.size) == (case["origin"], case["size"])
        if "root_b64" in case:
            assert head.root == base64.b64decode(case["root_b64"])
        if "cosignature" in case:
            names = [item.name for item in split_note(case["checkpoint"])[1]]
            assert case["cosignature"]["name"] in names


def test_published_tree_notes_are_judged_as_published(vectors: Path) -> None:
    case = json.loads((vectors / "checkpoint/go-tree-note.json").read_text())
    assert leaf_hash(case["record_ascii"].encode()) == base64.b64decode(case["record_hash_b64"])
    head = parse_checkpoint(case["tree_note"])
    assert head.text() == case["tree_note"]
    for bad in case["bad_tree_notes"]:
        try:
            found = parse_checkpoint(bad)
        except MalformedError:
            continue
        assert found.origin != head.origin


def test_a_real_log_of_another_implementation_opens(vectors: Path) -> None:
    folder = vectors / "tlog-tiles/tessera"
    vkey = (folder / "log.vkey").read_text().strip()
    for path in folder.glob("checkpoint.*"):
        note = path.read_text()
        origin = note.split("\n")[0]
        assert open_checkpoint(note, origin, [vkey]).size == int(path.suffix[1:])

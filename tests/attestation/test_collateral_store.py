"""The cache gives back what was admitted under the same key, in force, or nothing."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import collateral_key as keys
from attestation.collateral.entry import (
    BOUNDS,
    DAY_S,
    Checked,
    Entry,
    Piece,
    decode_entry,
    encode_entry,
    make_entry,
)
from attestation.collateral.folder import ANSWER
from attestation.collateral.store import ANSWERS_MAX, SIZE_MIN, Store
from wire.canonical import encode
from wire.errors import AttestationError, ConfigError, MalformedError
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from attestation.collateral_key import CollateralKey

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_790_000_000
RIM = keys.rim("NV_A")
OTHER = keys.rim("NV_B")
TCB = keys.tcb_info("tdx", bytes(6))


def entry(key: CollateralKey = RIM, body: bytes = b"body", sequence: int | None = None) -> Entry:
    return make_entry(key, Piece(body), Checked(None, sequence), NOW)


def file_of(store: Store, key: CollateralKey) -> Path:
    return store.root / "entries" / f"{sha256(str(key).encode()).hexdigest()}.json"


def files(store: Store) -> list[Path]:
    return sorted((store.root / "entries").glob("*.json"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_an_empty_cache_has_nothing_and_makes_nothing(store: Store) -> None:
    assert store.get(RIM, NOW) is None
    assert list(store.entries(NOW)) == []
    assert not store.root.exists()


def test_what_is_put_is_given_back(store: Store) -> None:
    store.put(entry(), NOW)
    assert store.get(RIM, NOW) == entry()
    assert store.get(OTHER, NOW) is None


def test_a_file_is_named_by_its_key_and_for_its_owner_only(store: Store) -> None:
    store.put(entry(TCB, sequence=3), NOW)
    assert [path.name for path in files(store)] == [f"{sha256(str(TCB).encode()).hexdigest()}.json"]
    for path in [store.root, *store.root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_file_under_another_keys_name_is_a_miss(store: Store) -> None:
    # Poisoning by key confusion: a genuine entry put where another belongs.
    store.put(entry(RIM), NOW)
    store.put(entry(OTHER, b"other"), NOW)
    mine, other = (
        store.root / "entries" / f"{sha256(str(k).encode()).hexdigest()}.json" for k in (RIM, OTHER)
    )
    mine.write_bytes(other.read_bytes())
    assert store.get(RIM, NOW) is None
    assert [found.key for found in store.entries(NOW)] == [OTHER]


def test_every_flipped_byte_is_a_miss_and_the_next_put_mends_it(store: Store) -> None:
    store.put(entry(), NOW)
    path = files(store)[0]
    genuine = path.read_bytes()
    for position in range(0, len(genuine), 7):
        raw = bytearray(genuine)
        raw[position] ^= 1
        path.write_bytes(bytes(raw))
        assert store.get(RIM, NOW) is None
    for cut in (0, 1, len(genuine) // 2, len(genuine) - 1):
        path.write_bytes(genuine[:cut])
        assert store.get(RIM, NOW) is None
    store.put(entry(), NOW)
    assert store.get(RIM, NOW) == entry()


def forged(**changes: Any) -> bytes:
    document = json.loads(encode_entry(entry()))
    del document["digest"]
    document |= changes
    return encode(document | {"digest": sha256_tag(encode(document))})


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"fetched_at": NOW + 3600},
        {"expires": NOW + BOUNDS["rim"].offline_s + 1},
        {"expires": "never"},
        {"body": ""},
        {"body": "AA=="},
        {"chain": 5},
        {"sequence": -1},
        {"sequence": "1"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_file_with_a_right_digest_and_a_wrong_member_is_a_miss(
    store: Store, changes: dict[str, Any]
) -> None:
    store.put(entry(), NOW)
    assert decode_entry(forged(), RIM, NOW) == entry()
    files(store)[0].write_bytes(forged(**changes))
    assert store.get(RIM, NOW) is None


def test_an_entry_made_in_the_future_is_a_miss(store: Store) -> None:
    # A clock that was wrong, or a file that wants a longer life.
    store.put(entry(), NOW)
    assert store.get(RIM, NOW - 3600) is None


@given(st.binary(max_size=300))
def test_arbitrary_files_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_entry(data, RIM, NOW)


def test_an_end_is_the_earlier_of_the_vendors_and_the_greatest_age() -> None:
    assert make_entry(TCB, Piece(b"x"), Checked(), NOW).expires == NOW + DAY_S
    assert make_entry(TCB, Piece(b"x"), Checked(NOW + 5), NOW).expires == NOW + 5
    assert make_entry(TCB, Piece(b"x"), Checked(NOW + 9 * DAY_S), NOW).expires == NOW + DAY_S
    carried = make_entry(TCB, Piece(b"x"), Checked(NOW + 9 * DAY_S), NOW, offline=True)
    assert carried.expires == NOW + 9 * DAY_S
    assert make_entry(TCB, Piece(b"x"), Checked(NOW + 99 * DAY_S), NOW, offline=True).expires == (
        NOW + 30 * DAY_S
    )


# ------------------------------------------------------------------ rollback


def rolled_back(call: Any) -> None:
    with pytest.raises(AttestationError) as caught:
        call()
    assert caught.value.reasons == ("collateral_rollback",)


def test_a_lower_number_than_seen_before_is_refused(store: Store) -> None:
    store.put(entry(TCB, sequence=17), NOW)
    rolled_back(lambda: store.put(entry(TCB, b"older", sequence=16), NOW))
    assert store.get(TCB, NOW) == entry(TCB, sequence=17)
    store.put(entry(TCB, sequence=18), NOW)
    rolled_back(lambda: store.put(entry(TCB, sequence=17), NOW))


def test_the_same_number_with_newer_dates_is_fine(store: Store) -> None:
    store.put(entry(TCB, sequence=17), NOW)
    newer = replace(entry(TCB, b"newer", sequence=17), fetched_at=NOW + 9)
    store.put(newer, NOW + 9)
    assert store.get(TCB, NOW + 9) == newer


def test_an_older_file_put_back_into_the_cache_is_refused(store: Store) -> None:
    store.put(entry(TCB, sequence=16), NOW)
    older = files(store)[0].read_bytes()
    store.put(entry(TCB, sequence=17), NOW)
    files(store)[0].write_bytes(older)
    rolled_back(lambda: store.get(TCB, NOW))


def test_a_file_that_lost_its_number_is_refused(store: Store) -> None:
    store.put(entry(TCB, sequence=17), NOW)
    files(store)[0].write_bytes(encode_entry(entry(TCB)))
    rolled_back(lambda: store.get(TCB, NOW))


def test_numbers_are_remembered_for_each_key_apart(store: Store) -> None:
    store.put(entry(TCB, sequence=17), NOW)
    for key in (
        keys.tcb_info("sgx", bytes(6)),
        keys.tcb_info("tdx", b"\1" * 6),
        keys.tcb_info("tdx", bytes(6), early=True),
    ):
        store.put(entry(key, sequence=3), NOW)


def test_the_memory_outlives_the_entry(store: Store) -> None:
    store.put(entry(TCB, sequence=17), NOW)
    files(store)[0].unlink()
    rolled_back(lambda: store.put(entry(TCB, sequence=16), NOW))


@pytest.mark.parametrize("content", [b"", b"{}", b'{"v":1}', b"x" * 2000])
def test_a_broken_memory_stops_instead_of_forgetting(store: Store, content: bytes) -> None:
    store.put(entry(TCB, sequence=17), NOW)
    next((store.root / "seen").glob("*.json")).write_bytes(content)
    fresh = Store(store.root)
    for call in (
        lambda: store.get(TCB, NOW),
        lambda: fresh.get(TCB, NOW),
        lambda: fresh.put(entry(TCB, sequence=18), NOW),
    ):
        with pytest.raises(ConfigError, match="no record of this key"):
            call()
    rolled_back(lambda: store.put(entry(TCB, sequence=16), NOW))


def test_the_memory_of_another_key_does_not_count_for_this_one(store: Store) -> None:
    store.put(entry(TCB, sequence=17), NOW)
    mine = next((store.root / "seen").glob("*.json"))
    mine.write_bytes(encode({"v": 1, "key": str(RIM), "sequence": 1}))
    with pytest.raises(ConfigError):
        store.get(TCB, NOW)


def answer(serial: int, sequence: int, body: bytes = b"answer") -> Entry:
    return entry(keys.ocsp("sha384", bytes(48), bytes(48), serial), body, sequence)


def test_an_older_answer_than_seen_before_is_refused_unless_we_asked_for_it(store: Store) -> None:
    store.put(answer(1, NOW), NOW)
    rolled_back(lambda: store.put(answer(1, NOW - 1, b"older"), NOW))
    store.put(answer(1, NOW), NOW)
    store.put(answer(1, NOW - 1, b"ours"), NOW, answered=True)
    assert store.get(answer(1, NOW).key, NOW) == answer(1, NOW, b"ours")
    rolled_back(lambda: store.put(answer(1, NOW - 1, b"older"), NOW))


def test_the_memory_of_answers_is_bounded_and_of_nothing_else(tmp_path: Path) -> None:
    """Evidence can name certificates without end."""
    store = Store(tmp_path)
    store.put(entry(TCB, sequence=17), NOW)
    store.put(answer(1, NOW), NOW)
    (first,) = (tmp_path / "seen").glob(f"{ANSWER}*")
    os.utime(first, (1, 1))
    for number in range(ANSWERS_MAX - 1):
        (tmp_path / "seen" / f"{ANSWER}{number}.json").touch()
    (tmp_path / "count").unlink()  # it is not by this store that they came
    store.put(answer(1, NOW), NOW)  # nothing new to remember
    assert first.exists()
    store.put(answer(2, NOW), NOW)
    found = list((tmp_path / "seen").iterdir())
    assert len(found) == ANSWERS_MAX + 1 - ANSWERS_MAX // 4 + 1
    assert not first.exists()
    rolled_back(lambda: store.put(answer(2, NOW - 1), NOW))
    rolled_back(lambda: store.put(entry(TCB, sequence=16), NOW))


# ------------------------------------------------------------------ size, folders


def test_the_oldest_entries_make_room(tmp_path: Path) -> None:
    store = Store(tmp_path, SIZE_MIN)
    body = os.urandom(SIZE_MIN // 5)  # base64 makes four thirds of it
    for number in range(4):
        key = keys.rim(f"NV_{number}")
        store.put(entry(key, body), NOW)
        path = file_of(store, key)
        os.utime(path, (NOW + number, NOW + number))
    assert [found.key.parts[1] for found in store.entries(NOW)] == ["NV_1", "NV_2", "NV_3"]


def test_a_cache_that_could_not_hold_one_entry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least"):
        Store(tmp_path, SIZE_MIN - 1)


def test_strange_files_are_passed_over(store: Store) -> None:
    store.put(entry(), NOW)
    for name, content in (("x.json", b"{}"), ("y.json", b"\0"), ("z.json", b'{"key":5}')):
        (store.root / "entries" / name).write_bytes(content)
    assert list(store.entries(NOW)) == [entry()]


def test_a_folder_that_is_a_file_is_a_clean_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    for call in (
        lambda: Store(path).put(entry(), NOW),
        lambda: Store(path).get(RIM, NOW),
        lambda: Store(path).exclusive(RIM).__enter__(),
    ):
        with pytest.raises(ConfigError, match="collateral cache"):
            call()


# ------------------------------------------------------------------ many at once, and kill -9


def test_one_caller_at_a_time_holds_a_key(store: Store) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with store.exclusive(RIM):
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


WRITER = """
import sys
from pathlib import Path
from attestation import collateral_key as keys
from attestation.collateral.entry import Checked, Piece, make_entry
from attestation.collateral.store import Store
store, now = Store(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
number = 0
while True:
    number += 1
    body = bytes([number % 256]) * 200_000
    key = keys.tcb_info("tdx", bytes(6))
    store.put(make_entry(key, Piece(body), Checked(None, number), now), now)
"""


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.11])
def test_a_writer_killed_at_any_moment_leaves_a_usable_cache(tmp_path: Path, delay: float) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), str(NOW)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    time.sleep(delay)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    store = Store(tmp_path)
    try:
        found = store.get(TCB, NOW)
        assert found is None or len(set(found.piece.body)) == 1
        number = 0 if found is None else found.sequence or 0
    except AttestationError:
        # Killed between the memory and the entry: the older entry is refused, a newer one kept.
        record = json.loads(next((tmp_path / "seen").glob("*.json")).read_bytes())
        number = record["sequence"]
    store.put(entry(TCB, sequence=number + 1), NOW)
    assert store.get(TCB, NOW) == entry(TCB, sequence=number + 1)

"""What is remembered between runs, and between processes that run at once."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import pytest

from client.api import Client
from client.state import Seen, TrustState
from wire.errors import ConfigError, ForkError, RollbackError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.session import Options

ORIGIN = "log.test/evl/1"
MESSAGES = [{"role": "user", "content": "hello"}]


def test_a_record_survives_and_is_private(tmp_path: Path) -> None:
    state = TrustState(tmp_path / "state")
    assert state.read(ORIGIN) is None
    assert state.advance(ORIGIN, None, Seen("note 1\n", 3))
    assert TrustState(tmp_path / "state").read(ORIGIN) == Seen("note 1\n", 3)
    (file,) = (tmp_path / "state").glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_swap_against_an_old_record_is_refused(tmp_path: Path) -> None:
    state = TrustState(tmp_path)
    assert state.advance(ORIGIN, None, Seen("note 1\n", 3))
    assert not state.advance(ORIGIN, None, Seen("note 0\n", 1))
    assert state.read(ORIGIN) == Seen("note 1\n", 3)


def test_logs_do_not_share_a_record(tmp_path: Path) -> None:
    state = TrustState(tmp_path)
    state.advance(ORIGIN, None, Seen("note 1\n", 3))
    assert state.read("another.log/../evl") is None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"v":1}', b'{"v":2,"origin":"x","checkpoint":"","leaf":0}']
)
def test_a_broken_record_stops_the_client_instead_of_being_forgotten(
    tmp_path: Path, content: bytes
) -> None:
    state = TrustState(tmp_path)
    state.advance(ORIGIN, None, Seen("note 1\n", 3))
    (file,) = tmp_path.glob("*.json")
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not a state record"):
        state.read(ORIGIN)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="state"):
        TrustState(tmp_path / "file" / "state").advance(ORIGIN, None, Seen("note\n", 0))


def advance_many(root: Path, start: Any, wins: Any, name: int) -> None:
    state = TrustState(root)
    start.wait()
    for _ in range(50):
        while True:
            seen = state.read(ORIGIN)
            leaf = 0 if seen is None else seen.snapshot_leaf
            if state.advance(ORIGIN, seen, Seen(f"note by {name}\n", leaf + 1)):
                break
    wins.put(name)


def test_processes_sharing_a_folder_never_lose_an_update(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, wins = context.Event(), context.Queue()
    workers = [
        context.Process(target=advance_many, args=(tmp_path, start, wins, n)) for n in range(2)
    ]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(50)
        assert worker.exitcode == 0
    wins.close()
    wins.join_thread()
    seen = TrustState(tmp_path).read(ORIGIN)
    assert seen is not None
    assert seen.snapshot_leaf == 100


def test_a_second_run_refuses_a_log_the_first_run_had_seen_larger(
    service: Service, options: Callable[..., Options]
) -> None:
    with service.serve() as server:
        with Client(
            server.url, service.api_key, policy=service.policy(), options=options()
        ) as first:
            first.chat(MESSAGES, "m")  # the receipt's head is larger than the directory's
        service.log = service.log.truncated(service.log.size - 1)
        second = Client(server.url, service.api_key, policy=service.policy(), options=options())
        with pytest.raises(RollbackError), second:
            second.verify()


def test_two_clients_at_once_see_the_fork_between_them(
    service: Service, options: Callable[..., Options]
) -> None:
    with service.serve() as server:
        one = Client(server.url, service.api_key, policy=service.policy(), options=options())
        two = Client(server.url, service.api_key, policy=service.policy(), options=options())
        one.verify()
        service.publish()
        one.verify()
        service.log = service.log.forked(2)
        service.publish()
        with pytest.raises(ForkError):
            two.verify()
        one.close()
        two.close()


def test_clients_that_share_a_folder_work_side_by_side(
    service: Service, options: Callable[..., Options]
) -> None:
    with service.serve() as server:
        clients = [
            Client(server.url, service.api_key, policy=service.policy(), options=options())
            for _ in range(3)
        ]
        for _ in range(2):
            service.publish()
            for client in clients:
                assert client.verify().ok
                assert client.chat(MESSAGES, "m").text == "You said: hello"
        for client in clients:
            client.close()


def test_a_state_folder_may_be_given_as_text(
    service: Service, server: Loopback, tmp_path: Path
) -> None:
    folder = tmp_path / "told"
    with Client(server.url, service.api_key, policy=service.policy(), state_dir=str(folder)) as one:
        one.chat([{"role": "user", "content": "hi"}], "m")
    assert list(folder.glob("*.json"))

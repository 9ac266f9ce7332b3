"""The control channel and the journal: framing, descriptors, and what may be said."""

import enum
import os
import socket
import struct
import sys
import threading
from typing import Any

import pytest

from enclave_worker import journal
from enclave_worker.clock import Clock
from enclave_worker.control import MESSAGE_MAX, ControlSocket
from enclave_worker.journal import Event, emit, report
from wire.errors import ProtocolFailure


@pytest.fixture
def pair() -> Any:
    left, right = socket.socketpair()
    ends = ControlSocket(left), ControlSocket(right, takes_fds=True)
    yield ends
    for end in ends:
        end.close()


def test_messages_arrive_whole_and_in_order(pair: Any) -> None:
    left, right = pair
    for number in range(5):
        left.send({"type": "STATUS", "n": number})
    assert [right.receive()["n"] for _ in range(5)] == list(range(5))


def test_a_large_message_is_put_together_again(pair: Any) -> None:
    left, right = pair
    text = "x" * 1_000_000
    sender = threading.Thread(target=left.send, args=({"type": "CONFIG", "text": text},))
    sender.start()
    assert right.receive()["text"] == text
    sender.join()


def test_a_descriptor_rides_on_its_message(pair: Any) -> None:
    left, right = pair
    ours, theirs = os.pipe()
    left.send({"type": "CONN"}, fd=theirs)
    os.close(theirs)
    assert right.receive()["type"] == "CONN"
    received = right.take_fd()
    os.write(received, b"through")
    os.close(received)
    assert os.read(ours, 7) == b"through"
    os.close(ours)


def test_a_connection_message_without_its_descriptor_is_refused(pair: Any) -> None:
    left, right = pair
    left.send({"type": "CONN"})
    right.receive()
    with pytest.raises(ProtocolFailure, match="without a descriptor"):
        right.take_fd()


def test_an_end_that_takes_no_descriptors_is_left_with_none(pair: Any) -> None:
    left, right = pair
    ours, theirs = os.pipe()
    for _ in range(3):
        right.send({"type": "STATUS"}, fd=theirs)
        assert left.receive()["type"] == "STATUS"
    os.close(theirs)
    # every copy of the writing end is closed: the pipe is at its end
    assert os.read(ours, 1) == b""
    os.close(ours)
    with pytest.raises(ProtocolFailure, match="without a descriptor"):
        left.take_fd()


def test_the_other_end_s_death_is_an_end_not_an_error(pair: Any) -> None:
    left, right = pair
    left.close()
    assert right.receive() is None
    assert right.closed


@pytest.mark.parametrize("body", [b"[]", b'{"no":"type"}', b'{"type":5}', b"{", b"\xff"])
def test_what_is_no_typed_object_is_refused(pair: Any, body: bytes) -> None:
    left, right = pair
    os.write(left.fileno(), struct.pack(">I", len(body)) + body)
    with pytest.raises(ProtocolFailure):
        right.receive()


def test_an_absurd_length_is_refused_before_anything_is_kept(pair: Any) -> None:
    left, right = pair
    os.write(left.fileno(), struct.pack(">I", MESSAGE_MAX + 1))
    with pytest.raises(ProtocolFailure, match="length"):
        right.receive()


def test_the_clock_follows_monotonic_time_whatever_the_host_sets() -> None:
    wall, ticks = [1_790_000_000 * 10**9], [5 * 10**9]
    clock = Clock(lambda: wall[0], lambda: ticks[0])
    wall[0] -= 3600 * 10**9
    ticks[0] += 2 * 10**9
    assert clock.s() == 1_790_000_002
    assert clock.ms() == 1_790_000_002_000


class Colour(enum.Enum):
    RED = "red"


def test_an_event_is_one_line_of_names_and_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    emit(Event.JOB_DONE, running=3, ok=True, colour=Colour.RED)
    assert capfd.readouterr().err == "worker job_done running=3 ok=1 colour=red\n"


@pytest.mark.parametrize("value", ["text", b"bytes", 1.5, None, ["x"]])
def test_an_event_cannot_carry_anything_a_client_said(value: Any) -> None:
    with pytest.raises(TypeError):
        emit(Event.NOTICE, field=value)


def test_an_exception_is_reduced_to_its_type_and_our_own_lines(
    capfd: pytest.CaptureFixture[str],
) -> None:
    try:
        Clock(lambda: int("secret canary"))
    except ValueError as error:
        report(error)
    said = capfd.readouterr().err
    assert "canary" not in said
    assert "type=ValueError" in said
    assert "enclave_worker/clock.py:" in said


def test_silenced_hooks_print_no_message(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import threading\nfrom enclave_worker.journal import silence\nsilence()\n"
        "import logging, warnings\nlogging.error('secret canary')\nwarnings.warn('secret canary')\n"
        "def boom(): raise KeyError('secret canary')\n"
        "thread = threading.Thread(target=boom)\nthread.start()\nthread.join()\n"
        "class Bad:\n    def __del__(self): raise OSError('secret canary')\n"
        "bad = Bad()\ndel bad\n"
        "raise ValueError('secret canary')\n"
    )
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-P", "-c", code])
    _, status = os.waitpid(pid, 0)
    said = capfd.readouterr().err
    assert status != 0
    assert "canary" not in said
    for name in ("KeyError", "OSError", "ValueError"):
        assert f"type={name}" in said


def test_a_loop_error_is_named_without_its_words(capfd: pytest.CaptureFixture[str]) -> None:
    loop: Any = None
    journal.loop_handler(loop, {"message": "secret canary", "exception": OSError("canary")})
    journal.loop_handler(loop, {"message": "secret canary"})
    said = capfd.readouterr().err
    assert "canary" not in said
    assert "type=OSError" in said

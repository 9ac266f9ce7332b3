"""Landlock bites in a real process: reads, writes, execution, TCP; and degrades by ABI."""

import socket
import struct

import pytest

from enclave_worker.sandbox.landlock import Rights

pytestmark = pytest.mark.sandbox


def test_files_outside_the_list_cannot_be_read(child, tmp_path, needs_landlock):
    (tmp_path / "inside").write_text("x")
    facts = child(
        """
        before = attempt(read, "/etc/passwd")
        allow_only(sys.argv[1])
        report(before=before, passwd=attempt(read, "/etc/passwd"),
               inside=attempt(read, sys.argv[1] + "/inside"), listing=attempt(os.listdir, "/etc"),
               other=attempt(read, "/proc/1/environ"))
        """,
        str(tmp_path),
    )
    assert (facts["before"], facts["inside"]) == ("ok", "ok")
    assert (facts["passwd"], facts["listing"], facts["other"]) == ("EACCES",) * 3


def test_nothing_can_be_written_even_where_reading_is_allowed(child, tmp_path, needs_landlock):
    (tmp_path / "old").write_text("x")
    facts = child(
        """
        folder = sys.argv[1]
        before = attempt(os.mkdir, folder + "/before")
        allow_only(folder)
        report(before=before, new=attempt(open, folder + "/new", "w"),
               append=attempt(open, folder + "/old", "a"),
               rename=attempt(os.rename, folder + "/old", folder + "/moved"),
               remove=attempt(os.unlink, folder + "/old"),
               truncate=attempt(os.truncate, folder + "/old", 0),
               null=attempt(open, "/dev/null", "w"))
        """,
        str(tmp_path),
    )
    assert (facts.pop("before"), facts.pop("null")) == ("ok", "ok")
    if needs_landlock < 3:
        facts.pop("truncate")
    # A rename is judged by its reparenting right (EXDEV) before its removal right on some kernels.
    assert set(facts.values()) <= {"EACCES", "EXDEV"}
    assert (tmp_path / "old").read_text() == "x"


def test_no_program_can_be_started(child, tmp_path, needs_landlock):
    facts = child(
        """
        import subprocess
        before = attempt(subprocess.run, ["/bin/true"])
        allow_only("/usr", "/bin")
        report(before=before, run=attempt(subprocess.run, ["/bin/true"]))
        """
    )
    assert facts == {"before": "ok", "run": "EACCES"}


def test_tcp_is_refused_in_both_directions(child, needs_landlock):
    if needs_landlock < 4:
        pytest.skip("kernel without Landlock network rules (ABI 4)")
    with socket.create_server(("127.0.0.1", 0)) as server:
        facts = child(
            """
            address = ("127.0.0.1", int(sys.argv[1]))
            def dial():
                socket.create_connection(address, timeout=5).close()
            def serve():
                socket.create_server(("127.0.0.1", 0)).close()
            before = [attempt(dial), attempt(serve)]
            allow_only("/usr")
            report(before=before, after=[attempt(dial), attempt(serve)])
            """,
            str(server.getsockname()[1]),
        )
    assert facts == {"before": ["ok", "ok"], "after": ["EACCES", "EACCES"]}


def test_processes_outside_cannot_be_signalled(spawn, child, needs_landlock):
    if needs_landlock < 6:
        pytest.skip("kernel without Landlock scopes (ABI 6)")
    process, _ = spawn("report(); sys.stdin.read()")
    facts = child(
        """
        import signal
        pid = int(sys.argv[1])
        before = attempt(os.kill, pid, 0)
        allow_only("/usr")
        report(before=before, after=attempt(os.kill, pid, signal.SIGKILL))
        """,
        str(process.pid),
    )
    assert facts == {"before": "ok", "after": "EPERM"}
    assert process.poll() is None


def test_a_thread_started_before_is_not_bound(child, needs_landlock):
    """The trap that fixes the order: Landlock comes before any thread, or it means nothing."""
    facts = child(
        """
        go, result = threading.Event(), []
        def late():
            go.wait()
            result.append(attempt(read, "/etc/passwd"))
        thread = threading.Thread(target=late)
        thread.start()
        allow_only("/usr")
        go.set()
        thread.join()
        report(early_thread=result[0], main=attempt(read, "/etc/passwd"))
        """
    )
    assert facts == {"early_thread": "ok", "main": "EACCES"}


def test_descriptors_opened_before_keep_working(child, needs_landlock):
    facts = child(
        """
        held = open("/etc/passwd", "rb")
        allow_only("/usr")
        report(bytes=len(held.read(4)))
        """
    )
    assert facts == {"bytes": 4}


@pytest.mark.parametrize(
    ("abi", "words", "tcp"),
    [(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 2, 3), (5, 2, 3), (6, 3, 3), (7, 3, 3)],
)
def test_rights_degrade_with_the_abi(abi, words, tcp):
    rights = Rights.of(abi)
    attribute = rights.attribute()
    assert len(attribute) == 8 * words
    assert struct.unpack_from("=Q", attribute)[0] == rights.files
    assert rights.tcp == tcp
    assert rights.files.bit_count() == 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)

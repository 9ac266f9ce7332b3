"""A wrapper is taken only if it works; inside it there is no way out of the machine."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from enclave_worker.sandbox import namespaces

from .conftest import ROOT, child_argv

pytestmark = pytest.mark.sandbox


def test_inside_the_wrapper_the_record_says_so(child, wrapper):
    name = namespaces.wrap_command([])[1]
    facts = child(
        """
        from enclave_worker.sandbox import namespaces
        controls = namespaces.probe(json.loads(sys.argv[1]), sys.argv[2])
        report(**{field: control.state for field, control in controls.items()})
        """,
        json.dumps(dict(namespaces.namespace_ids())),
        name,
        wrapper=wrapper,
    )
    assert facts == dict.fromkeys(("wrapper", "userns", "netns", "pidns"), "applied")


def test_outside_a_wrapper_the_record_claims_nothing():
    controls = namespaces.probe(namespaces.namespace_ids(), "none")
    assert {control.state for control in controls.values()} == {"unavailable"}


def test_without_ids_to_compare_nothing_is_claimed():
    controls = namespaces.probe(None, "unshare")
    assert {controls[field].state for field in ("userns", "netns", "pidns")} == {"unavailable"}


def test_there_is_no_route_out(child, wrapper):
    code = """
        address = ("127.0.0.1", int(sys.argv[1]))
        def dial():
            socket.create_connection(address, timeout=5).close()
        def datagram():
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", address)
        with open("/proc/net/route") as table:
            routes = len(table.readlines()) - 1
        report(dial=attempt(dial), datagram=attempt(datagram), routes=max(routes, 0))
        """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        outside, inside = child(code, port), child(code, port, wrapper=wrapper)
    assert (outside["dial"], outside["datagram"]) == ("ok", "ok")
    if inside["dial"] == "ECONNREFUSED":  # bwrap brings its own loopback up: another machine's
        inside.update(dial="ENETUNREACH", datagram="ENETUNREACH")
    assert inside == {"dial": "ENETUNREACH", "datagram": "ENETUNREACH", "routes": 0}


def test_other_processes_are_out_of_reach(child, wrapper):
    facts = child(
        "report(kill=attempt(os.kill, int(sys.argv[1]), 0))", str(os.getpid()), wrapper=wrapper
    )
    assert facts == {"kill": "ESRCH"}


def test_a_descriptor_passes_through_the_wrapper(child, wrapper):
    ours, theirs = socket.socketpair()
    child(
        "socket.socket(fileno=int(sys.argv[1])).sendall(b'hello'); report()",
        str(theirs.fileno()),
        wrapper=wrapper,
        pass_fds=[theirs.fileno()],
    )
    assert ours.recv(16) == b"hello"
    ours.close()
    theirs.close()


WAIT = "report(); __import__('time').sleep(30)"


def test_the_worker_dies_with_its_wrapper(wrapper):
    """The socket's end is held by wrapper and worker only: its closing shows that both are gone."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [*wrapper, *child_argv(WAIT)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    assert process.stdout is not None
    assert process.stdout.readline() == b"{}\n"
    process.kill()
    process.communicate()
    ours.settimeout(5)
    assert ours.recv(1) == b""
    ours.close()


def test_the_worker_dies_with_its_launcher(spawn, wrapper):
    if "unshare" in "".join(wrapper) and shutil.which("setpriv") is None:
        pytest.skip("no setpriv: unshare cannot be tied to its parent")
    ours, theirs = socket.socketpair()
    launcher, _ = spawn(
        """
        import subprocess, time
        argv, fd = json.loads(sys.argv[1]), int(sys.argv[2])
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=[fd])
        os.close(fd)
        process.stdout.readline()
        report()
        time.sleep(30)
        """,
        json.dumps([*wrapper, *child_argv(WAIT)]),
        str(theirs.fileno()),
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    launcher.kill()
    ours.settimeout(5)
    assert ours.recv(1) == b""
    ours.close()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            '#!/bin/sh\nwhile [ "$1" != readlink ]; do shift; done\nexec "$@"\n', id="idle"
        ),
        pytest.param("#!/bin/sh\nexit 1\n", id="fails"),
        pytest.param("#!/bin/sh\necho user:[1] net:[2]\n", id="one-namespace-missing"),
    ],
)
def test_a_wrapper_that_does_not_separate_is_not_taken(child, tmp_path, script):
    for name in ("bwrap", "unshare"):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "readlink").symlink_to(shutil.which("readlink") or "/bin/readlink")
    facts = child(
        """
        from enclave_worker.sandbox import namespaces
        argv, name = namespaces.wrap_command(["worker", "--x"])
        report(argv=argv, name=name)
        """,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert facts == {"argv": ["worker", "--x"], "name": "none"}


def test_bwrap_shows_only_what_is_listed(tmp_path):
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    (tmp_path / "shown").write_text("x")
    prefix, name = namespaces.wrap_command([], read_paths=[Path("/usr"), Path("/bin"), tmp_path])
    assert name == "bwrap"
    looked = subprocess.run(
        [*prefix, "/bin/sh", "-c", f"cat {tmp_path}/shown; ls /etc; touch /made {tmp_path}/made"],
        capture_output=True,
    )
    assert looked.stdout == b"xld.so.cache\n"
    assert b"Read-only file system" in looked.stderr
    assert not (tmp_path / "made").exists()

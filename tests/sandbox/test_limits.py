"""Limits bite: no core file, no privilege, no look from outside, no life after the parent."""

import os
import subprocess

import pytest

pytestmark = pytest.mark.sandbox

NOBODY = 65534


def test_every_limit_reports_applied(child):
    facts = child(
        """
        from enclave_worker.sandbox import limits
        report(**{name: c.state for name, c in limits.apply_limits().items()})
        """
    )
    assert facts == dict.fromkeys(
        ("capabilities", "no_new_privs", "dumpable", "core", "pdeathsig"), "applied"
    )


def test_a_crash_leaves_no_core_file(child, tmp_path):
    facts = child(
        """
        import resource
        from enclave_worker.sandbox import limits
        os.chdir(sys.argv[1])
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        def crash(prepare):
            pid = os.fork()
            if pid == 0:
                prepare()
                os.abort()
            return os.WCOREDUMP(os.waitpid(pid, 0)[1])
        report(free=crash(lambda: None), limited=crash(limits.no_core_files))
        """,
        str(tmp_path),
    )
    if not facts["free"]:
        pytest.skip("this kernel or container writes no core files to begin with")
    assert not facts["limited"]


VICTIM = """
from enclave_worker.sandbox import limits
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
# Changing the user has cleared the flag: set it, so that only the control clears it.
libc.prctl(4, 1)
if sys.argv[1] == "limited":
    assert limits.not_dumpable().state == "applied"
report()
sys.stdin.read()
"""


@pytest.mark.parametrize(("mode", "readable"), [("free", True), ("limited", False)])
def test_others_of_the_same_user_cannot_look_in(spawn, mode, readable):
    """Baseline and control differ in one call; the reader is no root, which would see through."""
    victim, _ = spawn(VICTIM, mode)
    reader = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    for name in ("environ", "maps"):
        looked = subprocess.run(
            ["cat", f"/proc/{victim.pid}/{name}"], capture_output=True, **reader
        )
        assert (looked.returncode == 0) is readable, name
    # The file that debuggers read memory through: opening it is the permission check.
    opened = subprocess.run(
        ["/bin/sh", "-c", f"exec 3</proc/{victim.pid}/mem"], capture_output=True, **reader
    )
    assert (opened.returncode == 0) is readable


def test_the_worker_dies_with_its_parent(spawn, ends):
    parent, facts = spawn(
        """
        import subprocess, time
        inner = ("import os, time; from enclave_worker.sandbox import limits;"
                 "assert limits.die_with_parent().state == 'applied';"
                 "print(os.getpid(), flush=True); time.sleep(30)")
        process = subprocess.Popen([sys.executable, "-c", inner], stdout=subprocess.PIPE)
        report(pid=int(process.stdout.readline()))
        time.sleep(30)
        """
    )
    assert not ends(facts["pid"], 0.05)
    parent.kill()
    assert ends(facts["pid"], 5)


def test_a_namespace_root_loses_its_power(child, wrapper):
    facts = child(
        """
        from enclave_worker.sandbox import limits
        before = attempt(socket.sethostname, "first")
        control = limits.drop_capabilities()
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        held = [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")]
        report(before=before, state=control.state, after=attempt(socket.sethostname, "second"),
               held=sum(held), bounding=int(status["CapBnd"], 16))
        """,
        wrapper=wrapper,
    )
    assert facts["before"] in ("ok", "EPERM")  # bwrap has dropped them already
    assert (facts["state"], facts["after"]) == ("applied", "EPERM")
    assert (facts["held"], facts["bounding"]) == (0, 0)

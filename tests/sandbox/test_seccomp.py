"""The filter bites in a real process, in every thread, and leaves alone what inference needs."""

import hashlib
import platform
import re
import signal
import socket
from pathlib import Path

import pytest
from simulators.bpf import answer

from enclave_worker.sandbox import seccomp
from enclave_worker.sandbox.syscalls import ABSENT, ARCHITECTURES, DENIED, JUDGED, LAST_KNOWN

pytestmark = pytest.mark.sandbox

ALLOW = 0x7FFF0000
EPERM, ENOSYS = 0x00050000 | 1, 0x00050000 | 38
KILL = 0x80000000
CLONE_THREAD_FLAGS = 0x3D0F00  # what glibc passes for a thread
CLONE_FORK_FLAGS = 0x1200011  # what glibc's fork() passes

needs_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86_64 numbers used")
only_known = pytest.mark.skipif(
    platform.machine() not in ARCHITECTURES, reason="no system-call table for this architecture"
)


@only_known
def test_a_sealed_process_opens_nothing_and_starts_nothing(child):
    facts = child(
        """
        def start():
            import subprocess
            subprocess.run(["/bin/true"])
        import subprocess
        calls = {
            "open": (read, "/etc/passwd"), "socket": (socket.socket,), "udp": (
                socket.socket, socket.AF_INET, socket.SOCK_DGRAM),
            "exec": (os.execv, "/bin/true", ["true"]), "fork": (os.fork,), "run": (start,),
            "spawn": (os.posix_spawn, "/bin/true", ["true"], {}), "kill": (os.kill, os.getpid(), 0),
            "unlink": (os.unlink, "/nonexistent"), "rename": (os.rename, "/a", "/b"),
            "datagrams": (socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM),
        }
        held = socket.socketpair()
        late = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        before = {"open": attempt(read, "/etc/passwd"), "run": attempt(start)}
        seal()
        after = {name: attempt(*call) for name, call in calls.items()}
        after["connect"] = attempt(held[0].connect, "/run/nowhere")
        after["bind"] = attempt(held[0].bind, "/tmp/nowhere")
        after["addressed"] = attempt(late[0].sendto, b"x", "/dev/log")
        report(before=before, after=after)
        """
    )
    assert set(facts["before"].values()) == {"ok"}
    assert facts["after"] == dict.fromkeys(facts["after"], "EPERM")


@only_known
def test_a_thread_that_existed_before_is_bound_too(child):
    facts = child(
        """
        go, result = threading.Event(), {}
        def late():
            go.wait()
            result.update(open=attempt(read, "/etc/passwd"), socket=attempt(socket.socket),
                          fork=attempt(os.fork))
        thread = threading.Thread(target=late)
        thread.start()
        seal()
        go.set()
        thread.join()
        report(**result)
        """
    )
    assert facts == {"open": "EPERM", "socket": "EPERM", "fork": "EPERM"}


@only_known
def test_threads_memory_random_and_stream_pairs_stay(child):
    facts = child(
        """
        import asyncio
        loop = asyncio.new_event_loop()
        seal()
        done = []
        thread = threading.Thread(target=lambda: done.append(1))
        thread.start()
        thread.join()
        left, right = socket.socketpair()
        async def talk():
            reader, writer = await asyncio.open_connection(sock=left)
            other, answering = await asyncio.open_connection(sock=right)
            writer.write(b"ping")
            await writer.drain()
            first = await other.readexactly(4)
            in_thread = await asyncio.to_thread(bytes, 3)
            writer.close()
            answering.close()
            return first.decode(), len(in_thread)
        said, length = loop.run_until_complete(talk())
        loop.close()
        report(thread=len(done), said=said, to_thread=length, random=len(os.urandom(8)),
               memory=len(bytearray(64 << 20)) >> 20)
        """
    )
    assert facts == {"thread": 1, "said": "ping", "to_thread": 3, "random": 8, "memory": 64}


@only_known
def test_a_descriptor_sent_over_a_held_socket_works(spawn):
    ours, theirs = socket.socketpair()
    process, _ = spawn(
        """
        control = socket.socket(fileno=int(sys.argv[1]))
        seal()
        report()
        message, fds, _, _ = socket.recv_fds(control, 16, 1)
        talk = socket.socket(fileno=fds[0])
        talk.sendall(b"got " + talk.recv(16))
        """,
        str(theirs.fileno()),
        pass_fds=[theirs.fileno()],
    )
    near, far = socket.socketpair()
    socket.send_fds(ours, [b"conn"], [far.fileno()])
    far.close()
    near.sendall(b"work")
    assert near.recv(16) == b"got work"
    assert process.wait(10) == 0
    for end in (ours, theirs, near):
        end.close()


@needs_x86_64
def test_no_process_can_be_looked_into(child):
    facts = child(
        """
        import struct
        text = ctypes.create_string_buffer(b"secret")
        into = ctypes.create_string_buffer(8)
        def vector(buffer):
            return struct.pack("@PN", ctypes.addressof(buffer), 6)
        def peek():
            return system(310, os.getpid(), vector(into), 1, vector(text), 1, 0)
        before = [peek(), into.value.decode()]
        seal()
        PTRACE_TRACEME, PTRACE_ATTACH = 0, 16
        report(before=before, peek=peek(), poke=system(311, os.getpid(), vector(into), 1,
               vector(text), 1, 0), traceme=system(101, PTRACE_TRACEME, 0, 0, 0),
               attach=system(101, PTRACE_ATTACH, os.getppid(), 0, 0),
               pidfd=system(434, os.getppid(), 0), bpf=system(321, 0, 0, 0),
               uring=system(425, 1, 0), keys=system(250, 0, 0), perf=system(298, 0, 0, 0, 0, 0),
               fault=system(323, 0))
        """
    )
    assert facts.pop("before") == ["ok", "secret"]
    assert facts == dict.fromkeys(facts, "EPERM")


@needs_x86_64
def test_what_was_set_cannot_be_unset(child):
    facts = child(
        """
        import resource
        PR_SET_DUMPABLE, PR_GET_DUMPABLE, PR_SET_NAME = 4, 3, 15
        libc.prctl(PR_SET_DUMPABLE, 0)
        seal()
        report(dumpable=system(157, PR_SET_DUMPABLE, 1), still=libc.prctl(PR_GET_DUMPABLE),
               ptracer=system(157, 0x59616D61, -1), name=system(157, PR_SET_NAME, b"worker"),
               limits=resource.getrlimit(resource.RLIMIT_CORE) is not None,
               core=system(160, 4, b"\\0" * 16))
        """
    )
    assert facts == {
        "dumpable": "EPERM",
        "still": 0,
        "ptracer": "EPERM",
        "name": "ok",
        "limits": True,
        "core": "EPERM",
    }


@needs_x86_64
def test_the_x32_numbers_kill(child):
    done = child.run("seal(); libc.syscall(ctypes.c_long(0x40000000 | 39)); report()")
    assert done.returncode == -signal.SIGSYS


@needs_x86_64
def test_thirty_two_bit_calls_kill(child):
    # mov eax, 20 (getpid); int 0x80; ret
    code = """
        import mmap
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(bytes.fromhex("b814000000cd80c3"))
        enter = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        if sys.argv[1] == "sealed":
            seal()
        report(same=enter() == os.getpid())
        """
    free = child.run(code, "free")
    if free.returncode != 0:
        pytest.skip("kernel without IA32 emulation")
    assert child.run(code, "sealed").returncode == -signal.SIGSYS


@only_known
def test_the_posture_names_the_filter_that_runs(child):
    facts = child(
        """
        from enclave_worker.sandbox import confine, limits
        limits.no_new_privileges()
        control = confine.confine_late()["seccomp"]
        report(state=control.state, detail=control.detail)
        """
    )
    digest = hashlib.sha256(seccomp.build(platform.machine())).hexdigest()
    assert facts == {"state": "applied", "detail": "sha256:" + digest}


@only_known
def test_without_privilege_or_no_new_privs_the_record_says_refused(child):
    facts = child(
        """
        from enclave_worker.sandbox import confine, limits
        limits.drop_capabilities()
        controls = confine.confine_late()
        report(**{name: [c.state, errno.errorcode.get(c.errno)] for name, c in controls.items()},
               open=attempt(read, "/etc/passwd"))
        """
    )
    assert facts["seccomp"] == ["refused", "EACCES"]
    assert facts["tsync"][0] == "refused"
    assert facts["open"] == "ok"


def ask(machine: str, name: str, *arguments: int) -> int:
    architecture = ARCHITECTURES[machine]
    number = {**DENIED, **JUDGED}[name][architecture.column]
    return answer(
        seccomp.build(machine), number=number, audit=architecture.audit, arguments=arguments
    )


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
def test_every_listed_call_is_denied(machine):
    column = ARCHITECTURES[machine].column
    names = [name for name, numbers in DENIED.items() if numbers[column] != ABSENT]
    assert {name: ask(machine, name) for name in names} == dict.fromkeys(names, EPERM)


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("clone", (CLONE_THREAD_FLAGS,), ALLOW),
        ("clone", (CLONE_FORK_FLAGS,), EPERM),
        ("clone", (CLONE_THREAD_FLAGS | 0x10000000,), EPERM),  # CLONE_NEWUSER
        ("clone", (CLONE_THREAD_FLAGS | 0x80,), EPERM),  # CLONE_NEWTIME
        ("clone3", (0, 88), ENOSYS),
        ("socketpair", (1, 1 | 0o2000000), ALLOW),  # AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC
        ("socketpair", (1, 2), EPERM),  # SOCK_DGRAM
        ("socketpair", (1, 5), EPERM),  # SOCK_SEQPACKET
        ("socketpair", (16, 1), EPERM),  # AF_NETLINK
        ("sendto", (3, 4096, 5, 0, 0, 0), ALLOW),
        ("sendto", (3, 4096, 5, 0, 0x7FFF0000, 16), EPERM),
        ("sendto", (3, 4096, 5, 0, 0x7F00_0000_0000, 16), EPERM),  # low half of the pointer is zero
        ("prlimit64", (0, 4, 0, 4096), ALLOW),
        ("prlimit64", (0, 4, 4096, 0), EPERM),
        ("prctl", (15, 4096), ALLOW),
        ("prctl", (4, 1), EPERM),
        ("prctl", (1, 0), EPERM),
        ("prctl", (0x59616D61, 1), EPERM),
        ("prctl", (0x1_0000_0004, 1), EPERM),  # the kernel reads an int: high bits are no disguise
        ("ioctl", (3, 0x5421), ALLOW),  # FIONBIO
        ("ioctl", (0, 0x5412), EPERM),  # TIOCSTI
        ("ioctl", (0, 0x541C), EPERM),  # TIOCLINUX
    ],
)
def test_calls_are_judged_by_their_arguments(machine, name, arguments, verdict):
    assert ask(machine, name, *arguments) == verdict


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
def test_numbers_above_the_table_look_absent(machine):
    audit = ARCHITECTURES[machine].audit
    program = seccomp.build(machine)
    assert answer(program, number=LAST_KNOWN, audit=audit) == ALLOW
    assert answer(program, number=LAST_KNOWN + 1, audit=audit) == ENOSYS


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
def test_another_architecture_kills(machine):
    program = seccomp.build(machine)
    for audit in (0x40000003, 0x40000028, 0xC00000F3):  # i386, arm, riscv64
        assert answer(program, number=0, audit=audit) == KILL


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
def test_the_table_agrees_with_the_kernel_headers(machine):
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"no kernel headers ({header.name}) installed")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    column = ARCHITECTURES[machine].column
    listed = {name: numbers[column] for name, numbers in {**DENIED, **JUDGED}.items()}
    assert listed == {name: int(found.get(name, ABSENT)) for name in listed}

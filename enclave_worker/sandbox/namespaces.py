"""Which wrapper starts the worker in its own namespaces, and whether it is really inside them.

The parent half (:func:`wrap_command`) runs in the launcher; the child half (:func:`probe`) runs in
the worker and compares namespace ids with those the launcher read from itself.
"""

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attestation.posture import Control

from .outcome import applied, unavailable

__all__ = ("BWRAP_READ", "namespace_ids", "probe", "wrap_command")

_KINDS = ("user", "net", "pid")
# A wrapper that needs longer than this to start `readlink` is not one to start a service with.
_PROBE_TIMEOUT_S = 10.0
_UNSHARE = (
    "--user",
    "--map-root-user",
    "--net",
    "--pid",
    "--ipc",
    "--uts",
    "--cgroup",
    "--fork",
    "--kill-child=SIGKILL",
)
# What the C library, the interpreter and torch look at besides the paths given: CPU topology.
BWRAP_READ = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    "/sys/devices/system",
)


def namespace_ids() -> Mapping[str, str]:
    """The caller's namespaces, ``{"net": "net:[4026531833]", …}``; unreadable ones are left out."""
    found = {}
    for kind in _KINDS:
        try:
            found[kind] = str(Path(f"/proc/self/ns/{kind}").readlink())
        except OSError:
            continue
    return found


def wrap_command(argv: Sequence[str], *, read_paths: Iterable[Path] = ()) -> tuple[list[str], str]:
    """Put the best wrapper that truly works here in front of `argv`.

    Order: ``bwrap``, else util-linux ``unshare``, else none. A wrapper is taken only after it has
    started a process that proved to be in other user, network and process namespaces.

    `read_paths` are what ``bwrap`` binds (read-only) into an otherwise empty root; without any the
    whole root is bound read-only. ``unshare`` keeps the caller's file tree: Landlock narrows it.

    Returns:
        The command and the wrapper's name (``bwrap``, ``unshare`` or ``none``), which the launcher
        passes on to the worker for its posture record.

    The wrapper stays the worker's parent and ignores SIGTERM: stop a worker over its channel, or
    with SIGKILL, which takes the worker along. Start it from a thread that outlives it.
    """
    own = namespace_ids()
    for name, prefix, trial in _candidates(tuple(read_paths)):
        if _separates(trial, own):
            return [*prefix, *argv], name
    return list(argv), "none"


def probe(parent: Mapping[str, str] | None, wrapper: str) -> Mapping[str, Control]:
    """Report the child's namespaces against the launcher's ids (`parent`), plus the wrapper."""
    own = namespace_ids()
    controls = {
        "wrapper": unavailable(0, "none") if wrapper == "none" else applied(wrapper),
    }
    for kind in _KINDS:
        field = f"{kind}ns"
        if parent is None or kind not in parent or kind not in own:
            controls[field] = unavailable(0, "no parent namespace to compare with")
        elif parent[kind] == own[kind]:
            controls[field] = unavailable(0, "shared with the launcher")
        else:
            controls[field] = applied()
    if controls["netns"].state == "applied":
        controls["netns"] = _netns_is_empty()
    return controls


def _netns_is_empty() -> Control:
    """A network namespace of one's own isolates only while nothing leads out of it."""
    try:
        lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()[2:]
    except OSError as error:
        return unavailable(error.errno or 0, "interfaces cannot be listed")
    names = sorted(line.split(":")[0].strip() for line in lines)
    # Names of interfaces are the operator's; the count is enough to refuse on.
    extra = [name for name in names if name != "lo"]
    return unavailable(0, f"{len(extra)} interfaces besides lo") if extra else applied("no route")


def _candidates(
    read_paths: tuple[Path, ...],
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each wrapper's name, its prefix, and the prefix under which the trial command is visible."""
    bwrap = shutil.which("bwrap")
    if bwrap:
        trial_paths = (*read_paths, *map(Path, ("/usr", "/bin"))) if read_paths else ()
        yield "bwrap", _bwrap(bwrap, read_paths), _bwrap(bwrap, trial_paths)
    unshare = shutil.which("unshare")
    if unshare:
        # unshare kills the worker when it dies; setpriv makes unshare itself die with the launcher.
        setpriv = shutil.which("setpriv")
        leash = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        # A /proc of its own hides every other process, but a host may forbid mounting one.
        for flags in ((*_UNSHARE, "--mount-proc"), _UNSHARE):
            prefix = [*leash, unshare, *flags, "--"]
            yield "unshare", prefix, prefix


def _bwrap(bwrap: str, read_paths: tuple[Path, ...]) -> list[str]:
    command = [bwrap, "--unshare-user", "--unshare-net", "--unshare-pid", "--unshare-ipc"]
    command += ["--unshare-uts", "--unshare-cgroup-try", "--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL"]
    if read_paths:
        wanted = {*map(Path, BWRAP_READ), *read_paths}
        for path in sorted(p for p in wanted if p.exists()):
            command += ["--ro-bind", str(path), str(path)]
    else:
        command += ["--ro-bind", "/", "/"]
    return [*command, "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/", "--"]


def _separates(prefix: Sequence[str], own: Mapping[str, str]) -> bool:
    """Whether a process started through `prefix` lands in namespaces other than ours."""
    links = [f"/proc/self/ns/{kind}" for kind in _KINDS]
    try:
        done = subprocess.run(
            [*prefix, "readlink", *links],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    inside = done.stdout.decode("ascii", "replace").split()
    if done.returncode != 0 or len(inside) != len(_KINDS):
        return False
    return all(own.get(kind) != link for kind, link in zip(_KINDS, inside, strict=True))

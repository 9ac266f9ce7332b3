"""The complete-measurement lint: a worker that finds anything unmeasured about itself stops.

A measurement says what was hashed, not what ran: a variable that loads a library, an argument, a
file mounted over a measured one, a setting read after the hash was made are all invisible in it.
So the worker compares what it finds with the statement that its evidence will carry. What it must
find, it knows from its own measured code; the launcher's statement must agree with both.

At the start, before anything is loaded:

    1 statement      the parts combine to the measurement the worker will claim
    2 environment    exactly the variables of `launch_line`, and they are the part `env`
    3 arguments      exactly those of `launch_line`, a search path inside the staged root, the
                     staged interpreter under its own name, and they are the part `args`
    4 configuration  the settings received are the part `config`
    5 model          the digest receipts will name is the part `model`
    6 descriptors    0, 1 and 2, no inherited file or socket
    7 read paths     the staged root, where its links lead, and the model; nothing more
    8 mounts         every read path leads where it led when it was measured; no mount inside one,
                     nor over this process' own entries in /proc; in a root of its own, no other
                     mount at all
    9 process        no debugger, and nothing can stand where bytecode is looked for
    10 code          as below, and no executable memory without a file behind it

After the warm-up, before the system-call filter ends all loading:

    10 code          every mapped program and library is staged, or one of the part `system` with
                     this very content; other mapped files are staged, the model's, or the C
                     library's tables; but for these tables, each is the file its name leads to
    11 modules       every imported module came from the staged root

What this cannot see: a change of the staged files after they were hashed; code that ran before this
did and lies about /proc (a library loaded before the interpreter, a debugger or a supervisor of
system calls outside); what torch compiles into memory after the start. The first needs a read-only
image, the second an honest launcher in it. Spec: docs/spec/evidence.md §2.2.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from attestation.measurement import combine
from wire.errors import AttestationError
from wire.ids import sha256_tag

from .launch_line import (
    ARGUMENTS,
    BOOTSTRAP,
    LAUNCH_FLAGS,
    MODULE,
    arguments_digest,
    environment,
    environment_digest,
)
from .observed import NULL
from .sandbox.namespaces import BWRAP_READ
from .system_libraries import file_tag, libraries_digest, system_folders

if TYPE_CHECKING:
    from collections import abc
    from collections.abc import Iterable, Sequence

    from .measured import Measured
    from .mounts import Mount
    from .observed import Mapping, Staged, Start
    from .worker_config import WorkerConfig

DESCRIPTORS: Final = (0, 1, 2)  # control channel, nothing, the operator's log
SHOWN_MAX: Final = 80  # characters of a found name worth showing

_SEARCHED: Final = ("stdlib", "stdlib/lib-dynload", "site", "first_party")
# Memory that the kernel shows as a file, a deleted one: none of it comes from a folder.
_MEMORY: Final = re.compile(
    r"/memfd:.*|/dev/zero|/secretmem|/SYSV[0-9a-f]{8}|/\[aio\]|/anon_hugepage"
)
# Not code: character tables that the C library maps for its locale.
_LOCALES: Final = frozenset({"/usr/lib/locale", "/usr/share/locale"})
_GCONV: Final = "gconv"
_PSEUDO: Final = frozenset({"proc", "tmpfs", "devtmpfs", "devpts", "mqueue", "sysfs"})
_PSEUDO_AT: Final = ("/proc", "/dev")
_OWN_PROC: Final = re.compile(r"/proc/(?:[0-9]+|self|thread-self)(?:/|$)")


def check_start(
    start: Start,
    staged: Staged,
    config: WorkerConfig,
    threads: int,
    places: abc.Mapping[str, str],
    measured: Measured,
) -> None:
    """Steps 1 to 10.

    Args:
        start: what the process was started with.
        staged: the root that its arguments name.
        config: the settings received.
        threads: engine threads in them.
        places: what the launcher wants the sandbox to let through, each with where it leads.
        measured: the launcher's statement.

    Raises:
        AttestationError: the first thing found that is not in the measurement.
        MalformedError: parts or libraries that are none.
    """
    _check_statement(config, measured)
    _check_environment(start.variables, environment(threads), measured)
    _check_arguments(start, staged, measured)
    _equal("config", sha256_tag(config.measured()), measured)
    _equal("model", config.model_digests.get("tree", "none"), measured)
    _check_descriptors(start.descriptors)
    _check_read_paths(staged, config.model_dir, places)
    _check_mounts(start.mounts, places, measured, own_root=config.wrapper == "bwrap")
    _check_process(start)
    _check_code(start.mappings, staged, config.model_dir, measured)
    for name in start.loose:
        raise _found(
            "code", f"executable {_shown(name)}", "only code that a file stands behind", "code"
        )


def check_loaded(
    mappings: Iterable[Mapping],
    modules: Iterable[str],
    staged: Staged,
    model_dir: str,
    measured: Measured,
) -> None:
    """Steps 10 and 11.

    Args:
        mappings: the files mapped now.
        modules: the files of the imported modules.
        staged: the staged root, as `check_start` had it.
        model_dir: the model's folder.
        measured: the launcher's statement.

    Raises:
        AttestationError: code or data that was not measured.
    """
    _check_code(mappings, staged, model_dir, measured)
    # 11
    roots = staged.targets | {staged.path}
    for path in modules:
        if not _inside(path, roots):
            raise _found("modules", _shown(path), f"modules of {staged.path} only", "module")


def _check_code(
    mappings: Iterable[Mapping], staged: Staged, model_dir: str, measured: Measured
) -> None:
    # 10
    known = frozenset(measured.system.values())
    roots = staged.targets | {staged.path}
    for mapping in mappings:
        path = mapping.path
        memory = _MEMORY.fullmatch(path) and (mapping.deleted or path == "/dev/zero")
        if memory and not mapping.code:
            continue
        if mapping.deleted:
            raise _found(
                "code", f"{_shown(path)}, deleted", "files that still have their name", "code"
            )
        if not mapping.code and _is_table(path):
            continue
        named = _inside(path, roots) or (not mapping.code and _inside(path, {model_dir}))
        if not named and not _is_library(path, known):
            raise _found(
                "code", _shown(path), "only staged files and the measured system libraries", "code"
            )
        if mapping.elsewhere:
            raise _found(
                "code",
                f"{_shown(path)}, another file than this name leads to",
                "files that their name leads to",
                "code",
            )


def _check_statement(config: WorkerConfig, measured: Measured) -> None:
    # 1
    image = combine(measured.parts)
    if image != config.image:
        raise _found("statement", f"parts that give {image}", config.image, "statement")
    _equal("system", libraries_digest(measured.system), measured)


def _check_environment(
    variables: Sequence[str], expected: dict[str, str], measured: Measured
) -> None:
    # 2: names are shown, values never: an unexpected one may be somebody's secret.
    found: dict[str, str] = {}
    for variable in variables:
        name, equals, value = variable.partition("=")
        if name not in expected or not equals or name in found:
            raise _found(
                "environment",
                _shown(name) + (" twice" if name in found else ""),
                f"only {', '.join(sorted(expected))}, each once",
                "environment",
                "Start the worker through the launcher; nothing else may add variables.",
            )
        found[name] = value
    for name, value in expected.items():
        if found.get(name) != value:
            state = "another value" if name in found else "nothing"
            raise _found(f"environment {name}", state, f'"{value}"', "environment")
    _equal("env", environment_digest(found), measured)


def _check_arguments(start: Start, staged: Staged, measured: Measured) -> None:
    # 3
    search = "\n".join(f"{staged.path}/{name}" for name in _SEARCHED)
    expected = (*LAUNCH_FLAGS, "-c", BOOTSTRAP, search, MODULE, *ARGUMENTS)
    for at, (found, wanted) in enumerate(zip(start.arguments, expected, strict=False), 1):
        if found != wanted:
            raise _found(f"argument {at}", _shown(found), f'"{_shown(wanted)}"', "argument")
    if len(start.arguments) != len(expected):
        count = len(start.arguments)
        raise _found("arguments", f"{count} of them", f"{len(expected)}", "argument")
    if start.program not in staged.interpreters:
        raise _found("program", _shown(start.program), "the staged interpreter", "argument")
    if start.name != start.program:
        raise _found("argument 0", _shown(start.name), _shown(start.program), "argument")
    _equal("args", arguments_digest([*LAUNCH_FLAGS, BOOTSTRAP, MODULE, *ARGUMENTS]), measured)


def _check_descriptors(descriptors: Sequence[int]) -> None:
    # 6
    for number in descriptors:
        if number not in DESCRIPTORS:
            raise _found(
                "descriptors",
                f"{number} open",
                f"only {', '.join(map(str, DESCRIPTORS))}",
                "descriptor",
                "Whatever starts the worker must close what it has open.",
            )


def _check_read_paths(staged: Staged, model_dir: str, places: abc.Mapping[str, str]) -> None:
    # 7
    allowed = staged.targets | {staged.path, model_dir}
    for path in places:
        if path not in allowed:
            raise _found(
                "read paths", _shown(path), "the staged root, its links and the model", "path"
            )


def _check_mounts(
    mounts: Iterable[Mount], places: abc.Mapping[str, str], measured: Measured, *, own_root: bool
) -> None:
    # 8
    for path, place in places.items():
        if place != measured.places.get(path):
            raise _found(
                "mounts",
                f"{_shown(path)} at {_shown(place)}",
                f"what was measured, {_shown(measured.places.get(path, 'nothing'))}",
                "mount",
                "Unmount what covers it, or start the launcher again, which measures it.",
            )
    paths = frozenset(places)
    for mount in mounts:
        point = mount.point
        if point in paths or point == "/":
            continue
        if _OWN_PROC.match(point):
            raise _found("mounts", _shown(point), "none over a process in /proc", "mount")
        if _inside(point, paths):
            raise _found(
                "mounts",
                _shown(point),
                "none inside a measured folder",
                "mount",
                "Unmount it, or measure after mounting and give the worker that folder itself.",
            )
        pseudo = mount.kind in _PSEUDO and _inside(point, set(_PSEUDO_AT))
        if own_root and not pseudo and point not in BWRAP_READ:
            raise _found("mounts", _shown(point), "only measured folders and /proc, /dev", "mount")


def _check_process(start: Start) -> None:
    # 9
    if start.tracer:
        raise _found("process", f"a debugger, process {start.tracer}", "none", "process")
    if not start.null:
        raise _found("process", f"another {NULL}", "the device, below which nothing is", "process")


def _equal(part: str, tag: str, measured: Measured) -> None:
    """Steps 1 to 5: what was found is the part of this name."""
    wanted = measured.parts.get(part, "nothing measured")
    if tag != wanted:
        raise _found(f"part {part}", tag, wanted, "statement")


def _inside(path: str, roots: set[str] | frozenset[str]) -> bool:
    return path in roots or any(str(parent) in roots for parent in PurePath(path).parents)


def _is_library(path: str, known: frozenset[str]) -> bool:
    """Whether it is one of the measured system libraries, by its content now."""
    if not _inside(path, set(map(str, system_folders()))):
        return False
    try:
        return file_tag(Path(path)) in known
    except OSError:
        return False


def _is_table(path: str) -> bool:
    folders = frozenset(map(str, system_folders()))
    return _inside(path, _LOCALES) or (
        _inside(path, folders) and PurePath(path).parent.name == _GCONV
    )


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:SHOWN_MAX])


def _found(
    where: str, found: str, expected: str, code: str, remedy: str = "Measure it, or take it away."
) -> AttestationError:
    return AttestationError(
        f"measurement not complete: {where}: found {found}, expected {expected}",
        reasons=(f"unmeasured_{code}",),
        hint=remedy,
    )

"""Runs tests against one mutant at a time, each in a process of its own.

Most faults are in a function's body. One process imports and collects everything once and runs the
tests without a fault; it then forks for each such mutant, and the fork exchanges the code of the
function before it runs the tests. The others, run on import, get a fork of a process that has only
third-party packages loaded: it imports the mutated module through a hook and collects by itself.
Both ways must first pass with no fault at all, and the first one must again at the end: otherwise
what "kills" mutants is the harness, and the run is refused.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Final

import pytest

from .selection import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection

    from .operators import Mutant

COLLECTION_S: Final = 30.0  # to import and collect in a fresh process, on a busy machine
WARM_S: Final = 3600.0  # for all tests that ever killed a mutant
MEMORY: Final = 8 << 30  # a mutant may build endless lists
_PASSED, _FAILED, _BROKEN, _UNFOUND = 0, 1, 2, 3


class HarnessError(Exception):
    """Without any fault the tests do not pass: no verdict of this harness would mean anything."""


@dataclass(frozen=True, slots=True)
class Task:
    """A mutant (None: no fault), its module, the tests to ask, and how long they may take."""

    module: str
    mutant: Mutant | None
    tests: list[str]
    limit_s: float

    @property
    def path(self) -> Path:
        """Where the module is."""
        return Path(self.module).resolve()

    def code(self) -> CodeType:
        """The module with its fault."""
        if self.mutant is not None:
            return self.mutant.code(str(self.path))
        return compile(self.path.read_text(), str(self.path), "exec", dont_inherit=True)


class Warm:
    """A pytest plugin: collects, and in place of running tests, runs tasks in forks."""

    def __init__(
        self, tasks: list[Task], deadline: float, report: Callable[[int, str], None]
    ) -> None:
        self.tasks, self.deadline, self.report = tasks, deadline, report
        self.killers: Counter[str] = Counter()
        self.items: dict[str, pytest.Item] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """The loop: no fault, each fault, no fault."""
        self.items = {item.nodeid: item for item in session.items}
        wanted = dict.fromkeys(test for task in self.tasks for test in task.tests)
        # In this process, so that keys the simulators keep are made once.
        if _run([self.items[test] for test in wanted], session):
            raise HarnessError("without a fault, tests fail in the warm process")
        functions = _functions({task.path for task in self.tasks})
        for number, task in enumerate(self.tasks):
            late = time.monotonic() > self.deadline
            self.report(number, "not run" if late else self._verdict(task, functions, session))
        # Whoever killed a mutant must still pass where there is none: a flaw is no kill.
        self.killers.pop("", None)
        clean = Task("", None, list(self.killers), WARM_S)
        if (found := self._verdict(clean, functions, session)) != "survived":
            raise HarnessError(f"without a fault, those who killed mutants: {found}")
        return True

    def _verdict(
        self, task: Task, functions: dict[Path, list[FunctionType]], session: pytest.Session
    ) -> str:
        order = sorted(task.tests, key=lambda test: -self.killers[test])  # stable: quickest first

        def child() -> tuple[int, str]:
            if task.mutant is not None and not _exchange(task.code(), functions[task.path]):
                return _UNFOUND, ""
            failed = _run([self.items[test] for test in order], session)
            return (_FAILED, failed) if failed else (_PASSED, "")

        verdict, by = _forked(child, task.limit_s)
        self.killers[by] += 1
        return verdict


class _Cold:
    """A pytest plugin: only these tests, in this order, until one fails."""

    def __init__(self, tests: list[str]) -> None:
        self.tests, self.failed = tests, ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run what was chosen."""
        items = {item.nodeid: item for item in session.items}
        self.failed = _run([items[test] for test in self.tests], session)
        return True


def run_cold(task: Task) -> str:
    """The verdict on a fault that runs on import; this process must not have imported it."""
    name = task.module.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    if name in sys.modules:
        raise HarnessError(f"{name} is imported already: its mutants would not be run")

    def child() -> tuple[int, str]:
        quiet()
        sys.meta_path.insert(0, _Finder(name, str(task.path), task.code()))
        try:
            importlib.import_module(name)
        except Exception:  # whatever it is: there is no module to test
            return _BROKEN, ""
        plugin = _Cold(task.tests)
        files = dict.fromkeys(test.partition("::")[0] for test in task.tests)
        status = pytest.main([*OPTIONS, *files], plugins=[plugin])
        if plugin.failed:
            return _FAILED, plugin.failed
        return (_PASSED if status == pytest.ExitCode.OK else _BROKEN), ""

    return _forked(child, task.limit_s + COLLECTION_S)[0]


class _Finder(importlib.machinery.SourceFileLoader):
    """Finds and loads one module: the mutated one."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's specification, if it is the one."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(  # type: ignore[explicit-override]  # 3.12's
        self, fullname: str
    ) -> CodeType:
        """The mutated code."""
        return self.code


def _run(items: list[pytest.Item], session: pytest.Session) -> str:
    """Run until one fails, and say which; "" if none does."""
    failed = session.testsfailed
    for item, following in zip(items, [*items[1:], None], strict=False):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed > failed:
            return item.nodeid
    return ""


def _functions(paths: Iterable[Path]) -> dict[Path, list[FunctionType]]:
    """Every living function of these modules, wherever it is held, by name or in a table."""
    found: dict[Path, list[FunctionType]] = {path: [] for path in paths}
    for held in gc.get_objects():
        if type(held) is FunctionType and (path := Path(held.__code__.co_filename)) in found:
            found[path].append(held)
    return found


def _exchange(mutated: CodeType, functions: list[FunctionType]) -> int:
    """Give each function the code that the mutated module has for it; how many changed."""
    codes: dict[tuple[str, int], CodeType] = {}
    stack = [mutated]
    while stack:
        for const in stack.pop().co_consts:
            if isinstance(const, CodeType):
                codes[const.co_qualname, const.co_firstlineno] = const
                stack.append(const)
    changed = 0
    for function in functions:
        old = function.__code__
        new = codes.get((old.co_qualname, old.co_firstlineno))
        if new is not None and new != old and len(new.co_freevars) == len(old.co_freevars):
            function.__code__ = new
            changed += 1
    return changed


def _forked(child: Callable[[], tuple[int, str]], limit_s: float) -> tuple[str, str]:
    """Run in a fork of this process, in a session of its own, and say what became of it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = _BROKEN
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            code, by = child()
            os.write(writer, json.dumps(by).encode())
        finally:
            os._exit(code)
    os.close(writer)
    deadline = time.monotonic() + limit_s
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.005)
    if ended[0] == 0:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    said = os.read(reader, 65536)
    os.close(reader)
    if ended[0] == 0:
        return "timeout", ""
    code = os.waitstatus_to_exitcode(ended[1])
    names = {_PASSED: "survived", _FAILED: "killed", _UNFOUND: "unfound"}
    return names.get(code, "broken"), json.loads(said) if said and code == _FAILED else ""


def work(
    tasks: list[tuple[int, Task]], deadline: float, report: Callable[[tuple[int, str]], None]
) -> None:
    """All of these tasks, reported as they are done; "not run" those after the deadline.

    Raises:
        HarnessError: without a fault, tests do not pass.
    """
    warm = [(n, task) for n, task in tasks if task.mutant and task.mutant.function]
    cold = [(n, task) for n, task in tasks if not (task.mutant and task.mutant.function)]
    reader, writer = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=_serve, args=(warm, deadline, writer))
    process.start()
    writer.close()
    by_number = dict(tasks)
    with contextlib.suppress(EOFError):
        while True:
            number, verdict = reader.recv()
            if verdict == "unfound":
                cold.append((number, by_number[number]))
            else:
                report((number, verdict))
    process.join()
    if process.exitcode:
        raise HarnessError("without a fault, tests fail in the warm process")
    passed: set[str] = set()
    for number, task in cold:
        if time.monotonic() > deadline:
            report((number, "not run"))
            continue
        if task.module not in passed:
            clean = Task(task.module, None, task.tests, task.limit_s)
            if (found := run_cold(clean)) != "survived":
                raise HarnessError(f"{task.module}: without a fault, {found} in a fresh process")
            passed.add(task.module)
        report((number, run_cold(task)))


def _serve(tasks: list[tuple[int, Task]], deadline: float, writer: Connection) -> None:
    quiet()
    numbers = [number for number, _ in tasks]
    plugin = Warm(
        [task for _, task in tasks], deadline, lambda at, said: writer.send((numbers[at], said))
    )
    files = dict.fromkeys(t.partition("::")[0] for _, task in tasks for t in task.tests)
    status = pytest.main([*OPTIONS, *files], plugins=[plugin]) if tasks else 0
    os._exit(int(status))


def quiet() -> None:
    """What the tests print goes to a file."""
    log = os.open(".mutation/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)

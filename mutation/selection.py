"""Which tests execute which lines, measured once, and in which order they are asked.

Left out, because their verdict is not about the code alone: tests that fail or skip without any
fault, and tests that read a clock, which a busy machine can fail.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CACHE: Final = Path(".mutation/map.json")
FILES_COLLECTED: Final = 6  # by each mutant that needs a process of its own: seconds
_CLOCKS: Final = frozenset({"monotonic", "perf_counter", "process_time", "thread_time"})
#: Plain assertions, since rewriting them warns of plugins that are loaded already.
OPTIONS: Final = ["-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The measured tests: seconds of each, and for each module the tests of each line."""

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    def drop_slower(self, limit_s: float) -> None:
        """Ask no test that takes longer than this without a fault."""
        for lines in self.lines.values():
            for line, tests in lines.items():
                lines[line] = [test for test in tests if self.seconds[test] <= limit_s]

    def of(self, module: str, first: int, last: int) -> list[str]:
        """Tests that execute one of these lines, the quickest first."""
        lines = self.lines.get(module, {})
        return self._sorted(test for n in range(first, last + 1) for test in lines.get(n, ()))

    def whole(self, module: str) -> list[str]:
        """Tests that execute anything of the module, of the files that have most of them."""
        tests = {test for tests in self.lines.get(module, {}).values() for test in tests}
        files = Counter(test.partition("::")[0] for test in tests)
        most = dict(files.most_common(FILES_COLLECTED))
        return self._sorted(test for test in tests if test.partition("::")[0] in most)

    def _sorted(self, tests: Iterable[str]) -> list[str]:
        return sorted(set(tests), key=lambda test: (self.seconds[test], test))


class Measure:
    """A pytest plugin that notes, for each test that passes, its seconds and the lines it runs."""

    def __init__(self, source: str) -> None:
        self.coverage = coverage.Coverage(data_file=None, source=[source], config_file=False)
        self.seconds: dict[str, float] = {}
        self.unfit: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Attribute what runs from here on to this test."""
        if _reads_clock(item):
            self.unfit.add(item.nodeid)
        self.coverage.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up setup, call and teardown; anything but a pass makes the test unfit."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.outcome != "passed":
            self.unfit.add(report.nodeid)


def select(package: str, files: list[str]) -> Selection:
    """What is measured of these test files; measured now, where a file or the package changed."""
    source = _digest(sorted(Path(package).rglob("*.py")) if Path(package).is_dir() else [package])
    known = json.loads(CACHE.read_bytes()) if CACHE.is_file() else {}
    kept: dict[str, Any] = known["files"] if known.get("source") == source else {}
    wanted = {file: _digest([file]) for file in files}
    stale = [file for file in files if kept.get(file, {}).get("digest") != wanted[file]]
    if stale:
        for file, found in _measure(package, stale).items():
            kept[file] = {"digest": wanted[file], **found}
        CACHE.parent.mkdir(exist_ok=True)
        CACHE.write_text(json.dumps({"source": source, "files": kept}))
    selection = Selection({}, {})
    for file in files:
        tests = list(kept[file]["seconds"])
        selection.seconds.update(kept[file]["seconds"])
        for module, lines in kept[file]["lines"].items():
            known_lines = selection.lines.setdefault(module, {})
            for line, numbers in lines.items():
                known_lines.setdefault(int(line), []).extend(tests[n] for n in numbers)
    return selection


def _measure(package: str, files: list[str]) -> dict[str, dict[str, Any]]:
    plugin = Measure(package if Path(package).is_dir() else str(Path(package).parent))
    with plugin.coverage.collect():
        pytest.main([*OPTIONS, *files], plugins=[plugin])
    fit = {test: round(s, 4) for test, s in plugin.seconds.items() if test not in plugin.unfit}
    found: dict[str, dict[str, Any]] = {file: {"seconds": {}, "lines": {}} for file in files}
    place: dict[str, tuple[dict[str, Any], int]] = {}
    for test, seconds in fit.items():
        entry = found[test.partition("::")[0]]
        place[test] = (entry["lines"], len(entry["seconds"]))
        entry["seconds"][test] = seconds
    data = plugin.coverage.get_data()
    for measured in data.measured_files():
        module = str(Path(measured).relative_to(Path.cwd()))
        for line, tests in data.contexts_by_lineno(measured).items():
            for test in fit.keys() & tests:
                lines, number = place[test]
                lines.setdefault(module, {}).setdefault(str(line), []).append(number)
    return found


def _reads_clock(item: pytest.Item) -> bool:
    """Whether a test, or a function it calls in its own module, asks what time it is."""
    function: Any = getattr(item, "function", _reads_clock)
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    names = set(function.__code__.co_names)
    held = [function.__globals__.get(name) for name in names]
    called = [set(h.__code__.co_names) for h in held if hasattr(h, "__code__")]
    return bool(_CLOCKS & names.union(*called))


def _digest(paths: Iterable[Path | str]) -> str:
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()

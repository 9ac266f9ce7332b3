"""Settings every test shares: property tests are reproducible where the suite is a gate, tests of a
group share what is slow to make, and what lives through a run is out of the collector's way.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")

# Triton decides when it is first imported, by whomever, whether its kernels are interpreted.
os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell's background jobs ignore Ctrl-C, and so would every program that the tests start in one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
_GROUP = re.compile(r'xdist_group\("([a-z0-9-]+)"\)')


@functools.cache
def group(path: str) -> str | None:
    """The group a test file puts itself into; a file has one at most."""
    names = set(_GROUP.findall((ROOT / path).read_text(encoding="utf-8")))
    assert len(names) <= 1, f"{path}: found groups {sorted(names)}, expected one"
    return names.pop() if names else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Files of one `xdist_group` go to one process, every other test to the next that is free.

    The library's own way hands the group over in a test's id, which pytest no longer lets it write:
    groups would be torn apart and all they share made in each process.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler.loadgroup import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid.partition("::")[0]) or nodeid

    return ByFile(config, log)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Modules and tests live to the end: no garbage collection walks through them again.

    In the whole suite's own processes only: whoever looks for an object does not find it any more.
    """
    if hasattr(session.config, "workerinput"):
        gc.freeze()

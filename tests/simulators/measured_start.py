"""A worker's start that is what was measured; a test changes one fact and expects one refusal.

check()                                            # complete
refused("descriptor", replace(START, descriptors=(0, 1, 2, 3)))
loaded(Mapping("/tmp/x.so", code=True, deleted=False))   # raises: was not measured
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attestation.measurement import combine
from enclave_worker.complete import check_loaded, check_start
from enclave_worker.launch_line import (
    ARGUMENTS,
    BOOTSTRAP,
    LAUNCH_FLAGS,
    MODULE,
    arguments_digest,
    environment,
    environment_digest,
)
from enclave_worker.measured import Measured
from enclave_worker.mounts import Mount
from enclave_worker.observed import Mapping, Staged, Start
from enclave_worker.system_libraries import libraries_digest, library_tags, system_libraries
from enclave_worker.worker_config import WorkerConfig
from wire.errors import AttestationError
from wire.ids import sha256_tag

ROOT = "/state/root-1"
SITE = "/venv/lib/site-packages"
MODEL = "/models/tiny"
PYTHON = "/opt/python/bin/python3.11"
SEARCH = "\n".join(
    f"{ROOT}/{name}" for name in ("stdlib", "stdlib/lib-dynload", "site", "first_party")
)
STAGED = Staged(ROOT, frozenset({PYTHON, f"{SITE}/torch", "/srv/code/wire"}), frozenset({PYTHON}))
READ_PATHS = (ROOT, PYTHON, f"{SITE}/torch", "/srv/code/wire", MODEL)
LINE = [*LAUNCH_FLAGS, "-c", BOOTSTRAP, SEARCH, MODULE, *ARGUMENTS]
START = Start(
    program=PYTHON,
    name=PYTHON,
    arguments=tuple(LINE),
    variables=tuple(f"{name}={value}" for name, value in environment(2).items()),
    descriptors=(0, 1, 2),
    mounts=(Mount("/", "ext4"), Mount("/proc", "proc"), Mount("/home", "ext4"), Mount(MODEL, "x")),
    mappings=(),
    loose=(),
    tracer=0,
    null=True,
)  # fmt: skip
PLACES = {path: f"8:1 {path}" for path in READ_PATHS}
LIBRARIES = library_tags(system_libraries([]))
LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"


def world() -> tuple[WorkerConfig, Measured]:
    """Settings and a statement that agree."""
    config = WorkerConfig(
        wid="w", aud="a", model_name="tiny", model_dir=MODEL, service_policy=b"{}",
        engine={"threads": 2}, model_digests={"tree": sha256_tag(b"model")}, wrapper="unshare",
    )  # fmt: skip
    parts = {
        "args": arguments_digest([*LAUNCH_FLAGS, BOOTSTRAP, MODULE, *ARGUMENTS]),
        "config": sha256_tag(config.measured()),
        "env": environment_digest(environment(2)),
        "model": sha256_tag(b"model"),
        "site": sha256_tag(b"site"),
        "system": libraries_digest(LIBRARIES),
    }
    return replace(config, image=combine(parts)), Measured(parts, LIBRARIES, PLACES)


def check(start: Start = START, **changes: Any) -> None:
    """Check this start; `changes`: what else differs of what `check_start` is given."""
    config, measured = world()
    config = replace(config, **changes.get("config", {}))
    check_start(
        start,
        changes.get("staged", STAGED),
        config,
        changes.get("threads", 2),
        changes.get("places", PLACES),
        changes.get("measured", lambda m: m)(measured),
    )


def refused(code: str, start: Start = START, **changes: Any) -> str:
    """The refusal's message; it is for this reason alone and says what to do."""
    with pytest.raises(AttestationError, match="not complete") as caught:
        check(start, **changes)
    assert caught.value.reasons == (f"unmeasured_{code}",)
    assert caught.value.hint
    return caught.value.message


def loaded(*mappings: Mapping, modules: tuple[str, ...] = ()) -> None:
    """Check what a running worker has mapped and imported."""
    _, measured = world()
    check_loaded(mappings, modules, STAGED, MODEL, measured)

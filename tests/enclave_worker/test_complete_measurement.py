"""The complete-measurement lint, one unmeasured thing at a time: what is found, what is refused."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.measured_start import (
    LIBRARIES,
    LINE,
    MODEL,
    PLACES,
    PYTHON,
    ROOT,
    SEARCH,
    SITE,
    STAGED,
    START,
    check,
    refused,
    world,
)

from attestation.measurement import combine
from enclave_worker.complete import check_start
from enclave_worker.launch_line import environment
from enclave_worker.measured import Measured
from enclave_worker.mounts import Mount
from enclave_worker.observed import Mapping
from wire.errors import AttestationError, MalformedError
from wire.ids import sha256_tag

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_worker_that_is_what_was_measured_starts() -> None:
    check()


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES", "PYTHONPATH", "PYTHONHOME",
     "PYTHONSTARTUP", "TORCH_LOGS", "PATH", "TZ", "ld_preload", "HOME ", "",
     "OPENSSL_MODULES", "LOCPATH", "TORCH_HOME", "CUDA_CACHE_PATH", "CUDA_VISIBLE_DEVICES",
     "LD_DEBUG", "MALLOC_CHECK_", "TMPDIR"],
)  # fmt: skip
def test_a_variable_that_is_not_measured_is_named_without_its_value(name: str) -> None:
    start = replace(START, variables=(*START.variables, f"{name}=secret value"))
    message = refused("environment", start)
    assert "secret" not in message
    assert f"found {name}" in message
    assert "expected only HOME, LC_ALL" in message


@pytest.mark.parametrize("name", list(environment(2)))
def test_a_measured_variable_must_have_its_value_once(name: str) -> None:
    others = tuple(item for item in START.variables if not item.startswith(name + "="))
    assert "found another value" in refused(
        "environment", replace(START, variables=(*others, f"{name}=/elsewhere"))
    )
    assert "found nothing" in refused("environment", replace(START, variables=others))
    twice = (*START.variables, f"{name}=/elsewhere")
    assert f"{name} twice" in refused("environment", replace(START, variables=twice))


def test_a_variable_without_a_value_is_refused() -> None:
    refused("environment", replace(START, variables=(*START.variables, "HOME")))


def test_another_number_of_threads_is_another_environment() -> None:
    assert "NUM_THREADS" in refused("environment", threads=3)


@pytest.mark.parametrize("at", range(len(LINE)))
def test_no_argument_may_differ(at: int) -> None:
    arguments = (*LINE[:at], LINE[at] + "x", *LINE[at + 1 :])
    assert f"argument {at + 1}" in refused("argument", replace(START, arguments=arguments))


@pytest.mark.parametrize("arguments", [tuple(LINE[:-1]), (*LINE, "--debug"), ()], ids=len)
def test_no_argument_may_be_missing_or_added(arguments: tuple[str, ...]) -> None:
    refused("argument", replace(START, arguments=arguments))


def test_a_search_path_outside_the_staged_root_is_an_argument_that_differs() -> None:
    line = [SEARCH + "\n/tmp/more" if item == SEARCH else item for item in LINE]
    refused("argument", replace(START, arguments=tuple(line)))


@pytest.mark.parametrize(
    "program", ["/usr/bin/python3.11", "/lib64/ld-linux-x86-64.so.2", f"{SITE}/torch"]
)
def test_another_program_than_the_staged_interpreter_is_refused(program: str) -> None:
    assert program in refused("argument", replace(START, program=program))


@pytest.mark.parametrize(
    "change",
    [{"aud": "other"}, {"service_policy": b"{ }"}, {"epoch_s": 60}, {"engine": {"threads": 3}},
     {"require_pq": False}, {"trust": "simulated"}, {"model_name": "huge"}, {"slots": 1}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_setting_changed_after_measuring_is_refused(change: dict[str, Any]) -> None:
    assert "part config" in refused("statement", config=change)


def test_a_model_digest_for_receipts_that_was_not_measured_is_refused() -> None:
    assert "part model" in refused(
        "statement", config={"model_digests": {"tree": sha256_tag(b"better")}}
    )
    assert "part model" in refused("statement", config={"model_digests": {}})


def test_a_measurement_the_parts_do_not_give_is_refused() -> None:
    refused("statement", config={"image": sha256_tag(b"another")})


@pytest.mark.parametrize("part", ["args", "config", "env", "model", "system"])
def test_every_part_the_worker_can_check_must_be_there_and_true(part: str) -> None:
    for tag in (sha256_tag(b"another"), None):
        config, measured = world()
        parts = {**measured.parts, part: tag} if tag else dict(measured.parts)
        if tag is None:
            del parts[part]
        with pytest.raises(AttestationError, match=f"part {part}"):
            check_start(
                START, STAGED, replace(config, image=combine(parts)), 2, PLACES,
                Measured(parts, measured.system, PLACES),
            )  # fmt: skip


def test_a_library_added_to_the_statement_alone_is_refused() -> None:
    added = {**LIBRARIES, "libevil.so.1": sha256_tag(b"evil")}
    assert "part system" in refused("statement", measured=lambda m: replace(m, system=added))


@pytest.mark.parametrize("number", [3, 7, 255])
def test_an_inherited_descriptor_is_refused(number: int) -> None:
    assert f"found {number} open" in refused(
        "descriptor", replace(START, descriptors=(0, 1, 2, number))
    )


@pytest.mark.parametrize("path", ["/", "/etc", "/home/user", f"{SITE}/torch/lib", f"{ROOT}/site/x"])
def test_a_read_path_beyond_the_measured_ones_is_refused(path: str) -> None:
    assert path in refused("path", places={**PLACES, path: f"8:1 {path}"})


@pytest.mark.parametrize(
    "point", [f"{SITE}/torch/lib", f"{MODEL}/sub", f"{ROOT}/site", f"{ROOT}/a b"]
)
def test_a_mount_inside_a_measured_folder_is_refused(point: str) -> None:
    start = replace(START, mounts=(*START.mounts, Mount(point, "tmpfs")))
    assert point in refused("mount", start)


@pytest.mark.parametrize("path", [ROOT, MODEL, PYTHON, f"{SITE}/torch"])
def test_a_mount_exactly_at_a_measured_path_after_it_was_measured_is_refused(path: str) -> None:
    """Same names, another file system or another place in the same one: other files."""
    for place in ("0:42 /", "8:1 /elsewhere", f"8:2 {path}"):
        message = refused("mount", places={**PLACES, path: place})
        assert f"found {path} at {place}" in message
    assert "nothing" in refused(
        "mount", measured=lambda m: replace(m, places={**m.places, path: "nothing"})
    )


@pytest.mark.parametrize("point", ["/proc/1/environ", "/proc/self", "/proc/thread-self/maps"])
@pytest.mark.parametrize("wrapper", ["bwrap", "unshare", "none"])
def test_a_mount_over_what_the_worker_looks_at_is_refused(point: str, wrapper: str) -> None:
    start = replace(START, mounts=(*START.mounts[:2], Mount(point, "tmpfs")))
    assert point in refused("mount", start, config={"wrapper": wrapper})


def test_a_masked_entry_of_the_kernel_is_not_the_workers_own() -> None:
    check(replace(START, mounts=(*START.mounts, Mount("/proc/kcore", "tmpfs"))))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"tracer": 77}, "a debugger, process 77"), ({"null": False}, "another /dev/null")],
)
def test_a_process_that_others_hold_is_refused(change: dict[str, Any], sentence: str) -> None:
    assert sentence in refused("process", replace(START, **change))


@pytest.mark.parametrize("name", ["python", "/venv/bin/python", "/tmp/bin/python3.11", ""])
def test_another_name_than_the_programs_own_is_refused(name: str) -> None:
    """The interpreter looks for its library beside the name it was started by."""
    assert "argument 0" in refused("argument", replace(START, name=name))


@pytest.mark.parametrize("name", ["anonymous memory", "[heap]", "[stack]", "[uprobes]"])
def test_executable_memory_without_a_file_is_refused_at_the_start(name: str) -> None:
    assert f"executable {name}" in refused("code", replace(START, loose=(name,)))


def test_a_library_that_is_gone_before_the_end_is_seen_at_the_start() -> None:
    mapping = Mapping("/tmp/libevil.so", code=True, deleted=False)
    assert "libevil" in refused("code", replace(START, mappings=(mapping,)))


@pytest.mark.parametrize(
    ("mount", "fine"),
    [
        (Mount("/dev", "tmpfs"), True),
        (Mount("/dev/null", "devtmpfs"), True),
        (Mount("/dev/pts", "devpts"), True),
        (Mount("/usr/lib", "ext4"), True),
        (Mount(PYTHON, "ext4"), True),
        (Mount("/etc", "ext4"), False),
        (Mount("/home", "ext4"), False),
        (Mount("/dev/shm", "ext4"), False),
        (Mount("/sys", "sysfs"), False),
        (Mount("/secrets", "tmpfs"), False),
    ],
)
def test_a_root_of_its_own_holds_measured_mounts_and_pseudo_ones_only(
    mount: Mount, fine: bool
) -> None:
    start = replace(START, mounts=(Mount("/", "tmpfs"), Mount("/proc", "proc"), mount))
    if fine:
        check(start, config={"wrapper": "bwrap"})
    else:
        assert mount.point in refused("mount", start, config={"wrapper": "bwrap"})
    check(start)


# A process of its own: what other tests had compiled into this one's memory is no fault.
OBSERVED = """
from enclave_worker.mounts import place_of
from enclave_worker.observed import observe_mappings, observe_start
from enclave_worker.system_libraries import file_tag, system_libraries
from simulators.measured_start import LIBC, LIBRARIES

start = observe_start()
assert start.program
assert {0, 1, 2} <= set(start.descriptors), start.descriptors
assert any(mount.point == "/" for mount in start.mounts)
assert any(mapping.path == LIBC and mapping.code for mapping in observe_mappings())
assert any(mapping.path == LIBC and mapping.code for mapping in start.mappings)
assert start.null
assert (start.tracer, start.loose) == (0, ()), (start.tracer, start.loose)
assert place_of("/proc/self/maps", start.mounts).endswith(" /self/maps")
assert file_tag(system_libraries([])["libc.so.6"]) in LIBRARIES.values()
"""


def test_a_process_observes_itself() -> None:
    paths = f"{REPOSITORY}:{REPOSITORY / 'tests'}"
    found = subprocess.run(
        [sys.executable, "-c", OBSERVED],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": paths, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(
    "edit",
    [
        lambda doc: doc.pop("system"),
        lambda doc: doc.update(more=1),
        lambda doc: doc.update(system={}),
        lambda doc: doc.update(system=[]),
        lambda doc: doc["system"].update(x="no tag"),
        lambda doc: doc.update(parts={}),
        lambda doc: doc.update(system={str(n): sha256_tag(b"") for n in range(257)}),
        lambda doc: doc.update(places={}),
        lambda doc: doc.update(places=["/"]),
        lambda doc: doc.update(places={"/": 1}),
        lambda doc: doc.update(places={str(n): "" for n in range(4097)}),
    ],
    ids=[
        "gone",
        "more",
        "empty",
        "list",
        "no-tag",
        "no-parts",
        "too-many",
        "no-place",
        "place-list",
        "place-number",
        "too-many-places",
    ],
)
def test_a_statement_of_another_shape_is_refused(edit: Callable[[dict[str, Any]], Any]) -> None:
    _, measured = world()
    document = measured.to_json()
    assert Measured.from_json(document) == measured
    edit(document)
    with pytest.raises(MalformedError):
        Measured.from_json(document)

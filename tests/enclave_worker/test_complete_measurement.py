"""The complete-measurement lint, one unmeasured thing at a time: what is found, what is refused."""

import mmap
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
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
from enclave_worker.mounts import Mount, parse_mounts, place_of
from enclave_worker.observed import (
    Mapping,
    Staged,
    Start,
    observe_mappings,
    observe_start,
    parse_loose,
    parse_mappings,
    parse_tracer,
)
from enclave_worker.system_libraries import (
    file_tag,
    libraries_digest,
    library_tags,
    system_libraries,
)
from enclave_worker.worker_config import WorkerConfig
from wire.errors import AttestationError, MalformedError
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
    with pytest.raises(AttestationError, match="not complete") as caught:
        check(start, **changes)
    assert caught.value.reasons == (f"unmeasured_{code}",)
    assert caught.value.hint
    return caught.value.message


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


def loaded(*mappings: Mapping, modules: tuple[str, ...] = ()) -> None:
    _, measured = world()
    check_loaded(mappings, modules, STAGED, MODEL, measured)


def test_staged_code_system_libraries_and_the_models_data_may_be_mapped() -> None:
    loaded(
        Mapping(PYTHON, code=True, deleted=False),
        Mapping(f"{SITE}/torch/lib/libtorch.so", code=True, deleted=False),
        Mapping(LIBC, code=True, deleted=False),
        Mapping(f"{MODEL}/model.safetensors", code=False, deleted=False),
        Mapping("/usr/lib/locale/C.utf8/LC_CTYPE", code=False, deleted=False),
        Mapping("/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache", code=False, deleted=False),
        Mapping("/memfd:secret", code=False, deleted=True),
        Mapping("/dev/zero", code=False, deleted=True),
        Mapping("/SYSV0000abcd", code=False, deleted=True),
        modules=("/srv/code/wire/ids.py", f"{ROOT}/stdlib/os.py"),
    )


@pytest.mark.parametrize(
    "mapping",
    [
        Mapping("/tmp/libevil.so", code=True, deleted=False),
        Mapping("/tmp/data", code=False, deleted=False),
        Mapping("/tmp/gconv/data", code=False, deleted=False),
        Mapping("/usr/lib/localevil/data", code=False, deleted=False),
        Mapping("/usr/lib/x86_64-linux-gnu/gconv/EVIL.so", code=True, deleted=False),
        Mapping(f"{SITE}/other/evil.so", code=True, deleted=False),
        Mapping(f"{SITE}/torchevil.so", code=True, deleted=False),
        Mapping(f"{SITE}/torch/lib/libtorch.so", code=True, deleted=True),
        Mapping(f"{MODEL}/evil.so", code=True, deleted=False),
        Mapping("/memfd:evil", code=True, deleted=True),
        Mapping("/usr/lib/locale/evil.so", code=True, deleted=False),
        Mapping("/usr/bin/env", code=True, deleted=False),
        Mapping("/memfd:x/data", code=False, deleted=False),
        Mapping("/SYSV/data", code=False, deleted=True),
        Mapping("/SYSV0000abcd", code=False, deleted=False),
        Mapping("/dev/zero/data", code=False, deleted=True),
    ],
    ids=lambda mapping: mapping.path,
)
def test_code_that_was_not_measured_is_refused(mapping: Mapping) -> None:
    with pytest.raises(AttestationError, match=r"code: found .*expected") as caught:
        loaded(mapping)
    assert caught.value.reasons == ("unmeasured_code",)


@pytest.mark.parametrize(
    ("path", "code"),
    [(PYTHON, True), (f"{SITE}/torch/data", False), (LIBC, True),
     (f"{MODEL}/model.safetensors", False)],
)  # fmt: skip
def test_a_file_that_its_name_does_not_lead_to_is_refused(path: str, code: bool) -> None:
    """In a mount that was taken away it is shown by its path in there."""
    mapping = Mapping(path, code=code, deleted=False)
    loaded(mapping)
    with pytest.raises(AttestationError, match="another file than this name leads to") as caught:
        loaded(replace(mapping, elsewhere=True))
    assert caught.value.reasons == ("unmeasured_code",)
    assert "another file" in refused(
        "code", replace(START, mappings=(replace(mapping, elsewhere=True),))
    )


def test_memory_and_the_c_librarys_tables_are_not_asked_where_their_names_lead() -> None:
    loaded(
        Mapping("/dev/zero", code=False, deleted=False, elsewhere=True),
        Mapping("/usr/lib/locale/C.utf8/LC_CTYPE", code=False, deleted=False, elsewhere=True),
    )


# A program for a process of its own: two files of one name, the first to lose its mount.
DETACHES = """
import mmap, os, subprocess, sys
from contextlib import ExitStack
from enclave_worker.observed import observe_mappings

staged, volume, how = sys.argv[1:]
def mapped(path):
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
subprocess.run(["mount", "-t", "tmpfs", "none", volume], check=True)
evil = volume + staged
os.makedirs(os.path.dirname(evil))
with open(evil, "wb") as file:
    file.write(b"evil")
with ExitStack() as held:
    if how in ("evil", "both"):
        held.enter_context(mapped(evil))
    if how in ("honest", "both"):
        held.enter_context(mapped(staged))
    if how == "covered":
        held.enter_context(mapped(staged))
        subprocess.run(["mount", "--bind", evil, staged], check=True)
    subprocess.run(["umount", "-l", volume], check=True)
    print(*(one.elsewhere for one in observe_mappings() if one.path == staged and not one.deleted))
"""


@pytest.mark.parametrize(
    ("how", "elsewhere"),
    [("honest", "False"), ("evil", "True"), ("both", "True"), ("covered", "True")],
)
def test_a_file_in_a_mount_that_was_taken_away_is_not_the_staged_one(
    tmp_path: Path, how: str, elsewhere: str
) -> None:
    """The kernel shows both by the same name, and only one of them was measured."""
    alone = ["unshare", "--user", "--map-root-user", "--mount", "--"]
    trial = ["sh", "-c", 'mount -t tmpfs none "$0" && umount -l "$0"', str(tmp_path)]
    if subprocess.run([*alone, *trial], capture_output=True).returncode != 0:
        pytest.skip("no user namespace may mount on this kernel")
    staged, volume = tmp_path / "staged" / "a.so", tmp_path / "volume"
    staged.parent.mkdir()
    staged.write_bytes(b"measured")
    volume.mkdir()
    done = subprocess.run(
        [*alone, sys.executable, "-c", DETACHES, str(staged), str(volume), how],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == [elsewhere], done.stderr


def test_a_file_that_took_a_mapped_files_name_does_not_pass_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a.so"
    path.write_bytes(b"first")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert [one.elsewhere for one in observe_mappings() if one.path == str(path)] == [False]
        path.rename(tmp_path / "b.so")
        path.write_bytes(b"second")
        found = {one.path: one for one in observe_mappings()}
        assert str(path) not in found
        assert found[str(tmp_path / "b.so")].elsewhere is False
        (tmp_path / "b.so").unlink()
        found = {one.path: one for one in observe_mappings()}
        assert found[str(tmp_path / "b.so")].deleted is True


def test_a_system_library_with_other_content_is_refused() -> None:
    _, measured = world()
    other = {**LIBRARIES, "libc.so.6": sha256_tag(b"another libc")}
    mapping = Mapping(LIBC, code=True, deleted=False)
    with pytest.raises(AttestationError, match=r"libc\.so\.6"):
        check_loaded([mapping], (), STAGED, MODEL, replace(measured, system=other))


@pytest.mark.parametrize("path", ["/tmp/evil.py", f"{SITE}/evil.py", "relative.py"])
def test_a_module_from_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(AttestationError, match="modules: found") as caught:
        loaded(modules=(path,))
    assert caught.value.reasons == ("unmeasured_module",)


def test_the_kernels_tables_are_read_as_it_writes_them() -> None:
    text = (
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "23 22 0:5 /x /mnt/a\\040b rw shared:1 master:2 - tmpfs none rw,size=1k\n"
    )
    assert parse_mounts(text) == (
        Mount("/", "ext4", 22, 1, "8:1", "/"),
        Mount("/mnt/a b", "tmpfs", 23, 22, "0:5", "/x"),
    )
    text = (
        "7f00-7f01 r--p 00000000 08:01 12   /usr/lib/a b.so\n"
        "7f01-7f02 r-xp 00001000 08:01 12   /usr/lib/a b.so\n"
        "7f02-7f03 rw-s 00000000 00:01 13   /memfd:x (deleted)\n"
        "7f03-7f04 rwxp 00000000 00:00 0 \n"
        "7f04-7f05 rw-p 00000000 00:00 0    [heap]\n"
        "7f05-7f06 r-xp 00000000 00:00 0    [vdso]\n"
        "7f06-7f07 rwxp 00000000 00:00 0    [stack]\n"
    )
    assert parse_loose(text) == ("anonymous memory", "[stack]")
    assert parse_tracer("Name:\tpython\nTracerPid:\t12\nUid:\t0\n") == 12
    assert parse_mappings(text) == (
        Mapping("/memfd:x", code=False, deleted=True),
        Mapping("/usr/lib/a b.so", code=True, deleted=False),
    )


def line(name: str, rights: str = "r-xp") -> str:
    """A line of a maps file as the kernel pads it."""
    return f"7f00-7f01 {rights} 00001000 08:01 12".ljust(40) + f"{name}\n"


# What Python takes for the end of a line, or for a space; maps has all of them as they are.
BREAKS = ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\xa0", "\t", " "]


@pytest.mark.parametrize("char", BREAKS, ids=ascii)
def test_a_folder_that_begins_like_the_staged_root_is_another(char: str) -> None:
    name = f"{ROOT}{char}a b c d /{ROOT}{char}/evil.so"
    (found,) = parse_mappings(line(name))
    assert found == Mapping(name, code=True, deleted=False)
    with pytest.raises(AttestationError, match="code: found"):
        loaded(found)
    assert parse_loose(line(name)) == ()


@pytest.mark.parametrize("char", BREAKS, ids=ascii)
def test_a_name_makes_no_line_of_its_own(char: str) -> None:
    name = f"/tmp/a{char}7f00-7f01 r-xp 00000000 00:00 0 [vdso]"
    assert parse_mappings(line(name)) == (Mapping(name, code=True, deleted=False),)
    text = f"22 1 8:1 / /mnt/a{char}b rw - ext4 /dev/sda1 rw\n".replace("a b", "a\\040b")
    (mount,) = parse_mounts(text)
    assert mount.point == f"/mnt/a{char}b"
    status = f"Name:\tx{char}TracerPid: 0\nTracerPid:\t12\n"
    assert parse_tracer(status) == 12


@pytest.mark.parametrize(
    "name", [f"{SITE}/torch/a ", f"{SITE}/torch/ a", f"{SITE}/torch/a\udcff.so"]
)
def test_a_name_is_read_to_its_last_byte(name: str) -> None:
    assert parse_mappings(line(name)) == (Mapping(name, code=True, deleted=False),)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("/srv/code/wire/a.so (deleted)", Mapping("/srv/code/wire/a.so", code=True, deleted=True)),
        (
            "/srv/code/wire/a.so (deleted) (deleted)",
            Mapping("/srv/code/wire/a.so (deleted)", code=True, deleted=True),
        ),
        # A newline, or these four characters: another file than the staged one, or the same.
        ("/srv/code/wire/a\\012.so", Mapping("/srv/code/wire/a\\012.so", code=True, deleted=True)),
    ],
)
def test_a_name_that_may_be_another_files_is_not_believed(name: str, found: Mapping) -> None:
    assert parse_mappings(line(name)) == (found,)
    with pytest.raises(AttestationError, match="code: found"):
        loaded(found)


def test_only_the_kernels_own_memory_has_its_names() -> None:
    text = line("[vdso] ") + line("[vdso]x") + line("anon_inode:[vdso]") + line("[anon:[vdso]]")
    assert len(parse_loose(text)) == 4
    assert parse_loose(line("[vdso]")) == ()


def test_octal_escapes_in_a_mount_are_read_once() -> None:
    text = "23 22 0:5 /x\\134040y /mnt/a\\012\\134012b rw - tmpfs none rw\n"
    (found,) = parse_mounts(text)
    assert (found.point, found.root) == ("/mnt/a\n\\012b", "/x\\040y")


@pytest.mark.parametrize(
    "text",
    ["22 1 8:1 / /mnt", "x 1 8:1 / /mnt rw - ext4 x rw",
     "22 1 8:1 / /mnt rw ext4 x rw", "22 1 8:1 / /mnt rw -", " "],
)  # fmt: skip
def test_a_line_that_is_no_mount_is_a_clear_error(text: str) -> None:
    with pytest.raises(MalformedError, match="mount table: found a line"):
        parse_mounts(text)


def test_a_mount_of_what_was_deleted_leads_to_nothing_that_is_there() -> None:
    """The kernel writes "//deleted" behind it, and `/srv/x/deleted` may be a folder's name."""
    gone = parse_mounts("22 1 8:1 /srv/x//deleted /model rw - ext4 x rw\n")
    there = parse_mounts("22 1 8:1 /srv/x/deleted /model rw - ext4 x rw\n")
    assert place_of("/model/a", there) == "8:1 /srv/x/deleted/a"
    assert place_of("/model/a", gone) == "8:1 /srv/x//deleted/a"


def test_a_library_in_a_folder_named_like_the_root_is_seen_as_what_it_is(tmp_path: Path) -> None:
    """A real mapping, as this kernel shows it: data here, which takes the same way as code."""
    names = [f"root{char}a b" for char in (*BREAKS, "\udcff")]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "evil").write_bytes(b"evil")
    with ExitStack() as stack:
        for name in names:
            file = stack.enter_context((tmp_path / name / "evil").open("rb"))
            stack.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        found = {mapping.path for mapping in observe_mappings()}
    assert {str(tmp_path / name / "evil") for name in names} <= found


TABLE = """\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:4 / /proc rw - proc proc rw
22 20 8:1 /srv/model /model rw - ext4 /dev/sda1 rw
23 20 8:2 / /data rw - ext4 /dev/sdb1 rw
24 23 8:3 / /data/in rw - ext4 /dev/sdc1 rw
25 20 0:50 / /home rw - tmpfs none rw
26 25 0:51 / /home/a rw - tmpfs none rw
27 25 0:52 /x /home rw - overlay none rw
28 20 8:1 /usr/bin/python3 /opt/python rw - ext4 /dev/sda1 rw
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", "8:1 /"),
        ("/etc/x", "8:1 /etc/x"),
        ("/model/a", "8:1 /srv/model/a"),
        ("/data", "8:2 /"),
        ("/data/in/x", "8:3 /x"),
        ("/data/inx", "8:2 /inx"),
        ("/home/a/b", "0:52 /x/a/b"),
        ("/opt/python", "8:1 /usr/bin/python3"),
    ],
)
def test_a_path_leads_where_the_mounts_on_its_way_say(path: str, place: str) -> None:
    """`/home/a` is covered by a later mount on `/home`, so it is on nobody's way."""
    assert place_of(path, parse_mounts(TABLE)) == place


def test_in_a_chroot_what_is_mounted_inside_still_shows() -> None:
    inside = parse_mounts(
        "21 20 0:4 / /proc rw - proc proc rw\n22 20 8:1 /m /model rw - ext4 x rw\n"
    )
    assert place_of("/proc/self", inside) == "0:4 /self"
    assert place_of("/model/a", inside) == "8:1 /m/a"
    assert place_of("/srv/a", inside) == "? /srv/a"


def test_the_first_file_system_of_all_is_its_own_parent() -> None:
    initial = parse_mounts(
        "1 1 0:2 / / rw - rootfs rootfs rw\n21 1 0:4 / /proc rw - proc proc rw\n"
    )
    assert place_of("/srv/a", initial) == "0:2 /srv/a"
    assert place_of("/proc/self", initial) == "0:4 /self"


def test_this_very_process_can_be_observed() -> None:
    start = observe_start()
    assert start.program
    assert {0, 1, 2} <= set(start.descriptors)
    assert any(mount.point == "/" for mount in start.mounts)
    assert any(mapping.path == LIBC and mapping.code for mapping in observe_mappings())
    assert any(mapping.path == LIBC and mapping.code for mapping in start.mappings)
    assert start.null
    assert (start.tracer, start.loose) == (0, ())
    assert place_of("/proc/self/maps", start.mounts).endswith(" /self/maps")
    assert file_tag(system_libraries([])["libc.so.6"]) in LIBRARIES.values()


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

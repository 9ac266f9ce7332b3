"""Code that a running worker has mapped or imported: what was measured, and nothing else."""

import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from simulators.measured_start import (
    LIBC,
    LIBRARIES,
    MODEL,
    PYTHON,
    ROOT,
    SITE,
    STAGED,
    START,
    loaded,
    refused,
    world,
)

from enclave_worker.complete import check_loaded
from enclave_worker.observed import Mapping, observe_mappings
from wire.errors import AttestationError
from wire.ids import sha256_tag


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

"""The kernel's own tables of mounts and mappings, read as it writes them and no otherwise."""

import mmap
from contextlib import ExitStack
from pathlib import Path

import pytest
from simulators.measured_start import ROOT, SITE, loaded

from enclave_worker.mounts import Mount, parse_mounts, place_of
from enclave_worker.observed import (
    Mapping,
    observe_mappings,
    parse_loose,
    parse_mappings,
    parse_tracer,
)
from wire.errors import AttestationError, MalformedError


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

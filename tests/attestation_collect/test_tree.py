"""The tree digest: what changes it, what does not, what is refused instead of followed."""

import hashlib
import os
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.collect.tree import digest_tree, file_digests
from attestation.measurement import tree_digest
from wire.errors import ConfigError, MalformedError

KERNEL = Path("/proc/sys/kernel/random")
FILES = {
    "a.py": b"a = 1\n",
    "b/__init__.py": b"",
    "b/c.so": b"\x7fELF" + bytes(3 << 20),
    "pkg-1.dist-info/METADATA": b"Name: pkg\n",
}


def plant(root: Path, files: dict[str, bytes]) -> Path:
    for relpath, content in files.items():
        path = root / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plant(tmp_path / "tree", FILES)


def test_the_digest_is_the_pure_one_over_names_and_contents(tree):
    entries = [(name, hashlib.sha256(content).digest()) for name, content in FILES.items()]
    assert digest_tree(tree) == tree_digest(entries)
    assert file_digests(tree) == dict(entries)


def test_same_files_same_digest_wherever_whenever_and_whoever(tree, tmp_path):
    other = plant(tmp_path / "elsewhere", dict(reversed(FILES.items())))
    os.utime(other / "a.py", (1, 1))
    (other / "a.py").chmod(0o755)
    (other / "empty").mkdir()
    assert digest_tree(other) == digest_tree(tree)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_do_not_matter(tree, threads):
    assert digest_tree(tree, threads=threads) == digest_tree(tree)


def flip(root: Path) -> None:
    path = root / "b/c.so"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(flip, id="one-bit-flipped"),
        pytest.param(lambda root: (root / "a.py").rename(root / "A.py"), id="renamed"),
        pytest.param(lambda root: (root / "a.py").rename(root / "b/a.py"), id="moved"),
        pytest.param(lambda root: plant(root, {"b/new.py": b""}), id="added-empty"),
        pytest.param(lambda root: (root / "b/__init__.py").unlink(), id="removed"),
        pytest.param(lambda root: plant(root, {"x.pth": b"import os"}), id="start-up-file"),
        pytest.param(lambda root: plant(root, {"b/RECORD": b""}), id="record-outside-dist-info"),
        pytest.param(
            lambda root: plant(root, {"pkg-1.dist-info/entry_points.txt": b""}), id="info"
        ),
    ],
)
def test_any_change_changes_the_digest(tree, change):
    before = digest_tree(tree)
    change(tree)
    assert digest_tree(tree) != before


@pytest.mark.parametrize(
    "extra",
    [
        "b/__pycache__/c.cpython-311.pyc",
        "b/lone.pyc",
        "pkg-1.dist-info/RECORD",
        "pkg-1.dist-info/INSTALLER",
        "pkg-1.dist-info/REQUESTED",
        "pkg-1.dist-info/direct_url.json",
        "pkg-1.dist-info/uv_cache.json",
    ],
)
def test_what_installers_write_in_their_own_ways_does_not_count(tree, extra):
    before = digest_tree(tree)
    plant(tree, {extra: b"whatever"})
    assert digest_tree(tree) == before


NAMES = st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}\.py)?", fullmatch=True)


@given(st.dictionaries(NAMES, st.binary(), min_size=1), st.data())
def test_the_order_of_installation_does_not_matter(tmp_path_factory, files, data):
    # A name cannot be a file and a folder at once.
    files = {n: c for n, c in files.items() if not any(m.startswith(n + "/") for m in files)}
    shuffled = data.draw(st.permutations(list(files.items())))
    one = plant(tmp_path_factory.mktemp("one"), files)
    other = plant(tmp_path_factory.mktemp("other"), dict(shuffled))
    assert digest_tree(one) == digest_tree(other)


def test_progress_adds_up_to_every_byte_and_comes_from_the_caller(tree):
    seen: list[int] = []
    threads = set()

    def progress(count: int) -> None:
        seen.append(count)
        threads.add(threading.get_ident())

    digest_tree(tree, progress=progress, threads=4)
    assert sum(seen) == sum(map(len, FILES.values()))
    assert threads == {threading.get_ident()}


def link_to_file(root: Path) -> None:
    (root / "link.py").symlink_to("a.py")


def link_to_folder(root: Path) -> None:
    (root / "again").symlink_to("b")


def link_out(root: Path) -> None:
    (root / "passwd").symlink_to("/etc/passwd")


def link_loop(root: Path) -> None:
    (root / "b/up").symlink_to("..")


def link_to_itself(root: Path) -> None:
    (root / "self").symlink_to("self")


def link_nowhere(root: Path) -> None:
    (root / "gone").symlink_to("nowhere")


LINKS = [link_to_file, link_to_folder, link_out, link_loop, link_to_itself, link_nowhere]


@pytest.mark.parametrize("plant_link", LINKS)
def test_links_are_refused(tree, plant_link):
    plant_link(tree)
    with pytest.raises(ConfigError, match="symbolic link"):
        digest_tree(tree)


@pytest.mark.parametrize("plant_link", LINKS)
def test_links_behind_a_staged_link_are_refused(tree, tmp_path, plant_link):
    plant_link(tree)
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "pkg").symlink_to(tree)
    with pytest.raises(ConfigError, match=r"pkg/.*symbolic link"):
        digest_tree(stage, staged=True)


def test_a_staged_root_measures_like_the_files_themselves(tree, tmp_path):
    stage = tmp_path / "stage"
    stage.mkdir()
    for entry in tree.iterdir():
        (stage / entry.name).symlink_to(entry)
    assert digest_tree(stage, staged=True) == digest_tree(tree)
    with pytest.raises(ConfigError, match="symbolic link"):
        digest_tree(stage)


@pytest.mark.parametrize("target", ["nowhere", "self", "chain"])
def test_a_staged_link_must_lead_straight_to_a_file(tree, tmp_path, target):
    stage = tmp_path / "stage"
    stage.mkdir()
    (tmp_path / "second").symlink_to(tree / "a.py")
    paths = {"nowhere": "/nonexistent/x", "self": "self", "chain": str(tmp_path / "second")}
    (stage / "self").symlink_to(paths[target])
    with pytest.raises(ConfigError, match="no plain file"):
        digest_tree(stage, staged=True)


def test_a_staged_root_that_holds_itself_is_refused(tree, tmp_path):
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "loop").symlink_to(stage)
    with pytest.raises(ConfigError, match="symbolic link"):
        digest_tree(stage, staged=True)


def test_a_pipe_is_refused_and_not_waited_for(tree):
    os.mkfifo(tree / "pipe.py")
    with pytest.raises(ConfigError, match="special file"):
        digest_tree(tree)


def test_a_socket_is_refused(tree, monkeypatch):
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.py")
        with pytest.raises(ConfigError, match=r"socket\.py"):
            digest_tree(tree)


def test_a_missing_or_empty_folder_has_no_digest(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        digest_tree(tmp_path / "absent")
    with pytest.raises(MalformedError, match="no file"):
        digest_tree(tmp_path)


def test_a_bottomless_tree_is_refused(tmp_path):
    path = tmp_path
    for _ in range(80):
        path = path / "d"
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match="nested"):
        digest_tree(tmp_path)


def test_a_file_that_changes_while_it_is_read_is_refused(tree):
    busy = tree / "busy.bin"
    with busy.open("wb") as file:
        file.truncate(128 << 20)  # sparse, yet tens of milliseconds to hash
    done = threading.Event()

    def touch() -> None:
        tick = 0
        while not done.is_set():
            tick += 1
            os.utime(busy, ns=(tick, tick))

    writer = threading.Thread(target=touch)
    writer.start()
    try:
        with pytest.raises(ConfigError, match=r"busy\.bin: the file changed"):
            digest_tree(tree)
    finally:
        done.set()
        writer.join()


def test_no_descriptor_is_left_open_after_a_refusal(tree):
    for number in range(100):
        plant(tree, {f"many/{number:03}.py": b"x"})
    link_loop(tree)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(ConfigError):
            digest_tree(tree)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(not KERNEL.is_dir(), reason="no proc")
def test_a_file_that_is_longer_than_it_says_is_refused() -> None:
    """As the kernel's are, which have no length and no time of change that tells."""
    with pytest.raises(ConfigError, match="changed while it was read"):
        file_digests(KERNEL)

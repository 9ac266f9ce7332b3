"""What is made for a user is written whole or not at all, and never in the place of another's."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from attestation.collateral.entry import Checked, Piece, make_entry
from attestation.collateral.store import Store
from attestation.collateral_key import parse_key
from client.files import check_free, make_file
from wire.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.api import Client


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _link(path: Path) -> None:
    path.with_name("other").write_bytes(b"somebody else's")
    path.symlink_to(path.with_name("other"))


def _link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def _folder(path: Path) -> None:
    path.mkdir()


THINGS = {
    "a pipe": _pipe, "a socket": _socket, "a link": _link, "a link ": _link_to_nothing,
    "a folder": _folder,
}  # fmt: skip


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("name", THINGS)
def test_what_is_no_regular_file_is_never_replaced(
    tmp_path: Path, name: str, replace: bool
) -> None:
    path = tmp_path / "out"
    THINGS[name](path)
    before = path.lstat()
    with pytest.raises(ConfigError, match=f"found {name.strip()}, expected a new file") as refused:
        make_file(path, b"new", "test", hint="replace it with --force", replace=replace)
    assert refused.value.hint == "name another file"  # force would not help
    after = path.lstat()
    assert (before.st_mode, before.st_ino) == (after.st_mode, after.st_ino)
    assert not (tmp_path / "nothing").exists()


def test_a_regular_file_is_replaced_where_that_is_asked_for_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(ConfigError, match="it exists, expected a new file") as refused:
        make_file(path, b"new", "test", hint="replace it with --force")
    assert (refused.value.hint, path.read_bytes()) == ("replace it with --force", b"old")
    make_file(path, b"new", "test", hint="", replace=True)
    assert path.read_bytes() == b"new"


def test_a_name_that_nothing_has_is_free_and_one_that_cannot_be_is_not(tmp_path: Path) -> None:
    check_free(tmp_path / "out", "test", hint="")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        check_free(tmp_path / "file" / "out", "test", hint="")


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("command", ["sign", "export"])
def test_a_command_that_makes_a_file_leaves_a_pipe_a_pipe(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Service, command: str,
    force: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    (tmp_path / "policy.json").write_bytes(service.policy())
    assert run("policy", "keygen", tmp_path / "key")[0] == 0
    now = service.now
    entry = make_entry(parse_key("intel-pcs:root-crl"), Piece(b"crl"), Checked(2**33), now)
    Store(tmp_path / "cache").put(entry, now)
    out = tmp_path / "out"
    os.mkfifo(out)
    words = {
        "sign": ("policy", "sign", tmp_path / "policy.json", "--key", tmp_path / "key",
                 "--out", out),
        "export": ("collateral", "export", out, "--cache-dir", tmp_path / "cache"),
    }[command]  # fmt: skip
    code, _, err = run(*words, *force)
    assert (code, "found a pipe, expected a new file" in " ".join(err.split())) == (4, True)
    assert "--force" not in err
    assert out.is_fifo()


# ---------------------------------------------------------------- receipts


def test_a_receipt_that_cannot_be_saved_leaves_nothing_behind(
    client: Client, tmp_path: Path
) -> None:
    receipt = client.chat([{"role": "user", "content": "hi"}], "m").receipt
    folder = tmp_path / "receipts"
    (folder / "taken").mkdir(parents=True)
    with pytest.raises(ConfigError, match="receipt file"):
        receipt.save(folder / "taken")
    assert [path.name for path in folder.iterdir()] == ["taken"]


def test_a_receipt_replaces_no_file(client: Client, tmp_path: Path) -> None:
    receipt = client.chat([{"role": "user", "content": "hi"}], "m").receipt
    (tmp_path / "taken").write_bytes(b"dear to somebody")
    with pytest.raises(ConfigError, match=r"receipt file .*it exists, expected a new file"):
        receipt.save(tmp_path / "taken")
    assert (tmp_path / "taken").read_bytes() == b"dear to somebody"


def _file(path: Path) -> None:
    path.write_bytes(b"dear to somebody")


@pytest.mark.parametrize("thing", [_file, _folder, _pipe, _link])
@pytest.mark.usefixtures("tenant")
def test_a_receipt_that_could_not_be_kept_is_told_before_anything_is_sent(
    run: Any, service: Service, server: Loopback, tmp_path: Path, thing: Callable[[Path], None]
) -> None:
    policy, saved = tmp_path / "policy.json", tmp_path / "saved"
    policy.write_bytes(service.policy())
    thing(saved)
    before = saved.lstat()
    words = ("--url", server.url, "--policy", policy, "--model", "m", "--receipt", saved)
    code, out, err = run("chat", *words, "hello")
    told = " ".join(err.split())
    assert (code, out, "expected a new file" in told) == (4, "", True)
    assert "trust=" not in told  # not even the deployment was looked at
    assert (before.st_ino, before.st_size) == (saved.lstat().st_ino, saved.lstat().st_size)

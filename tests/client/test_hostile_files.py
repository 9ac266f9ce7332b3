"""Whatever is named as a file: a sentence, what to do next, exit code 4, and no time lost."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from simulators.tee import SoftwareTee

from client.files import make_file, read_file
from wire.errors import ConfigError
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMANDS: dict[str, tuple[str, ...]] = {
    "check": ("policy", "check", "X"),
    "explain": ("policy", "explain", "X"),
    "simulate a policy": ("policy", "simulate", "X", "POLICY"),
    "simulate a record": ("policy", "simulate", "POLICY", "X"),
    "sign": ("policy", "sign", "X", "--key", "KEY", "--out", "OUT"),
    "sign with a key": ("policy", "sign", "POLICY", "--key", "X", "--out", "OUT"),
    "values": ("policy", "values", "X", "--unsigned"),
    "fetch for evidence": ("collateral", "fetch", "X"),
    "fetch from services": ("collateral", "fetch", "--key", "intel-pcs:qe/tdx", "--services", "X"),
    "fetch under a root": ("collateral", "fetch", "--key", "intel-pcs:qe/tdx", "--root", "X"),
    "import": ("collateral", "import", "X"),
    "conformance of evidence": ("conformance", "attestation", "X"),
    "conformance of the wire": ("conformance", "wire", "X"),
    "verify": ("verify", "http://127.0.0.1:9", "--policy", "X"),
    "an API key": ("verify", "http://127.0.0.1:9", "--policy", "POLICY", "--key-file", "X"),
}
SIGN = ("sign", "POLICY", "--key", "KEY", "--out", "X")
NOWHERE = "http://127.0.0.1:9"
FOLDERS: dict[str, tuple[str, ...]] = {
    "list": ("collateral", "list", "--cache-dir", "X"),
    "export": ("collateral", "export", "OUT", "--cache-dir", "X"),
    "own collateral": ("verify", NOWHERE, "--policy", "POLICY", "--collateral-dir", "X"),
}
CONTENT: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)) * 4,
    "an array": b"[]",
    "a number": b"1",
    "null": b"null",
    "a key twice": b'{"v":1,"v":1}',
    "NaN": b'{"v":NaN}',
    "nested": b"[" * 30_000 + b"]" * 30_000,
    "nested TOML": b"a=" + b"[" * 5000 + b"]" * 5000,
    "a long number": b"a=" + b"1" * 20_000,
    "Latin-1": b'{"v":"\xe9"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"v":1}'.encode("utf-16"),
    "line ends": b'{"v":1}\r\n{"v":1}\r\n',
    "a surrogate": b'{"v":"\\ud800"}',
}

# Those that read their file in another way than the others.
READERS = (
    "check", "simulate a record", "sign with a key", "values", "fetch for evidence",
    "fetch from services", "fetch under a root", "import", "conformance of evidence",
)  # fmt: skip
CASES = [
    pytest.param(COMMANDS[reader], content, id=f"{reader}, {name}")
    for reader in READERS
    for name, content in CONTENT.items()
]


@pytest.fixture
def place(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ANCHORHOLD_API_KEY", raising=False)
    policy = {**SoftwareTee().demands, "expires": 2**33}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    assert run("policy", "keygen", tmp_path / "policy.key")[0] == 0
    return tmp_path


def words(place: Path, command: tuple[str, ...], named: object) -> list[str]:
    known = {"POLICY": place / "policy.json", "KEY": place / "policy.key", "OUT": place / "out"}
    return [str({**known, "X": named}.get(word, word)) for word in command]


def check_refused(place: Path, found: tuple[int, str, str]) -> None:
    code, out, err = found
    assert (code, out) == (4, "")
    assert err.startswith(("anchorhold: ", "REFUSED (evidence_malformed): "))
    assert "\nhint: " in err
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in err.splitlines()), err
    assert not (place / "out").exists()


def _missing(path: Path) -> object:
    return path


def _folder(path: Path) -> object:
    path.mkdir()
    return path


def _below_a_file(path: Path) -> object:
    path.write_bytes(b"")
    return path / "below"


def _circle(path: Path) -> object:
    path.symlink_to(path)
    return path


def _pipe(path: Path) -> object:
    os.mkfifo(path)
    return path


def _sparse(path: Path) -> object:
    with path.open("wb") as file:
        file.truncate(1 << 30)
    return path


def _device(_: Path) -> object:
    return "/dev/zero"


def _long(path: Path) -> object:
    return path.with_name("n" * 300)


THINGS = (_missing, _folder, _below_a_file, _circle, _pipe, _sparse, _device, _long)


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_is_no_readable_file_is_said(
    place: Path, run: Any, command: tuple[str, ...], thing: Callable[[Path], object]
) -> None:
    check_refused(place, run(*words(place, command, thing(place / "x"))))


@pytest.mark.parametrize(("command", "content"), CASES)
def test_what_is_another_file_is_said(
    place: Path, run: Any, command: tuple[str, ...], content: bytes
) -> None:
    (place / "x").write_bytes(content)
    check_refused(place, run(*words(place, command, place / "x")))


@pytest.mark.parametrize("thing", [t for t in THINGS if t is not _folder])
@pytest.mark.parametrize("command", FOLDERS.values(), ids=FOLDERS)
def test_what_is_no_folder_is_said(
    place: Path, run: Any, command: tuple[str, ...], thing: Callable[[Path], object]
) -> None:
    check_refused(place, run(*words(place, command, thing(place / "x"))))


def test_a_cache_whose_entries_are_no_folder_is_not_listed_as_empty(place: Path, run: Any) -> None:
    (place / "x").mkdir()
    (place / "x" / "entries").write_bytes(b"")
    check_refused(place, run(*words(place, FOLDERS["list"], place / "x")))


def test_a_state_folder_that_cannot_be_is_not_listed_as_empty(
    place: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    for named in (("collateral", "list"), ("collateral", "export", str(place / "out"))):
        code, out, err = run(*named)
        assert (code, out) == (4, "")
        assert "/dev/null/anchorhold/collateral: Not a directory, expected a folder" in " ".join(
            err.split()
        )


def test_a_services_file_of_words_alone_is_not_the_vendors_own(place: Path, run: Any) -> None:
    (place / "x").write_bytes(b"# intel_pcs = ...\n\n")
    code, _, err = run(*words(place, COMMANDS["fetch from services"], place / "x"))
    assert (code, "services: found none, expected some of" in " ".join(err.split())) == (4, True)


@pytest.mark.parametrize("command", [*COMMANDS.values(), *FOLDERS.values()])
def test_a_line_end_in_a_name_is_spelt_out(place: Path, run: Any, command: tuple[str, ...]) -> None:
    code, out, err = run(*words(place, command, "no\nsuch\tfile"))
    assert (code, out) == (4, "")
    assert "no\\nsuch\\tfile" in err
    assert "no\n" not in err


@pytest.mark.parametrize("command", ["check", "explain", "simulate a record", "sign", "import"])
def test_a_refusal_as_json_says_the_same(place: Path, run: Any, command: str) -> None:
    code, out, err = run(*words(place, COMMANDS[command], place / "missing"), "--json")
    document = json.loads(out)
    assert (code, document["ok"], document["exit_code"]) == (4, False, 4)
    error = document["error"]
    assert "No such file" in error["message"]
    assert error["hint"] in " ".join(err.split())


@pytest.mark.parametrize("thing", [_folder, _below_a_file, _circle, _long])
@pytest.mark.parametrize(
    "command", [("keygen", "X"), ("sign", "POLICY", "--key", "KEY", "--out", "X")]
)
def test_what_cannot_be_written_is_said(
    place: Path, run: Any, command: tuple[str, ...], thing: Callable[[Path], object]
) -> None:
    check_refused(place, run("policy", *words(place, command, thing(place / "x"))))


@pytest.mark.parametrize("target", ["policy.json", "policy.key"])
def test_force_never_replaces_what_is_signed_or_signs(place: Path, run: Any, target: str) -> None:
    (place / "link").symlink_to(place / target)
    before = (place / target).read_bytes()
    for out in (target, "link"):
        command = ("sign", "POLICY", "--key", "KEY", "--force", "--out", str(place / out))
        code, _, err = run("policy", *words(place, command, ""))
        assert (code, "never the policy or the key" in " ".join(err.split())) == (4, True)
    assert (place / target).read_bytes() == before


def test_a_policy_key_is_never_read_as_an_option(place: Path, run: Any) -> None:
    # base64url begins with "-" for one key in 64
    for number in range(150):
        _, public, _ = run("policy", "keygen", place / f"{number}.key")
        assert not public.startswith("-")


@pytest.mark.parametrize("joined", [False, True])
def test_a_key_that_begins_like_an_option_is_taken_as_it_is_printed(
    place: Path, run: Any, joined: bool
) -> None:
    key = next(
        made
        for made in map(Ed25519PrivateKey.from_private_bytes, (bytes([n] * 32) for n in range(256)))
        if b64u(made.public_key().public_bytes_raw()).startswith("-")
    )
    public = b64u(key.public_key().public_bytes_raw())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (place / "dashed.key").write_bytes(pem)
    signed = place / "signed.json"
    code, out, _ = run(
        "policy", *words(place, ("sign", "POLICY", "--key", "X", "--out"), place / "dashed.key"),
        signed,
    )  # fmt: skip
    assert (code, f"--policy-key={public}" in out) == (0, True)
    option = (f"--policy-key={public}",) if joined else ("--policy-key", public)
    assert run("policy", "check", signed, *option)[0] == 0
    assert run("policy", "check", *option, signed)[0] == 0


def test_an_option_after_a_key_option_is_still_one(place: Path, run: Any) -> None:
    code, _, err = run("policy", "check", "--policy-key", "--json", place / "policy.json")
    assert (code, "expected one argument" in err) == (4, True)


@pytest.mark.parametrize(
    "command",
    [("policy", "check"), ("policy", "sign", "x"), ("verify", "--unknown", "u"), ("receipt", "x")],
)
def test_a_usage_error_as_json_says_the_same(run: Any, command: tuple[str, ...]) -> None:
    code, out, err = run(*command, "--json")
    document = json.loads(out)
    assert (code, document["ok"], document["exit_code"]) == (4, False, 4)
    assert document["error"]["code"] == "usage"
    told = " ".join(err.split())
    assert " ".join(document["error"]["message"].split()) in told
    assert f"hint: {document['error']['hint']}" in told
    assert run(*command)[1] == ""


def test_a_manifests_key_and_the_word_of_who_takes_it_exclude_each_other(
    place: Path, run: Any
) -> None:
    code, _, err = run("policy", "values", "x", "--key", "k", "--unsigned")
    assert (code, "not allowed with" in err, "hint: " in err) == (4, True, True)


def test_of_two_that_make_one_file_one_is_told(tmp_path: Path) -> None:
    make_file(tmp_path / "key", b"one", "key", hint="name another")
    with pytest.raises(ConfigError, match="expected a new file"):
        make_file(tmp_path / "key", b"two", "key", hint="name another")
    assert (tmp_path / "key").read_bytes() == b"one"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_file_of_the_greatest_size_is_read_and_one_more_byte_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"four")
    assert read_file(path, 4, "test") == b"four"
    with pytest.raises(ConfigError, match="found 4 bytes, expected at most 3"):
        read_file(path, 3, "test")

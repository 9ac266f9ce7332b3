"""API keys and their table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenancy.identity import KEY_PATTERN, LIFE_MAX_S, ApiKey, Principal, mint, parse
from tenancy.key_table import (
    KEYS_PER_TENANT_MAX,
    KeyTable,
    encode_table,
    load_table,
    open_or_create,
    parse_table,
    pepper_path,
    save_table,
)
from wire.errors import ConfigError, MalformedError

NOW = 1_790_000_000
PEPPER = bytes(range(32))


def made(life_s: int = 3600, tenant: str = "acme") -> tuple[KeyTable, str, str]:
    table, text, record = KeyTable(PEPPER).create(
        tenant, ["infer"], "test", NOW, life_s, os.urandom
    )
    return table, text, record.kid


@given(st.binary(min_size=32, max_size=32), st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True))
def test_a_minted_key_parses_to_itself(seed: bytes, env: str) -> None:
    text, key = mint(env, lambda n: (seed * 2)[:n])
    assert parse(text) == key
    assert KEY_PATTERN.fullmatch(text)
    assert len(text.rsplit("_", 1)[0]) == len(f"anchorhold_{env}_") + 8 + 1 + 43


@given(st.data())
def test_a_key_with_one_changed_character_is_refused(data: st.DataObject) -> None:
    text, _ = mint("live", os.urandom)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126))
    changed = text[:at] + other + text[at + 1 :]
    if changed == text:
        assert parse(changed)
        return
    with pytest.raises(MalformedError):
        parse(changed)


@given(st.text(max_size=200))
def test_any_other_text_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(MalformedError) as refused:
        parse(text)
    if len(text) > 8:
        assert text not in str(refused.value)


@pytest.mark.parametrize("env", ["", "A", "a-b", "x" * 13, "ä"])
def test_an_environment_label_that_would_break_the_form_is_refused(env: str) -> None:
    with pytest.raises(ValueError, match="env"):
        mint(env, os.urandom)


def test_a_key_authenticates_its_tenant_with_its_scopes() -> None:
    table, text, kid = made()
    assert table.authenticate(text, NOW) == Principal("acme", kid, frozenset({"infer"}))


def test_an_expired_key_is_refused_from_its_last_second_on() -> None:
    table, text, _ = made(life_s=10)
    assert table.authenticate(text, NOW + 9)
    assert table.authenticate(text, NOW + 10) is None


def test_a_revoked_key_is_refused() -> None:
    table, text, kid = made()
    assert table.revoke(kid).authenticate(text, NOW) is None


def test_a_key_of_another_table_is_refused() -> None:
    table, _, _ = made()
    _, text, _ = made()
    assert table.authenticate(text, NOW) is None
    assert table.authenticate("nonsense", NOW) is None


def test_a_key_with_a_known_id_and_another_secret_is_refused() -> None:
    table, text, kid = made()
    forged, _ = mint("test", bytes)
    forged_key = parse(forged)
    record = table.records[kid]
    swapped = KeyTable(PEPPER, {forged_key.kid: record})
    assert swapped.authenticate(forged, NOW) is None
    assert table.authenticate(text, NOW)


def test_another_pepper_makes_every_key_useless() -> None:
    table, text, _ = made()
    assert KeyTable(bytes(32), table.records).authenticate(text, NOW) is None


def test_neither_secret_nor_pepper_shows_in_a_repr() -> None:
    table, text, _ = made()
    key = parse(text)
    assert key.secret not in repr(key)
    assert repr(PEPPER)[2:20] not in repr(table)
    assert isinstance(key, ApiKey)


def test_the_stored_table_holds_no_secret() -> None:
    table, text, _ = made()
    assert parse(text).secret.encode() not in encode_table(table)


@pytest.mark.parametrize(
    ("tenant", "scopes", "life_s", "message"),
    [
        ("", ["infer"], 60, "tenant"),
        ("Upper", ["infer"], 60, "tenant"),
        ("a" * 65, ["infer"], 60, "tenant"),
        ("acme", [], 60, "scopes"),
        ("acme", ["root"], 60, "scopes"),
        ("acme", ["infer"], 0, "life"),
        ("acme", ["infer"], LIFE_MAX_S + 1, "life"),
    ],
)
def test_a_key_that_should_not_exist_is_not_made(
    tenant: str, scopes: list[str], life_s: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        KeyTable(PEPPER).create(tenant, scopes, "test", NOW, life_s, os.urandom)


def test_a_tenant_cannot_collect_live_keys_without_end() -> None:
    table = KeyTable(PEPPER)
    for _ in range(KEYS_PER_TENANT_MAX):
        table, _, last = table.create("acme", ["infer"], "test", NOW, 60, os.urandom)
    with pytest.raises(ConfigError, match="live keys"):
        table.create("acme", ["infer"], "test", NOW, 60, os.urandom)
    assert table.create("other", ["infer"], "test", NOW, 60, os.urandom)
    assert table.revoke(last.kid).create("acme", ["infer"], "test", NOW, 60, os.urandom)


def test_a_key_id_is_never_given_twice() -> None:
    # 8 letters come from the first call; the third mint draws a fresh id after a collision.
    draws = iter([b"\0" * 8, bytes(32), b"\0" * 8, bytes(32), b"\1" * 8, bytes(32)])
    table, _, first = KeyTable(PEPPER).create(
        "acme", ["infer"], "test", NOW, 60, lambda n: next(draws)
    )
    table, _, second = table.create("acme", ["infer"], "test", NOW, 60, lambda n: next(draws))
    assert (first.kid, second.kid) == ("aaaaaaaa", "bbbbbbbb")


def test_revoking_an_unknown_key_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no key"):
        KeyTable(PEPPER).revoke("aaaaaaaa")


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    table = open_or_create(path, os.urandom)
    table, text, _ = table.create("acme", ["infer"], "test", NOW, 60, os.urandom)
    save_table(table, path)
    assert load_table(path) == table
    assert load_table(path).authenticate(text, NOW)
    assert path.stat().st_mode & 0o777 == 0o600
    assert pepper_path(path).stat().st_mode & 0o777 == 0o600
    assert [item.name for item in sorted(path.parent.iterdir())] == [
        "keys.json",
        "keys.json.pepper",
    ]


def test_a_lost_pepper_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    open_or_create(path, os.urandom)
    pepper_path(path).unlink()
    with pytest.raises(ConfigError, match="pepper"):
        open_or_create(path, os.urandom)


RECORD = (
    '{"kid":"aaaaaaaa","tenant":"t","digest":"0","created":1,"expires":2,"scopes":["infer"],'
    '"revoked":false}'
)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("", "not readable as JSON"),
        ("[]", "expected"),
        ('{"v":2,"keys":[]}', "expected"),
        ('{"v":1,"keys":{}}', "found an object under keys, expected an array"),
        ('{"v":1,"keys":[{}]}', "entry 0"),
        ('{"v":1,"keys":["x"]}', "entry 0"),
        (f'{{"v":1,"keys":[{RECORD},{RECORD}]}}', "twice"),
        (f'{{"v":1,"keys":[{RECORD.replace("false", "0")}]}}', "wrong type"),
        (f'{{"v":1,"keys":[{RECORD.replace("2,", "true,")}]}}', "wrong type"),
    ],
)
def test_a_broken_table_is_refused_with_what_was_expected(raw: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_table(raw.encode(), PEPPER)


def test_a_short_pepper_is_refused() -> None:
    with pytest.raises(ConfigError, match="pepper: expected 32 bytes, found 3"):
        parse_table(b'{"v":1,"keys":[]}', b"abc")


def test_a_table_that_is_a_folder_or_something_else_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.json").write_text("not a table")
    (tmp_path / "list.json").write_text("[]")
    for name, said, hint in (
        ("folder", "folder: Is a directory", "name a file"),
        ("words.json", r"not readable as JSON.*words\.json", "name another file"),
        ("list.json", r"found an array, expected .*list\.json", "name another file"),
    ):
        with pytest.raises(ConfigError, match=said) as refused:
            open_or_create(tmp_path / name, os.urandom)
        assert hint in refused.value.hint
        assert not (tmp_path / f"{name}.pepper").exists()


def test_a_table_that_cannot_be_made_names_the_whole_path() -> None:
    with pytest.raises(ConfigError, match="cannot create /proc/nope") as refused:
        open_or_create(Path("/proc/nope/keys.json"), os.urandom)
    assert "may write to" in refused.value.hint


@pytest.mark.parametrize("tenant", ["", "A", "-a", "a b", "a" * 65])
def test_a_refused_tenant_name_is_shown(tenant: str) -> None:
    with pytest.raises(ConfigError, match="tenant: found '") as refused:
        KeyTable(bytes(32)).create(tenant, ["infer"], "dev", 1, 60, os.urandom)
    assert f"of {len(tenant)} characters, expected 1-64" in refused.value.message

"""A pool's settings, its memory and its socket; live workers are tests/e2e/test_pool.py's."""

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.models import tiny_llama

from enclave_worker.engine.config import EngineConfig
from ops.footprint import PROGRAM_BYTES, available, footprint
from ops.pool import NO_MEMORY, Pool
from ops.pool_config import MODELS_MAX, PoolConfig, read_pool
from ops.pool_socket import PoolSocket, ask
from wire.errors import AnchorholdError, ConfigError, UnavailableError

SHARED = """\
aud = "acme"
gateway_socket = "worker.sock"
state_dir = "state"
service_policy = "service.json"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", hidden=64, layers=2)


def written(folder: Path, text: str) -> Path:
    (folder / "service.json").write_text("{}")
    (folder / "pool.toml").write_text(text)
    return folder / "pool.toml"


def two(folder: Path, model: Path, more: str = "") -> PoolConfig:
    tables = "".join(
        f'[[model]]\nname = "{name}"\nmodel_dir = "{model}"\n' for name in ("one", "two")
    )
    return read_pool(written(folder, SHARED + more + tables))


def nothing(*_step: object) -> None:
    """Hear of progress and do nothing."""


def test_a_models_table_adds_to_what_all_share(tmp_path: Path, model: Path) -> None:
    path = written(
        tmp_path,
        SHARED
        + "memory_mib = 900\nepoch_s = 60\n[engine]\nthreads = 2\nmax_batch = 4\n"
        + f'[[model]]\nname = "a/b c"\nmodel_dir = "{model}"\n[model.engine]\nthreads = 1\n'
        + f'[[model]]\nname = "other"\nmodel_dir = "{model}"\nload = false\n',
    )
    config = read_pool(path)
    first, second = config.models.values()
    assert list(config.models) == ["a/b c", "other"]
    assert first.launcher.engine == {"threads": 1, "max_batch": 4}
    assert second.launcher.engine == {"threads": 2, "max_batch": 4}
    assert (first.load, second.load) == (True, False)
    assert first.launcher.wid == "a-b-c"
    assert first.launcher.state_dir == tmp_path / "state" / "a-b-c"
    assert first.launcher.epoch_s == 60
    assert config.memory == 900 << 20
    assert config.socket == tmp_path / "state" / "pool.sock"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "[[model]] table"),
        ("model = 3\n", "[[model]] table"),
        ('[[model]]\nmodel_dir = "m"\n', "names no model"),
        ('[[model]]\nname = "a"\nmodel_dir = "m"\naud = "x"\n', "once for all"),
        ('[[model]]\nname = "a"\nmodel_dir = "m"\nload = 1\n', "true or false"),
        ('[[model]]\nname = "a"\nmodel_dir = "m"\nengine = 1\n', "engine"),
        ('[[model]]\nname = "a"\n', "model_dir"),
        ('[[model]]\nname = "a"\nmodel_dir = "m"\n' * 2, "twice"),
        ('[[model]]\nname = "a"\nmodel_dir = "m"\n' * (MODELS_MAX + 1), str(MODELS_MAX)),
        ('memory_mib = 0\n[[model]]\nname = "a"\nmodel_dir = "m"\n', "memory_mib"),
        ('nonsense = 0\n[[model]]\nname = "a"\nmodel_dir = "m"\n', "nonsense"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(
    tmp_path: Path, text: str, found: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_pool(written(tmp_path, SHARED + text))
    assert found in refused.value.message


def test_the_footprint_counts_weights_cache_and_program(model: Path) -> None:
    """Twice the weights in float32 than in bfloat16; pages times layers, heads and width."""
    small = footprint(model, EngineConfig(dtype="bfloat16", kv_pages=100))
    large = footprint(model, EngineConfig(dtype="float32", kv_pages=100))
    assert large.weights == 2 * small.weights
    assert small.cache == 100 * 16 * 2 * 2 * (2 * 16) * 2  # tokens, layers, k and v, heads x dim
    assert small.total == small.weights + small.cache + PROGRAM_BYTES


def test_this_machine_has_memory() -> None:
    assert available() > 1 << 26


def test_a_model_that_memory_cannot_hold_is_refused_with_the_numbers(
    tmp_path: Path, model: Path
) -> None:
    pool = Pool(two(tmp_path, model), room=lambda: 100 << 20)
    with pytest.raises(ConfigError) as refused:
        pool.load("one", nothing)
    assert refused.value.code == NO_MEMORY
    assert "found 100 MiB of memory free" in refused.value.message
    assert "weights" in refused.value.message
    assert "KV cache" in refused.value.message
    assert "kv_pages" in refused.value.hint
    assert [status.state for status in pool.status()] == ["unloaded", "unloaded"]


def test_the_pools_own_limit_counts_though_the_machine_has_more(
    tmp_path: Path, model: Path
) -> None:
    pool = Pool(two(tmp_path, model, "memory_mib = 64\n"), room=lambda: 1 << 40)
    with pytest.raises(ConfigError) as refused:
        pool.load("two", nothing)
    assert "found 64 MiB" in refused.value.message


def test_unknown_models_and_unloaded_ones_are_told(tmp_path: Path, model: Path) -> None:
    pool = Pool(two(tmp_path, model))
    with pytest.raises(ConfigError, match="expected one of one, two"):
        pool.load("three", nothing)
    with pytest.raises(ConfigError, match="not loaded"):
        pool.unload("one")


@pytest.fixture
def listening(tmp_path: Path, model: Path) -> Iterator[Path]:
    config = two(tmp_path, model)
    listener = PoolSocket(Pool(config, room=lambda: 0), config.socket)
    yield config.socket
    listener.close()


def test_the_socket_is_its_owners_alone_and_tells_states(listening: Path) -> None:
    assert stat.S_IMODE(listening.stat().st_mode) == 0o600
    states = ask(listening, {"do": "status"}, nothing)
    assert [(state["name"], state["state"]) for state in states] == [
        ("one", "unloaded"), ("two", "unloaded"),
    ]  # fmt: skip


def test_a_refusal_crosses_the_socket_with_its_code_and_hint(listening: Path) -> None:
    with pytest.raises(AnchorholdError) as refused:
        ask(listening, {"do": "load", "model": "one"}, nothing)
    assert refused.value.code == NO_MEMORY
    assert refused.value.hint


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"[]\n", b"{", b'{"do": "load"}\n', b'{"do": 3}\n', b"x" * 9000]
)
def test_what_is_no_request_is_answered_and_the_pool_lives_on(listening: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        raw.connect(str(listening))
        raw.sendall(line)
        raw.shutdown(socket.SHUT_WR)
        answer = json.loads(raw.makefile("rb").readline())
    assert answer["code"] == "malformed"
    assert ask(listening, {"do": "status"}, nothing)


def test_a_second_pool_is_refused_and_a_dead_ones_socket_replaced(
    tmp_path: Path, model: Path, listening: Path
) -> None:
    pool = Pool(two(tmp_path, model))
    with pytest.raises(ConfigError, match="another one"):
        PoolSocket(pool, listening)
    assert ask(listening, {"do": "status"}, nothing)
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(dead))
    PoolSocket(pool, dead).close()


def test_no_pool_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as refused:
        ask(tmp_path / "none.sock", {"do": "status"}, nothing)
    assert "pool run" in refused.value.hint

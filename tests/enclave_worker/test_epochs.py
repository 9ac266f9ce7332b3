"""Key epochs without a process: what is offered, what opens, what is wiped, when."""

import os

import pytest
from simulators.caller import Caller

from attestation.binding import parse_binding
from attestation.evidence import Evidence
from enclave_worker.epochs import Epoch, Keyring
from enclave_worker.worker_config import WorkerConfig
from wire.errors import ConfigError, KidUnknownError
from wire.ids import sha256_tag
from wire.replay import ReplaySet
from wire.suites import HYBRID, X25519

NOW = 1_790_000_000
DIGEST = sha256_tag(b"x")


def config(**changes: object) -> WorkerConfig:
    values: dict[str, object] = {
        "wid": "w",
        "aud": "tests",
        "model_name": "m",
        "model_dir": "/model",
        "service_policy": b"{}",
        "image": DIGEST,
        "model_digests": {"tree": DIGEST, "weights": DIGEST},
    }
    return WorkerConfig(**(values | changes))  # type: ignore[arg-type]


def ring(**changes: object) -> Keyring:
    return Keyring(config(**changes), os.urandom)


def install(keyring: Keyring, now: int) -> Epoch:
    epoch = keyring.prepare(now)
    keyring.install(epoch, (Evidence("software", b"{}"),))
    return epoch


def test_a_binding_names_the_boot_the_keys_and_the_policy() -> None:
    keyring = ring()
    keyring.set_posture(b"record")
    epoch = install(keyring, NOW)
    binding = parse_binding(epoch.binding)
    assert (binding.nbf, binding.exp) == (NOW, NOW + 3600)
    assert binding.boot == keyring.boot
    assert binding.sig_pk == keyring.sig_pk
    assert binding.policy == sha256_tag(b"{}")
    assert binding.posture == sha256_tag(b"record")
    assert set(binding.kids().values()) == set(epoch.keys)
    keyring.close()


def test_an_x25519_key_exists_only_where_the_settings_allow_one() -> None:
    strict, both = ring(), ring(require_pq=False)
    assert set(parse_binding(install(strict, NOW).binding).kids()) == {HYBRID}
    assert set(parse_binding(install(both, NOW).binding).kids()) == {HYBRID, X25519}
    strict.close()
    both.close()


def test_an_epoch_is_not_found_before_it_was_attested() -> None:
    keyring = ring()
    epoch = keyring.prepare(NOW)
    with pytest.raises(KidUnknownError):
        keyring.find(epoch.keys, NOW)
    with pytest.raises(RuntimeError, match="attested"):
        _ = epoch.evidence
    keyring.close()


def test_an_hour_s_key_is_replaced_ten_minutes_before_and_kept_fifteen_after() -> None:
    keyring = ring()
    epoch = install(keyring, NOW)
    kids = list(epoch.keys)
    assert keyring.rotate_at() == epoch.exp - 600
    assert keyring.offered(epoch.exp - 1) == [epoch]
    assert keyring.offered(epoch.exp) == []
    assert keyring.find(kids, epoch.exp + 899)[0] is epoch
    with pytest.raises(KidUnknownError):
        keyring.find(kids, epoch.exp + 900)
    keyring.close()


def test_a_dropped_epoch_s_seeds_are_wiped_and_its_name_is_remembered() -> None:
    keyring = ring()
    first = install(keyring, NOW)
    second = install(keyring, NOW + 3000)
    (kid,) = first.keys
    seed = first.keys[kid].seed
    assert keyring.drop_ended(first.drop_at - 1) == 0
    assert keyring.drop_ended(first.drop_at) == 1
    with pytest.raises(RuntimeError, match="closed"):
        seed.view()
    assert keyring.named([kid]) == kid
    assert keyring.offered(NOW + 3601) == [second]
    keyring.close()


@pytest.mark.parametrize("epoch_s", [60, 3600])
def test_keys_are_dropped_when_readers_of_the_binding_expect_it(epoch_s: int) -> None:
    keyring = ring(epoch_s=epoch_s)
    epoch = install(keyring, NOW)
    assert epoch.drop_at == parse_binding(epoch.binding).opens_until
    keyring.close()


def test_a_full_replay_set_asks_for_rotation_at_once() -> None:
    keyring = ring()
    epoch = install(keyring, NOW)
    epoch.replay = ReplaySet(limit=1)
    assert keyring.rotate_at() > NOW
    epoch.replay.enter(bytes(32))
    assert keyring.rotate_at() == 0
    keyring.close()


def test_a_live_challenge_changes_the_nonce_and_nothing_else() -> None:
    keyring = ring()
    epoch = install(keyring, NOW)
    nonce = os.urandom(32)
    fresh = parse_binding(keyring.challenged(epoch, nonce))
    usual = parse_binding(epoch.binding)
    assert fresh.nonce == nonce
    assert (fresh.kems, fresh.nbf, fresh.exp) == (usual.kems, usual.nbf, usual.exp)
    assert fresh.bh != usual.bh
    keyring.close()


def test_the_rebuilt_key_opens_what_was_sealed_to_the_binding() -> None:
    from wire.envelope import open_envelope, parse_envelope
    from wire.suites import SUITES

    keyring = ring()
    epoch = install(keyring, NOW)
    who = Caller(parse_binding(epoch.binding))
    sealed = who.seal(who.chat("hi"), iat=NOW, exp=NOW + 60)
    _, kid, key = keyring.find(sealed.kids, NOW)
    opened = open_envelope(
        parse_envelope(sealed.envelope), kid, key.private_key(), SUITES[key.suite]
    )
    assert opened.th == sealed.th
    keyring.close()


def test_every_boot_has_its_own_keys() -> None:
    one, two = ring(), ring()
    assert one.boot != two.boot
    assert one.sig_pk != two.sig_pk
    one.close()
    two.close()


@pytest.mark.parametrize("epoch_s", [1, 90_000])
def test_an_epoch_length_outside_its_bounds_is_refused(epoch_s: int) -> None:
    with pytest.raises(ConfigError, match="epoch_s"):
        config(epoch_s=epoch_s)


def test_the_measured_settings_leave_out_where_the_worker_runs_only() -> None:
    base = config()
    assert (
        config(wid="other", model_dir="/elsewhere", wrapper="bwrap").measured() == base.measured()
    )
    for change in (
        {"aud": "x"},
        {"epoch_s": 60},
        {"require_pq": False},
        {"engine": {"threads": 2}},
    ):
        assert config(**change).measured() != base.measured(), change


def test_settings_survive_the_control_channel() -> None:
    settings = config(engine={"threads": 2}, namespaces={"net": "net:[1]"})
    assert WorkerConfig.parse(settings.document()) == settings
    with pytest.raises(ConfigError, match="unknown member 'extra'"):
        WorkerConfig.parse({**settings.document(), "extra": 1})

"""Keys that evidence names are drawn where it is made, and nothing that leaves contains one."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import pytest
from simulators.key_holder import key_holder

from attestation.binding import parse_binding
from attestation.evidence import Evidence
from enclave_worker.epochs import Keyring
from enclave_worker.worker_config import WorkerConfig
from wire.errors import ConfigError
from wire.ids import b64u

NOW = 1_790_000_000


def config() -> WorkerConfig:
    return replace(key_holder(), require_pq=False)


def test_whoever_knows_all_that_a_worker_is_given_knows_none_of_its_keys() -> None:
    """Same settings, same source of what is public: the kernel alone chooses the keys."""
    one, two = Keyring(config(), bytes), Keyring(config(), bytes)
    assert one.boot == two.boot == bytes(16)
    assert one.sig_pk != two.sig_pk
    first, second = parse_binding(one.prepare(NOW).binding), parse_binding(two.prepare(NOW).binding)
    assert not {kem.pk for kem in first.kems} & {kem.pk for kem in second.kems}
    one.close()
    two.close()


@pytest.mark.parametrize("name", ["seed", "sig_seed", "sig", "keys", "private_key"])
def test_a_launcher_cannot_hand_a_worker_its_keys(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown member '{name}'"):
        WorkerConfig.parse({**config().document(), name: b64u(bytes(32))})


def test_nothing_that_a_keyring_gives_out_contains_a_secret() -> None:
    keyring = Keyring(config(), os.urandom)
    keyring.set_posture(b"record")
    epochs = [keyring.prepare(NOW), keyring.prepare(NOW + 3000)]
    for epoch in epochs:
        keyring.install(epoch, (Evidence("software", b"{}"),))
    shown = [
        repr((keyring, epochs, [epoch.keys for epoch in epochs], keyring.secrets())).encode(),
        *(epoch.binding for epoch in epochs),
        *(keyring.challenged(epoch, bytes(32)) for epoch in epochs),
        keyring.sig.sign(b"statement"),
    ]
    secrets = [bytes(secret.view()) for secret in keyring.secrets()]
    assert len(secrets) >= 5  # one that signs, two suites in each of two epochs
    for secret in secrets:
        forms = (secret, secret.hex().encode(), b64u(secret).encode(), repr(secret)[2:-1].encode())
        assert not any(form in text for form in forms for text in shown)
    keyring.close()


def test_a_secret_cannot_be_packed_up_for_another_process() -> None:
    """A queue or a dump would take it apart as a copy does, and find nothing it can take along."""
    keyring = Keyring(config(), os.urandom)
    for secret in keyring.secrets():
        with pytest.raises(TypeError):
            copy.deepcopy(secret)
    keyring.close()

"""Secret pages: hidden from /proc/PID/mem even for root, locked, wiped, usable by the library."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enclave_worker.sandbox import memory
from enclave_worker.sandbox.memory import SecretBytes

pytestmark = pytest.mark.sandbox


@pytest.fixture
def needs_secret_memory() -> None:
    with SecretBytes(32) as trial:
        if trial.storage != "memfd_secret":
            pytest.skip("kernel without memfd_secret, or it is switched off")


def test_the_seed_cannot_be_read_through_proc_while_the_heap_can(spawn, needs_secret_memory):
    process, facts = spawn(
        """
        from enclave_worker.sandbox.memory import SecretBytes
        secret = SecretBytes.random(32)
        heap = ctypes.create_string_buffer(b"ordinary memory")
        inside = ctypes.addressof(ctypes.c_ubyte.from_buffer(secret.view()))
        report(secret=inside, heap=ctypes.addressof(heap))
        sys.stdin.read()
        """
    )
    memory_file = os.open(f"/proc/{process.pid}/mem", os.O_RDONLY)
    try:
        assert os.pread(memory_file, 15, facts["heap"]) == b"ordinary memory"
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(memory_file, 32, facts["secret"])
    finally:
        os.close(memory_file)


def test_secret_memory_is_locked(needs_secret_memory):
    def locked_kib() -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmLck"))

    before = locked_kib()
    with SecretBytes(32):
        assert locked_kib() > before
    assert locked_kib() == before


def test_a_signing_key_is_built_from_the_page_in_place():
    with SecretBytes.random(32) as seed:
        key = Ed25519PrivateKey.from_private_bytes(seed.view())
        key.public_key().verify(key.sign(b"statement"), b"statement")
        assert key.private_bytes_raw() == seed.view()


def test_two_random_secrets_differ():
    with SecretBytes.random(32) as one, SecretBytes.random(32) as other:
        assert one.view() != other.view()
        assert bytes(one.view()) != bytes(32)


def test_a_closed_secret_is_gone():
    secret = SecretBytes.random(32)
    kept = secret.view()
    secret.close()
    secret.close()
    with pytest.raises(RuntimeError, match="closed"):
        secret.view()
    with pytest.raises(ValueError, match="released"):
        bytes(kept)


@pytest.mark.parametrize("size", [0, -1, 1 << 20])
def test_a_size_that_is_no_secret_is_refused(size):
    with pytest.raises(ValueError, match="a secret has"):
        SecretBytes(size)


def test_the_record_claims_nothing_for_a_page_nobody_uses():
    controls = memory.probe([])
    assert {control.state for control in controls.values()} <= {"refused", "unavailable"}


def test_the_record_claims_the_pages_in_use(needs_secret_memory):
    with SecretBytes.random(32) as one, SecretBytes.random(32) as other:
        controls = memory.probe([one, other])
    assert {name: control.state for name, control in controls.items()} == {
        "memfd_secret": "applied",
        "mlock": "applied",
    }


def test_one_secret_without_a_locked_page_spoils_the_claim(child):
    """Beyond the lock limit the storage falls back, works, and is reported as what it is."""
    facts = child(
        """
        import resource
        from enclave_worker.sandbox import limits, memory
        limits.drop_capabilities()  # CAP_IPC_LOCK would lift the limit
        good = memory.SecretBytes.random(32)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        plain = memory.SecretBytes.random(32)
        controls = memory.probe([good, plain])
        report(storage=plain.storage, size=len(plain.view()),
               states=[controls["memfd_secret"].state, controls["mlock"].state])
        """
    )
    assert (facts["storage"], facts["size"]) == ("plain", 32)
    assert "applied" not in facts["states"]

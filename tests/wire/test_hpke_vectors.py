"""Published HPKE vectors against the two suites of the protocol.

The public single-shot interface takes no aad and the published ciphertexts have one, so a vector's
own key and nonce seal the message once more without: the suite must open that. Key and nonce are
checked by the published ciphertext first.
"""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from wire.errors import MalformedError, OpenError
from wire.ids import kid_of
from wire.suites import HYBRID, SUITES, X25519, strongest

AES_256_GCM, CHACHA = 2, 3
MESSAGE = bytes(range(64))


def key_schedule(vector, aead_id):
    """RFC 9180 §5.1, base mode, HKDF-SHA256: key and base nonce from the vector's shared secret."""
    suite_id = b"HPKE" + b"".join(
        value.to_bytes(2, "big") for value in (vector["kem_id"], vector["kdf_id"], aead_id)
    )

    def extract(salt, label, ikm):
        return hmac.digest(salt, b"HPKE-v1" + suite_id + label + ikm, "sha256")

    def expand(prk, label, info, n):
        labeled = n.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
        return hmac.digest(prk, labeled + b"\x01", "sha256")[:n]

    info = bytes.fromhex(vector["info"])
    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(bytes.fromhex(vector["shared_secret"]), b"secret", b"")
    return expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)


def entries(vectors, kem_id):
    found = vectors("protocol/rfc9180-base-hkdf-sha256.json")
    found += vectors("protocol/hpke-pq-mlkem768.json")
    return [v for v in found if v["mode"] == 0 and v["kem_id"] == kem_id and v["kdf_id"] == 1]


def check_published_ciphertext(vector, cipher):
    key, nonce = key_schedule(vector, vector["aead_id"])
    assert (key.hex(), nonce.hex()) == (vector["key"], vector["base_nonce"])
    first = vector["encryptions"][0]
    pt, ct, aad = (bytes.fromhex(first[name]) for name in ("pt", "ct", "aad"))
    assert cipher(key).encrypt(nonce, pt, aad) == ct


def test_the_x25519_suite_opens_what_the_published_vector_seals(vectors):
    [vector] = [v for v in entries(vectors, 0x0020) if v["aead_id"] == AES_256_GCM]
    check_published_ciphertext(vector, AESGCM)
    suite = SUITES[X25519]
    sk = suite.private_key(bytes.fromhex(vector["skRm"]))
    assert suite.public_bytes(sk).hex() == vector["pkRm"]
    key, nonce = bytes.fromhex(vector["key"]), bytes.fromhex(vector["base_nonce"])
    sealed = bytes.fromhex(vector["enc"]) + AESGCM(key).encrypt(nonce, MESSAGE, b"")
    assert len(sealed) == suite.wrap_len
    assert suite.open(sk, bytes.fromhex(vector["info"]), sealed) == MESSAGE


def test_the_hybrid_suite_opens_what_the_published_shared_secret_seals(vectors):
    # Published with ChaCha20-Poly1305: its key schedule is checked as published, then run again
    # with the id of AES-256-GCM, which is all that differs in our suite.
    [vector] = [v for v in entries(vectors, 0x647A) if v["aead_id"] == CHACHA]
    check_published_ciphertext(vector, ChaCha20Poly1305)
    suite = SUITES[HYBRID]
    sk = suite.private_key(bytes.fromhex(vector["skRm"]))
    assert suite.public_bytes(sk).hex() == vector["pkRm"]
    key, nonce = key_schedule(vector, AES_256_GCM)
    sealed = bytes.fromhex(vector["enc"]) + AESGCM(key).encrypt(nonce, MESSAGE, b"")
    assert len(sealed) == suite.wrap_len
    assert suite.open(sk, bytes.fromhex(vector["info"]), sealed) == MESSAGE


def test_the_library_itself_opens_the_published_hybrid_parts(vectors):
    [vector] = [v for v in entries(vectors, 0x647A) if v["aead_id"] == CHACHA]
    sk = SUITES[HYBRID].private_key(bytes.fromhex(vector["skRm"]))
    published = hpke.Suite(
        hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305
    )
    key, nonce = bytes.fromhex(vector["key"]), bytes.fromhex(vector["base_nonce"])
    sealed = bytes.fromhex(vector["enc"]) + ChaCha20Poly1305(key).encrypt(nonce, MESSAGE, b"")
    assert published.decrypt(sealed, sk.handle, bytes.fromhex(vector["info"])) == MESSAGE


@pytest.mark.parametrize(("name", "pk_len", "wrap_len"), [(HYBRID, 1216, 1200), (X25519, 32, 112)])
def test_a_suite_opens_what_it_seals_and_has_the_lengths_of_the_specification(
    name, pk_len, wrap_len
):
    suite = SUITES[name]
    sk = suite.generate(lambda n: b"\x07" * n)
    pk = suite.public_bytes(sk)
    sealed = suite.seal(pk, b"info", MESSAGE)
    assert (len(pk), suite.pk_len) == (pk_len, pk_len)
    assert (len(sealed), suite.wrap_len) == (wrap_len, wrap_len)
    assert suite.open(sk, b"info", sealed) == MESSAGE
    assert suite.seal(pk, b"info", MESSAGE) != sealed


@pytest.mark.parametrize("name", [HYBRID, X25519])
@pytest.mark.parametrize("change", ["info", "flip first", "flip last", "cut", "extend", "empty"])
def test_a_changed_wrap_does_not_open(name, change):
    suite = SUITES[name]
    sk = suite.private_key(b"\x07" * 32)
    sealed = suite.seal(sk.pk, b"info", MESSAGE)
    changed = {
        "info": sealed,
        "flip first": bytes([sealed[0] ^ 1]) + sealed[1:],
        "flip last": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "cut": sealed[:-1],
        "extend": sealed + b"\0",
        "empty": b"",
    }[change]
    with pytest.raises(OpenError):
        suite.open(sk, b"other" if change == "info" else b"info", changed)


def test_a_wrap_does_not_open_with_another_key():
    suite = SUITES[HYBRID]
    sealed = suite.seal(suite.private_key(b"\x07" * 32).pk, b"info", MESSAGE)
    with pytest.raises(OpenError):
        suite.open(suite.private_key(b"\x08" * 32), b"info", sealed)


@pytest.mark.parametrize("name", [HYBRID, X25519])
@pytest.mark.parametrize("size", [0, -1, +1])
def test_a_public_key_of_another_length_is_refused(name, size):
    suite = SUITES[name]
    pk = b"\x01" * (suite.pk_len + size if size else 0)
    with pytest.raises(MalformedError, match="public key"):
        suite.seal(pk, b"", MESSAGE)


def test_a_key_of_low_order_is_refused():
    with pytest.raises(MalformedError, match="public key"):
        SUITES[X25519].seal(bytes(32), b"", MESSAGE)


def test_a_lattice_key_with_coefficients_out_of_range_is_refused():
    with pytest.raises(MalformedError, match="public key"):
        SUITES[HYBRID].seal(b"\xff" * 1216, b"", MESSAGE)


def test_caller_mistakes_with_keys_are_value_errors():
    with pytest.raises(ValueError, match="32 bytes"):
        SUITES[HYBRID].private_key(b"short")
    with pytest.raises(ValueError, match="suite"):
        SUITES[HYBRID].open(SUITES[X25519].private_key(b"\x01" * 32), b"", b"")


def test_a_private_key_does_not_show_its_handle():
    assert "handle" not in repr(SUITES[X25519].private_key(b"\x01" * 32))


@pytest.mark.parametrize(
    ("names", "allow", "expected"),
    [
        ([X25519, HYBRID], True, HYBRID),
        ([X25519, HYBRID], False, HYBRID),
        ([X25519], True, X25519),
        ([X25519], False, None),
        (["ffff-0001-0002"], True, None),
        ([], True, None),
    ],
)
def test_the_strongest_acceptable_suite_is_chosen(names, allow, expected):
    assert strongest(names, allow) == expected


def test_a_kid_names_suite_and_key():
    pk = b"\x01" * 32
    expected = hashlib.sha256(b"anchorhold/1 kid\0\x00\x0e0020-0001-0002" + pk).digest()
    assert kid_of(X25519, pk) == expected
    assert kid_of(HYBRID, pk) != expected

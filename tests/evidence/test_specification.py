"""The worked examples of docs/spec/receipts.md hold, computed from first principles."""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from pathlib import Path

from simulators.exchange import NOW, Exchange

from evidence.bundle import build_bundle, verify_bundle
from evidence.commit import Role, commit_segments, segment_commitment, segment_secret
from evidence.leaf import public_leaf
from evidence.merkle import leaf_hash
from evidence.receipt import statement_commitment

TEXT = (Path(__file__).resolve().parents[2] / "docs/spec/receipts.md").read_text()
KEY = bytes(range(32))


def shown(name: str) -> str:
    found = re.search(rf"^{name} +([0-9a-f]{{64}})$", TEXT, re.MULTILINE)
    assert found, name
    return found.group(1)


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def test_the_commitment_example_holds() -> None:
    segments = [(1, b"Be brief."), (3, b"What is an anchor?")]
    secrets = [mac(KEY, b"seg" + i.to_bytes(4, "big") + b"\x01") for i in range(2)]
    committed = [
        mac(secret, bytes([role]) + len(data).to_bytes(8, "big") + data)
        for secret, (role, data) in zip(secrets, segments, strict=True)
    ]
    left, right = (sha256(b"\x00" + item).digest() for item in committed)
    root = sha256(b"\x01" + left + right).digest()
    assert (shown("s_1"), shown("c_1"), shown("c")) == (
        secrets[1].hex(),
        committed[1].hex(),
        root.hex(),
    )
    assert segment_secret(KEY, 1) == secrets[1]
    assert segment_commitment(secrets[1], Role.USER, b"What is an anchor?") == committed[1]
    assert commit_segments(KEY, segments) == root


def test_the_leaf_example_holds() -> None:
    event = b'{"v":1}'
    commitment = mac(KEY, b"evl1 commit\0" + event)
    body = (KEY + event + b"\x80").ljust(256, b"\0")
    leaf = b"EVL1\x00" + bytes(16) + commitment + body
    assert len(leaf) == 309
    assert public_leaf(event, KEY) == leaf
    assert (shown("C"), shown("leaf hash")) == (
        commitment.hex(),
        sha256(b"\x00" + leaf).hexdigest(),
    )
    assert leaf_hash(leaf).hex() == shown("leaf hash")


def test_the_statement_commitment_example_holds() -> None:
    assert shown("sc") == mac(KEY, b"statement").hex()
    assert statement_commitment(b"statement", KEY).hex() == shown("sc")


def test_the_specification_lists_the_checks_that_run() -> None:
    exchange = Exchange()
    raw = build_bundle(
        exchange.record,
        binding=exchange.binding,
        evidence=[exchange.evidence],
        posture=None,
        verdict=exchange.verdict,
    )
    ran = [check.id for check in verify_bundle(raw, exchange.policy, NOW).checks]
    section = TEXT.split("### Offline verification", 1)[1].split("\n## ", 1)[0]
    listed = re.findall(r"^\| \d+ \| `([a-z_]+)", section, re.MULTILINE)
    assert listed == list(dict.fromkeys(name.split(".")[0] for name in ran))

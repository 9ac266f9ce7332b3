"""`anchorhold collateral` as a user meets it: output, exit codes, errors that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from simulators.vendor_collateral import DAY_S, AmdVendor, IntelVendor, key_set
from simulators.vendor_services import ISSUER, JWKS, ROOT_CRL, Answer, Fault, VendorServices

from attestation.collateral.entry import Checked, Piece, make_entry
from attestation.collateral.store import Store
from attestation.collateral_key import parse_key
from attestation.evidence import Evidence
from attestation.formats.container import encode_container
from client import cli
from client.cli_collateral import FETCH_AGAIN_S
from client.clock import wall_clock
from client.collateral_inputs import needed_keys
from wire.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
FMSPC = "00806f050000"
DCAP = f"intel-pcs:collateral/tdx/{FMSPC}/platform"
CHAIN = "amd-kds:chain/vcek/Genoa"
QE = "intel-pcs:qe/tdx"


class Place:
    """Vendors over loopback, their roots and addresses as files, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder, now = folder, wall_clock()
        self.intel, self.amd = IntelVendor(now), AmdVendor(now)
        self.served = VendorServices()
        self.served.intel(self.intel, FMSPC)
        self.served.amd(self.amd)
        self.served.answers[JWKS] = Answer(key_set("a"))
        self.roots = []
        for name, root in (("intel", self.intel.root), ("amd", self.amd.ark)):
            path = folder / f"{name}.pem"
            path.write_bytes(root.public_bytes(serialization.Encoding.PEM))
            self.roots += ["--root", str(path)]
        self.services = folder / "services.toml"
        url = self.served.url
        self.services.write_text(
            f'intel_pcs = "{url}"\nintel_root_crl = "{url}{ROOT_CRL}"\namd_kds = "{url}"\n'
            f'[jwks]\n{ISSUER} = "{url}{JWKS}"\n'
        )

    def fetch(self, *names: str, cache: str = "cache") -> list[str]:
        words = [word for name in names for word in ("--key", name)]
        services = ["--services", str(self.services), "--cache-dir", str(self.folder / cache)]
        return ["collateral", "fetch", *words, *services, *self.roots]

    def cached(self, action: str, *words: str, cache: str = "cache") -> list[str]:
        return ["collateral", action, *words, "--cache-dir", str(self.folder / cache)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    with found.served:
        yield found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def command(words: list[str]) -> tuple[int, str, str]:
        try:
            code = cli.execute(cli.build_parser(), words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return command


def test_fetch_list_export_import_and_the_far_side_has_it(run: Any, place: Place) -> None:
    code, out, err = run(place.fetch(DCAP, CHAIN, f"jwks:jwks/{ISSUER}"))
    assert (code, err) == (0, "")
    assert out.count("ok    ") == 6
    bundle = str(place.folder / "bundle.json")
    assert run(place.cached("export", bundle))[0] == 0
    code, out, _ = run([*place.cached("import", bundle, cache="far"), *place.roots])
    assert code == 0
    assert "6 entries imported" in out
    code, out, _ = run(place.cached("list", cache="far"))
    assert code == 0
    assert out.count("in force  ") == 6
    assert Path(bundle).stat().st_mode & 0o777 == 0o600


def test_every_document_is_json_with_the_exit_code(run: Any, place: Place) -> None:
    bundle = str(place.folder / "bundle.json")
    for words in (
        place.fetch(DCAP),
        place.cached("export", bundle),
        [*place.cached("import", bundle, cache="far"), *place.roots],
        place.cached("list"),
    ):
        code, out, err = run([*words, "--json"])
        assert (code, err) == (0, "")
        document = json.loads(out)
        assert document["ok"] is True
        assert len(document["entries"]) == 4
        assert document["entries"][0]["in_force"] is True


def test_a_fetch_renews_what_is_in_force_but_no_longer_new(run: Any, place: Place) -> None:
    # A policy may end an entry's use before its own end; there must be a way to a newer one.
    assert run(place.fetch(QE))[0] == 0
    assert run(place.fetch(QE))[0] == 0
    assert len(place.served.asked) == 1
    now, store = wall_clock(), Store(place.folder / "cache")
    (entry,) = store.entries(now)
    store.put(replace(entry, fetched_at=now - FETCH_AGAIN_S), now)
    assert run(place.fetch(QE))[0] == 0
    assert len(place.served.asked) == 2


def test_output_fits_a_terminal(run: Any, place: Place) -> None:
    _, out, _ = run(place.fetch(DCAP, CHAIN))
    assert max(map(len, out.splitlines())) <= 80


def test_a_service_that_is_down_is_4_with_a_reason_and_a_hint(run: Any, place: Place) -> None:
    place.served.faults["/vcek/v1/Genoa/cert_chain"] = Fault("status", status=404)
    code, out, err = run(place.fetch(CHAIN, QE))
    assert code == 4
    assert "FAIL  amd-kds:chain/vcek/Genoa" in out
    assert "collateral_unavailable" in out
    assert "status 404" in out
    assert "import a bundle" in out
    assert "1 entry in the cache, 1 not" in out
    hint = "check the network and the services file, or import a bundle"
    assert f"\nhint: {hint}\n" in err
    code, out, err = run([*place.fetch(CHAIN, QE), "--json"])
    error = json.loads(out)["error"]
    assert (code, error["code"], error["hint"]) == (4, "collateral_unavailable", hint)
    assert error["message"].startswith(f"{CHAIN}: ")
    assert f"\nhint: {hint}\n" in err


def test_what_another_root_signed_is_2(run: Any, place: Place) -> None:
    words = [word for word in place.fetch(CHAIN, QE) if not word.endswith("amd.pem")]
    words.pop()
    code, out, _ = run([*words, "--json"])
    assert code == 2
    document = json.loads(out)
    assert document["exit_code"] == 2
    assert [row["code"] for row in document["refused"]] == ["untrusted_root"]
    assert document["error"]["code"] == "untrusted_root"
    assert "use none of what was refused" in document["error"]["hint"]


def test_without_roots_of_ones_own_only_the_vendors_count(run: Any, place: Place) -> None:
    words = place.fetch(QE)
    code, out, _ = run(words[: words.index("--root")])
    assert code == 2
    assert "untrusted_root" in out


def test_older_collateral_than_seen_before_is_3(run: Any, place: Place) -> None:
    older, newer = (str(place.folder / name) for name in ("older.json", "newer.json"))
    run(place.fetch(QE))
    run(place.cached("export", older))
    place.intel.number += 1
    place.served.intel(place.intel, FMSPC)
    run(place.fetch(QE, cache="second"))
    run(place.cached("export", newer, cache="second"))
    assert run([*place.cached("import", newer, cache="far"), *place.roots])[0] == 0
    code, out, _ = run([*place.cached("import", older, cache="far"), *place.roots])
    assert code == 3
    assert "collateral_rollback" in out


def test_import_checks_signatures_again(run: Any, place: Place) -> None:
    bundle = str(place.folder / "bundle.json")
    run(place.fetch(QE))
    run(place.cached("export", bundle))
    code, out, _ = run(place.cached("import", bundle, cache="far"))
    assert code == 2
    assert "untrusted_root" in out
    assert not (place.folder / "far").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b"[" * 100_000, b'{"a":1}'])
def test_a_file_that_is_no_bundle_is_4(run: Any, place: Place, content: bytes) -> None:
    path = place.folder / "bundle.json"
    path.write_bytes(content)
    code, out, err = run(place.cached("import", str(path)))
    assert (code, out) == (4, "")
    assert "bundle file" in err
    assert "anchorhold collateral export" in err


def test_an_altered_bundle_is_4(run: Any, place: Place) -> None:
    path = place.folder / "bundle.json"
    run(place.fetch(QE))
    run(place.cached("export", str(path)))
    path.write_bytes(path.read_bytes().replace(b'"v1', b'"v2').replace(b"a", b"b", 1))
    assert run(place.cached("import", str(path)))[0] == 4


def test_export_does_not_replace_a_file_unasked(run: Any, place: Place) -> None:
    path = place.folder / "policy.json"
    path.write_bytes(b"precious")
    run(place.fetch(QE))
    code, _, err = run(place.cached("export", str(path)))
    assert code == 4
    assert "--force" in err
    assert path.read_bytes() == b"precious"
    assert run(place.cached("export", str(path), "--force"))[0] == 0


def test_export_of_what_is_not_there_is_4(run: Any, place: Place) -> None:
    bundle = str(place.folder / "bundle.json")
    assert run(place.cached("export", bundle))[0] == 4
    run(place.fetch(QE))
    code, _, err = run(place.cached("export", bundle, "--key", CHAIN))
    assert code == 4
    assert CHAIN in err
    assert not Path(bundle).exists()


def test_export_of_a_composed_key_takes_its_parts(run: Any, place: Place) -> None:
    run(place.fetch(DCAP, CHAIN))
    _, out, _ = run(place.cached("export", str(place.folder / "b.json"), "--key", DCAP, "--json"))
    assert len(json.loads(out)["entries"]) == 4


def test_export_of_a_list_takes_the_chain_that_vouches_for_it(run: Any, place: Place) -> None:
    crl, bundle = "amd-kds:crl/vcek/Genoa", str(place.folder / "b.json")
    run(place.fetch(DCAP, crl))
    _, out, _ = run(place.cached("export", bundle, "--key", crl, "--json"))
    assert [row["key"] for row in json.loads(out)["entries"]] == [CHAIN, crl]
    assert run([*place.cached("import", bundle, cache="far"), *place.roots])[0] == 0


def test_export_of_the_roots_list_takes_a_chain_that_vouches_for_it(run: Any, place: Place) -> None:
    root, processor = "intel-pcs:root-crl", "intel-pcs:pck-crl/processor"
    bundle = str(place.folder / "b.json")
    run(place.fetch(processor, root))
    _, out, _ = run(place.cached("export", bundle, "--key", root, "--json"))
    assert [row["key"] for row in json.loads(out)["entries"]] == [processor, root]
    assert run([*place.cached("import", bundle, cache="far"), *place.roots])[0] == 0


def test_export_into_a_folder_that_is_not_there_is_4(run: Any, place: Place) -> None:
    run(place.fetch(QE))
    code, _, err = run(place.cached("export", str(place.folder / "no" / "b.json")))
    assert code == 4
    assert "name a file in a folder that this user may write" in err


@pytest.mark.parametrize(
    "name", ["", "x", "intel-pcs:", "https://evil.example/tcb", "amd-kds:chain/vcek/Rome"]
)
def test_a_key_that_is_none_is_4_with_an_example(run: Any, place: Place, name: str) -> None:
    code, _, err = run(place.fetch(name))
    assert code == 4
    assert "for example intel-pcs:qe/tdx" in err
    assert not place.served.asked


def test_nothing_to_fetch_is_4(run: Any, place: Place) -> None:
    code, _, err = run(place.fetch())
    assert code == 4
    assert "--key" in err


@pytest.mark.parametrize(
    "text",
    [
        "intel_pcs = 5",
        "verify_tls = false",
        'amd_kds = "http://kds.example"',
        'amd_kds = "https://user@kds.example"',
        "not toml",
        "\x00",
    ],
)
def test_a_services_file_that_is_refused_is_4(run: Any, place: Place, text: str) -> None:
    place.services.write_text(text)
    code, out, err = run(place.fetch(QE))
    assert (code, out) == (4, "")
    assert err.startswith("anchorhold: services")


def test_a_root_file_that_is_none_is_4(run: Any, place: Place) -> None:
    (place.folder / "amd.pem").write_text("nothing")
    code, _, err = run(place.fetch(QE))
    assert code == 4
    assert "amd.pem" in err


# ------------------------------------------------------------------ evidence


def test_evidence_says_what_it_needs(vectors: dict[str, Any], tmp_path: Path) -> None:
    parts = {"first_party": "sha256:" + "00" * 32}
    for name, kind, role, expected in (
        ("snp-genoa-v3", "amd-sev-snp-report", "report", "amd-kds:vcek/Genoa/"),
        ("tdx-v4-debug", "intel-tdx-quote", "quote", "intel-pcs:collateral/tdx/50806f000000/"),
    ):
        raw = (vectors["root"] / vectors[name]["files"][role]).read_bytes()
        item = Evidence(kind, encode_container({role: raw}, parts))
        path = tmp_path / f"{name}.json"
        for document in (item.to_json(), [item.to_json()]):
            path.write_text(json.dumps(document))
            assert any(str(key).startswith(expected) for key in needed_keys(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind":"unknown","body":"AAAA"}',
        b'{"kind":"amd-sev-snp-report","body":"AAAA"}',
        b'{"kind":"amd-sev-snp-report","body":"AAAA","url":"https://evil.example"}',
    ],
)
def test_a_file_that_is_no_evidence_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evidence.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="evidence file"):
        needed_keys(path)


def test_evidence_that_rests_on_the_policy_alone_needs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps(Evidence("software", b"{}").to_json()))
    assert needed_keys(path) == []


# ------------------------------------------------------------------ Ctrl-C


def test_ctrl_c_ends_a_fetch_at_once_and_leaves_a_usable_cache(run: Any, place: Place) -> None:
    place.served.faults[""] = Fault("slow")
    command = [sys.executable, "-c", "from client.cli import main; main()", *place.fetch(QE)]
    child = subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not place.served.asked and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=10)
    assert child.returncode == 130, err
    assert "Traceback" not in out + err
    place.served.faults.clear()
    assert run(place.fetch(QE))[0] == 0


def test_an_ended_entry_is_listed_as_ended_and_not_exported(run: Any, place: Place) -> None:
    before = wall_clock() - 2 * DAY_S
    entry = make_entry(parse_key(QE), Piece(b"{}"), Checked(), before)
    Store(place.folder / "cache").put(entry, before)
    _, out, _ = run(place.cached("list"))
    assert out.startswith("ended     intel-pcs:qe/tdx")
    assert run(place.cached("export", str(place.folder / "b.json")))[0] == 4


def test_a_day_is_the_longest_that_what_can_be_revoked_is_believed(run: Any, place: Place) -> None:
    _, out, _ = run([*place.fetch(DCAP), "--json"])
    for row in json.loads(out)["entries"]:
        assert row["expires"] - row["fetched_at"] <= DAY_S

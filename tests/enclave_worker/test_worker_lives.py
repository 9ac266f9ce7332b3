"""How a worker comes up, rotates, loses its gateway, dies and stops. Each test starts its own."""

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.caller import Caller
from simulators.link_peer import LinkPeer

from attestation.appraise import appraise
from attestation.binding import Binding
from attestation.policy import parse_policy
from attestation.result import AppraisedEvidence
from enclave_worker.clock import Clock
from enclave_worker.launch import Launcher
from enclave_worker.launcher_config import LauncherConfig
from wire.errors import AttestationError, ConfigError, UnavailableError
from wire.notice import verify_notice

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


async def test_epochs_rotate_and_the_old_key_opens_within_its_grace_only(make_bed: Any) -> None:
    async with make_bed(epoch_s=8) as bed:
        first = bed.peer.newest.binding
        assert first.beacon == bed.peer.beacon, "made after the CHALLENGE that named it"
        newer = await bed.peer.publish()  # the next LEASE names it
        who = Caller(first)
        early, late = who.seal(who.chat("in grace")), who.seal(who.chat("too late"))
        await bed.peer.until(lambda: len(bed.peer.introduced) == 2)
        second = bed.peer.newest.binding
        assert second.epoch == first.epoch + 1
        assert second.boot == first.boot
        assert second.sig_pk == first.sig_pk
        assert not set(first.kids().values()) & set(second.kids().values())
        assert second.nbf < first.exp, "published before the first one ends"
        assert second.beacon == newer
        await asyncio.sleep(max(0.0, first.exp + 0.5 - Clock().ms() / 1000))
        answer = await bed.peer.exchange(early.header.rid, early.envelope)
        assert who.read(early, bytes(answer.data)).status == 200
        # 8 s epochs are kept for 2 s after their end
        await asyncio.sleep(max(0.0, first.exp + 3.2 - Clock().ms() / 1000))
        answer = await bed.peer.exchange(late.header.rid, late.envelope)
        code = verify_notice(answer.notice, first.sig_pk, late.header.rid, late.th, late.kids)
        assert code == "kid_unknown"
        new = Caller(second)
        sealed = new.seal(new.chat("new key"))
        answer = await bed.peer.exchange(sealed.header.rid, sealed.envelope)
        assert new.read(sealed, bytes(answer.data)).status == 200


async def test_a_gateway_that_restarts_is_found_again_by_the_same_process(make_bed: Any) -> None:
    async with make_bed() as bed:
        boot, pid = bed.peer.newest.binding.boot, bed.launcher.pid
        await bed.peer.stop()
        await asyncio.sleep(0.3)
        await bed.peer.start()
        await bed.peer.until(lambda: bed.peer.connections >= 2 and bed.peer.credits > 0)
        assert bed.peer.newest.binding.boot == boot
        assert bed.launcher.pid == pid
        assert bed.launcher.starts == 1
        who = Caller(bed.peer.newest.binding)
        sealed = who.seal(who.chat("again"))
        answer = await bed.peer.exchange(sealed.header.rid, sealed.envelope)
        assert who.read(sealed, bytes(answer.data)).status == 200


async def test_a_worker_waits_for_a_gateway_that_is_not_there_yet(
    launcher_config: LauncherConfig, tmp_path: Path
) -> None:
    launcher = Launcher(launcher_config)
    await asyncio.to_thread(launcher.start)
    peer = LinkPeer(launcher_config.gateway_socket, tmp_path / "log.db")
    try:
        await asyncio.to_thread(launcher.wait_for, "ready", 1)
        assert launcher.state in ("ready", "waiting")
        await peer.start()
        await peer.admitted()
        await asyncio.to_thread(launcher.wait_for, "admitted", 10)
    finally:
        await asyncio.to_thread(launcher.stop)
        await peer.close()


async def test_a_gateway_that_falls_silent_is_left_after_a_lease(
    launcher_config: LauncherConfig, tmp_path: Path
) -> None:
    peer = LinkPeer(launcher_config.gateway_socket, tmp_path / "log.db", lease_s=2)
    await peer.start()
    launcher = Launcher(launcher_config)
    try:
        await asyncio.to_thread(launcher.start)
        first = (await peer.admitted()).binding
        await asyncio.sleep(2.5)
        assert peer.connections == 1, "every LEASE renews it"
        peer.silent, beats = True, peer.heartbeats
        await peer.until(lambda: peer.connections == 2, timeout=10)
        assert peer.heartbeats > beats, "the socket was open and took what the worker sent"
        peer.silent = False
        await peer.until(lambda: peer.credits > 0)
        assert peer.newest.binding == first, "the same process, the same keys"
    finally:
        await asyncio.to_thread(launcher.stop)
        await peer.close()
    assert launcher.failure is None


@pytest.mark.tpm
async def test_a_worker_that_cannot_be_attested_ends_with_the_reason(
    launcher_config: LauncherConfig, tmp_path: Path
) -> None:
    launcher = Launcher(replace(launcher_config, trust="simulated", restart=True))
    peer = LinkPeer(launcher_config.gateway_socket, tmp_path / "log.db")
    try:
        await asyncio.to_thread(launcher.start)
        assert launcher._machine is not None
        launcher._machine.close()  # its TPM goes away before the first connection asks for a quote
        await peer.start()
        failure = await asyncio.to_thread(launcher.wait, 30)
        assert failure is not None
        assert failure.stage == "attest"
        assert launcher.starts == 1, "it would fail the same way again"
        with pytest.raises(UnavailableError, match="failed at stage attest"):
            launcher.wait_for("admitted", 1)
    finally:
        await asyncio.to_thread(launcher.stop)
        await peer.close()
    assert peer.introduced == []


async def test_a_killed_worker_is_reported_with_its_signal(make_bed: Any) -> None:
    async with make_bed() as bed:
        os.kill(bed.launcher.pid, signal.SIGKILL)
        failure = await asyncio.to_thread(bed.launcher.wait, 15)
        assert failure is not None
        assert "signal 9" in failure.message
        assert "died" in [state for state, _ in bed.states]
        with pytest.raises(UnavailableError, match="signal 9"):
            bed.launcher.wait_for("admitted", 1)


async def test_a_killed_worker_is_replaced_with_a_new_boot(make_bed: Any) -> None:
    async with make_bed(restart=True) as bed:
        first = bed.peer.newest.binding
        os.kill(bed.launcher.pid, signal.SIGKILL)
        await bed.peer.admitted(epochs=2)
        second = bed.peer.newest.binding
        assert second.boot != first.boot
        assert second.sig_pk != first.sig_pk
        assert second.image == first.image
        assert bed.launcher.starts == 2


async def test_stop_lets_a_running_answer_finish_and_says_goodbye(make_bed: Any) -> None:
    async with make_bed() as bed:
        who = Caller(bed.peer.newest.binding)
        sealed = who.seal(who.chat("last words", stream=True, max_tokens=48, ignore_eos=True))
        answer = await bed.peer.send_job(sealed.header.rid, sealed.envelope)
        await answer.first.wait()
        await asyncio.to_thread(bed.launcher.stop)
        assert bed.peer.goodbyes == 1
        reply = who.read(sealed, bytes(answer.data))
        assert reply.finish == "length"
        assert reply.receipt is not None
        assert bed.launcher.failure is None
        assert not list(bed.config.state_dir.glob("root-*")), "the staged root is removed"


async def test_a_refusing_gateway_is_told_to_the_operator_with_its_reasons(
    launcher_config: LauncherConfig, tmp_path: Path
) -> None:
    peer = LinkPeer(launcher_config.gateway_socket, tmp_path / "log.db")
    peer.refuse_with = ["measurement_not_accepted"]
    await peer.start()
    launcher = Launcher(launcher_config)
    try:
        await asyncio.to_thread(launcher.start)
        with pytest.raises(AttestationError, match="measurement_not_accepted") as caught:
            await asyncio.to_thread(launcher.wait_for, "admitted", 15)
        assert caught.value.reasons == ("measurement_not_accepted",)
    finally:
        await asyncio.to_thread(launcher.stop)
        await peer.close()


async def test_a_peer_that_breaks_the_protocol_is_left_and_met_again(make_bed: Any) -> None:
    async with make_bed() as bed:
        await bed.peer.send_raw(b"\x00\x00\x00\x01\xff")
        # a broken gateway is given five seconds to come to its senses
        await bed.peer.until(lambda: bed.peer.connections >= 2 and bed.peer.credits > 0)
        assert bed.launcher.starts == 1


async def test_nothing_a_client_said_is_in_the_worker_s_journal(make_bed: Any) -> None:
    async with make_bed() as bed:
        who = Caller(bed.peer.newest.binding)
        canary = os.urandom(12).hex()
        bodies: list[Any] = [
            who.chat(canary, stream=True),
            who.chat(canary, mystery=canary),
            b'{"model":"' + canary.encode(),
        ]
        answers = []
        for body in bodies:
            sealed = who.seal(body)
            answer = await bed.peer.exchange(sealed.header.rid, sealed.envelope)
            answers.append(who.read(sealed, bytes(answer.data)))
        assert answers[0].status == 200
        journal = bed.journal
        assert "job_done" in journal
        windows = {canary[at : at + 8] for at in range(len(canary) - 7)}
        assert not [window for window in windows if window in journal]
        assert not answers[0].text[:24] or answers[0].text[:24] not in journal


async def test_a_missing_model_folder_is_named_with_what_was_expected(
    launcher_config: LauncherConfig, tmp_path: Path
) -> None:
    launcher = Launcher(replace(launcher_config, model_dir=tmp_path / "nowhere"))
    with pytest.raises(
        ConfigError, match=r"found nothing at .*nowhere, expected a folder"
    ) as caught:
        await asyncio.to_thread(launcher.start)
    assert "anchorhold model import" in caught.value.hint
    assert not list(launcher_config.state_dir.glob("root-*"))


async def test_an_unsupported_model_is_explained_by_the_worker_that_refused_it(
    launcher_config: LauncherConfig, model_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for path in model_dir.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = (folder / "config.json").read_text().replace('"silu"', '"relu"')
    (folder / "config.json").write_text(config)
    launcher = Launcher(replace(launcher_config, model_dir=folder))
    with pytest.raises(UnavailableError, match=r"stage load: .*hidden_act"):
        await asyncio.to_thread(launcher.start)


async def test_measuring_reports_progress_in_bytes(
    launcher_config: LauncherConfig,
) -> None:
    from enclave_worker.measured_root import measure_root

    seen: list[tuple[str, int, int]] = []
    root = measure_root(launcher_config, lambda *step: seen.append(step))
    assert {part for part, _, _ in seen} >= {"interpreter", "stdlib", "site", "model"}
    done = [count for _, count, _ in seen]
    assert done == sorted(done)
    assert done[-1] / seen[-1][2] > 0.95
    assert root.parts["model"] == root.worker_config.model_digests["tree"]


async def test_the_measurement_changes_with_the_model_and_the_configuration(
    launcher_config: LauncherConfig, model_dir: Path, tmp_path: Path
) -> None:
    from enclave_worker.measured_root import measure_root

    def measured(**changes: Any) -> str:
        return measure_root(replace(launcher_config, **changes), None).measurement

    folder = tmp_path / "copy"
    folder.mkdir()
    for path in model_dir.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    base = measured()
    assert measured(model_dir=folder) == base, "a copy measures the same"
    assert measured(wid="another") == base, "a name is no behaviour"
    assert measured(service_policy=b'{"v":1,"id":"other"}') != base
    (folder / "generation_config.json").write_text('{"eos_token_id": 3}')
    assert measured(model_dir=folder) != base


@pytest.mark.tpm
async def test_a_worker_under_a_software_tpm_is_activated_and_accepted_as_simulated(
    launcher_config: LauncherConfig, tmp_path: Path
) -> None:
    config = replace(launcher_config, trust="simulated")
    peer = LinkPeer(config.gateway_socket, tmp_path / "log.db")
    peer.activate = True
    await peer.start()
    launcher = Launcher(config)
    try:
        await asyncio.to_thread(launcher.start)
        new = await peer.admitted()
        assert peer.activation is not None
        policy = parse_policy(json.dumps(tpm_policy(launcher, new.binding)).encode())
        verdict = appraise(
            new.binding.raw,
            new.evidence,
            new.posture,
            policy,
            Clock().s(),
            activation=peer.activation,
            beacon_time=await peer.dated(new.binding),
        )
        assert isinstance(verdict, AppraisedEvidence), verdict
        assert verdict.trust == "simulated"
        who = Caller(new.binding)
        body = who.chat("quoted")
        sealed = who.seal(body)
        answer = await peer.exchange(sealed.header.rid, sealed.envelope)
        reply = who.read(sealed, bytes(answer.data))
        text = reply.json["choices"][0]["message"]["content"]
        claims = who.verify(sealed, body, reply, text, peer.log).claims
        assert claims["att"]["trust"] == "simulated"
        live = await peer.challenge(os.urandom(32))
        assert live["evidence"][0]["kind"] == "tpm2"
    finally:
        await asyncio.to_thread(launcher.stop)
        await peer.close()


def tpm_policy(launcher: Launcher, binding: Binding) -> dict[str, Any]:
    now = Clock().s()
    rule = {
        "kind": "tpm2",
        "roots": [launcher.trust_anchor],
        "measurements": [launcher.measurement],
        "pcr": 11,
        "posture": {},
    }
    return {
        "v": 1,
        "id": "tests",
        "seq": 1,
        "not_before": now - 60,
        "expires": now + 3600,
        "aud": "tests",
        "min_workers": 1,
        "allow_simulated": True,
        "accept": [rule],
        "models": [{"name": "tiny"}],
        "service_policies": [binding.policy],
    }

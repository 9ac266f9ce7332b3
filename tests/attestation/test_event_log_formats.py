"""Event logs: exact lengths, known algorithms, one order, bounded, and only our errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.event_log import NO_ACTION, EventLog, sha1_event, spec_id, u16, u32

from attestation.formats.cc_event_log import parse_cc_event_log
from attestation.formats.tcg_event_log import EVENTS_MAX, LOG_MAX, parse_event_log
from attestation.replay import replay, replay_all, replay_rtmrs
from wire.errors import MalformedError

BANKS = ("sha1", "sha256", "sha384")


def _log(banks: tuple[str, ...] = BANKS) -> EventLog:
    log = EventLog(banks)
    for register in (0, 4, 4, 7):
        log.measure(register, b"event of %d" % register)
    return log


def _cc_log() -> EventLog:
    log = EventLog.cc()
    for register in (1, 2, 2, 3):
        log.measure(register, b"event of %d" % register)
    return log


def test_replay_gives_what_a_tpm_would_hold_in_every_bank() -> None:
    log = _log()
    parsed = parse_event_log(log.encode())
    assert (parsed.format, parsed.banks, len(parsed.events)) == ("agile", BANKS, 4)
    assert replay_all(parsed) == {bank: log.registers(bank) for bank in BANKS}


def test_a_legacy_log_replays_its_one_bank() -> None:
    log = EventLog.legacy()
    log.measure(0, b"firmware")
    log.measure(5, b"table")
    parsed = parse_event_log(log.encode())
    assert (parsed.format, parsed.banks) == ("legacy", ("sha1",))
    assert replay_all(parsed) == {"sha1": log.registers("sha1")}


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_the_startup_locality_is_where_register_0_starts(locality: int) -> None:
    log = EventLog(("sha256",))
    log.locality(locality)
    log.measure(0, b"firmware")
    log.measure(1, b"other registers start at zero")
    assert replay(parse_event_log(log.encode()), "sha256") == log.registers("sha256")


def test_an_event_that_extends_nothing_changes_no_register() -> None:
    log, plain = _log(), _log()
    log.add(6, NO_ACTION, {bank: b"\1" * size for bank, size in _sizes()}, b"for information")
    found = parse_event_log(log.encode())
    assert len(found.events) == 5
    assert replay_all(found) == replay_all(parse_event_log(plain.encode()))


def test_an_event_that_extends_nothing_may_name_any_register_and_leave_digests_out() -> None:
    log = _log()
    log.add(0xFFFFFFFF, NO_ACTION, {}, b"for information")
    assert len(parse_event_log(log.encode()).events) == 5


def test_an_event_that_extends_nothing_may_carry_digests_of_other_banks() -> None:
    """Firmware that fills in every bank it knows, beside the ones its TPM has active."""
    log = EventLog(("sha256",))
    log.measure(0, b"firmware")
    log.add(0, NO_ACTION, {"sha1": bytes(20), "sha256": bytes(32), "sm3_256": bytes(32)}, b"SP800")
    found = parse_event_log(log.encode())
    assert (found.banks, len(found.events)) == (("sha256",), 2)
    assert replay(found, "sha256") == log.registers("sha256")
    log.add(0, 1, {"sha1": bytes(20)}, b"this one does extend")
    with pytest.raises(MalformedError):
        parse_event_log(log.encode())


@pytest.mark.parametrize("change", ["digest", "order", "drop", "repeat", "register"])
def test_any_other_measurement_replays_to_other_registers(change: str) -> None:
    log, honest = _log(), _log().registers("sha256")
    if change == "digest":
        log.events[1][2]["sha256"] = bytes(32)
    elif change == "order":
        log.measure(4, b"last")
        honest = {**honest, 4: log.registers("sha256")[4]}
        log.events[1], log.events[4] = log.events[4], log.events[1]
    elif change == "drop":
        del log.events[1]
    elif change == "repeat":
        log.events.append(log.events[1])
    else:
        register, kind, digests, data = log.events[1]
        log.events[1] = (register + 1, kind, digests, data)
    assert replay(parse_event_log(log.encode()), "sha256") != honest


@pytest.mark.parametrize("padding", [b"", bytes(40), b"\xff" * 40])
def test_padding_of_one_value_is_no_event(padding: bytes) -> None:
    for log, parse in ((_log(), parse_event_log), (_cc_log(), parse_cc_event_log)):
        log.append(padding)
        assert len(parse(log.encode()).events) == 4


def test_padding_of_two_values_is_refused() -> None:
    log = _log()
    log.append(bytes(40) + b"\xff" * 40)
    with pytest.raises(MalformedError):
        parse_event_log(log.encode())


def test_data_that_ends_like_padding_is_still_the_events() -> None:
    log = _log()
    log.measure(4, b"ends in zeros" + bytes(20))
    log.append(bytes(64))
    assert parse_event_log(log.encode()).events[-1].data.endswith(b"zeros" + bytes(20))


@pytest.mark.parametrize("locality", [1, 2, 5, 255])
def test_a_locality_no_tpm_starts_from_is_refused(locality: int) -> None:
    log = EventLog(("sha256",))
    log.locality(locality)
    _refused(log)


def test_a_second_startup_locality_is_refused() -> None:
    log = EventLog(("sha256",))
    log.locality(3)
    log.locality(3)
    _refused(log)


def test_a_startup_locality_after_register_0_was_extended_is_refused() -> None:
    log = _log(("sha256",))
    log.locality(3)
    _refused(log)


def test_a_startup_locality_in_another_register_is_refused() -> None:
    log = EventLog(("sha256",))
    log.add(1, NO_ACTION, {"sha256": bytes(32)}, b"StartupLocality\0\3")
    _refused(log)


def test_a_startup_locality_of_another_length_is_refused() -> None:
    log = EventLog(("sha256",))
    log.add(0, NO_ACTION, {"sha256": bytes(32)}, b"StartupLocality\0\3\0")
    _refused(log)


def test_a_register_no_tpm_has_is_refused() -> None:
    log = _log()
    log.measure(24, b"event")
    _refused(log)


def test_an_event_that_lacks_a_declared_bank_is_refused() -> None:
    log = _log()
    del log.events[2][2]["sha256"]
    _refused(log)


def test_an_event_with_an_undeclared_bank_is_refused() -> None:
    log = _log(("sha1", "sha256"))
    log.events[2][2]["sha384"] = log.events[2][2].pop("sha256") + bytes(16)
    _refused(log)


def test_an_event_with_one_bank_twice_is_refused() -> None:
    log = EventLog(("sha1", "sha256"))
    digest = u16(0x0B) + bytes(32)
    log.append(u32(4) + u32(13) + u32(2) + digest + digest + u32(0) + b"x")
    _refused(log)


def test_an_unknown_algorithm_is_refused() -> None:
    raw = spec_id(("sha256",)).replace(u16(0x0B) + u16(32), u16(0x7777) + u16(32))
    log = _log(("sha256",))
    log.spec_id = raw
    _refused(log)


def test_a_known_algorithm_of_another_size_is_refused() -> None:
    log = _log(("sha256",))
    log.spec_id = spec_id(("sha256",)).replace(u16(32), u16(20))
    _refused(log)


def test_a_bank_declared_twice_is_refused() -> None:
    log = _log(("sha256",))
    log.spec_id = spec_id(("sha256", "sha256"))
    _refused(log)


def test_an_algorithm_that_cannot_be_replayed_is_read_and_not_replayed() -> None:
    log = EventLog(("sha256", "sm3_256"))
    log.add(4, 13, {"sha256": b"\1" * 32, "sm3_256": b"\2" * 32}, b"")
    parsed = parse_event_log(log.encode())
    assert parsed.banks == ("sha256", "sm3_256")
    assert set(replay_all(parsed)) == {"sha256"}
    with pytest.raises(ValueError, match="sm3_256"):
        replay(parsed, "sm3_256")


@pytest.mark.parametrize("version", [(1, 2), (2, 1), (3, 0)])
def test_another_version_of_the_format_is_refused(version: tuple[int, int]) -> None:
    log = _log(("sha256",))
    log.spec_id = spec_id(("sha256",), version=version)
    _refused(log)


def test_vendor_bytes_of_the_first_event_are_stepped_over_and_a_byte_more_is_refused() -> None:
    log = _log(("sha256",))
    log.spec_id = spec_id(("sha256",), vendor=b"vendor")
    assert len(parse_event_log(log.encode()).events) == 4
    log.spec_id += b"\0"
    _refused(log)


@pytest.mark.parametrize("count", [0, 9, 0xFFFFFFFF])
def test_a_count_of_algorithms_no_tpm_has_is_refused(count: int) -> None:
    log = _log(("sha256",))
    raw = spec_id(("sha256",))
    log.spec_id = raw[:24] + u32(count) + raw[28:]
    _refused(log)


def test_a_length_of_four_gigabytes_is_refused() -> None:
    log = _log(("sha256",))
    log.append(u32(4) + u32(13) + u32(1) + u16(0x0B) + bytes(32) + u32(0xFFFFFFFF) + b"x")
    _refused(log)


def test_a_count_of_four_billion_digests_is_refused() -> None:
    log = _log(("sha256",))
    log.append(u32(4) + u32(13) + u32(0xFFFFFFFF) + b"\1" * 100)
    _refused(log)


def test_a_log_longer_than_any_firmwares_is_refused() -> None:
    log = _log()
    log.append(bytes(LOG_MAX))
    _refused(log)


def test_the_most_events_are_read_and_replayed_and_one_more_is_refused() -> None:
    log = EventLog(("sha1", "sha256", "sha384", "sha512"))
    for number in range(EVENTS_MAX):
        log.measure(number % 24, b"event %d" % number)
    raw = log.encode()
    assert len(replay_all(parse_event_log(raw))) == 4
    log.measure(4, b"one more")
    _refused(log)
    legacy = sha1_event(4, 13, b"\1" * 20, b"x")
    assert len(parse_event_log(legacy * EVENTS_MAX).events) == EVENTS_MAX
    with pytest.raises(MalformedError):
        parse_event_log(legacy * (EVENTS_MAX + 2))


@pytest.mark.parametrize("register", [0, 5])
def test_a_cc_event_for_no_rtmr_is_refused(register: int) -> None:
    log = _cc_log()
    log.measure(register, b"MRTD cannot be extended, and there is no fifth RTMR")
    with pytest.raises(MalformedError):
        parse_cc_event_log(log.encode())


def test_a_cc_log_without_sha384_is_refused() -> None:
    with pytest.raises(MalformedError):
        parse_cc_event_log(_log(("sha256",)).encode())
    with pytest.raises(MalformedError):
        parse_cc_event_log(sha1_event(1, 13, bytes(20), b"in SHA-1 form"))


def test_rtmrs_are_one_below_the_measurement_registers_and_start_at_zero() -> None:
    log = _cc_log()
    found, written = replay_rtmrs(parse_cc_event_log(log.encode())), log.registers("sha384")
    assert found == {0: written[1], 1: written[2], 2: written[3], 3: bytes(48)}


def test_every_truncation_is_refused_or_a_shorter_log() -> None:
    log = _log()
    raw = log.encode()
    for length in range(len(raw)):
        try:
            assert len(parse_event_log(raw[:length]).events) < 4
        except MalformedError:
            continue


@given(st.binary(max_size=300))
def test_arbitrary_bytes_give_a_log_or_our_error(data: bytes) -> None:
    for raw in (data, _log().encode()[:100] + data, _cc_log().encode()[:-40] + data):
        for parse in (parse_event_log, parse_cc_event_log):
            try:
                parse(raw)
            except MalformedError:
                continue


def _sizes() -> list[tuple[str, int]]:
    return [("sha1", 20), ("sha256", 32), ("sha384", 48)]


def _refused(log: EventLog) -> None:
    with pytest.raises(MalformedError):
        parse_event_log(log.encode())

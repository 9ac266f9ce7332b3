"""Fetching meets every fault of a service, and of whoever stands between, with one error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from simulators.vendor_services import Answer, Fault, ServerTls, VendorServices

from attestation.collateral.fetcher import Request
from attestation.collateral.http_fetcher import PAUSES, RETRY_AFTER_MAX_S, HttpFetcher
from wire.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = 1000
TRIES = len(PAUSES) + 1


@pytest.fixture
def served() -> Iterator[VendorServices]:
    with VendorServices() as found:
        found.answers["/x"] = Answer(b"y" * 500, {"X-Chain": "abc"})
        yield found


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def fetcher(served: VendorServices, waits: list[float]) -> Iterator[HttpFetcher]:
    with HttpFetcher(served.services(), pause=waits.append, whole_s=0.4) as found:
        yield found


def ask(served: VendorServices, path: str = "/x", limit: int = LIMIT) -> Request:
    return Request(served.url + path, limit, "test")


def unavailable(fetcher: HttpFetcher, request: Request, match: str) -> None:
    with pytest.raises(UnavailableError, match=match):
        fetcher.fetch(request)


def test_a_good_answer_comes_with_its_headers_by_lower_case_name(
    served: VendorServices, fetcher: HttpFetcher
) -> None:
    found = fetcher.fetch(ask(served))
    assert found.body == b"y" * 500
    assert found.headers["x-chain"] == "abc"


def test_cookies_are_neither_kept_nor_sent(served: VendorServices, fetcher: HttpFetcher) -> None:
    served.answers["/x"] = Answer(b"ok", {"Set-Cookie": "id=1"})
    fetcher.fetch(ask(served))
    fetcher.fetch(ask(served))
    assert all("cookie" not in headers for headers in served.headers)
    assert {headers["user-agent"] for headers in served.headers} == {"anchorhold/1"}


def test_a_question_with_a_body_is_posted(served: VendorServices, fetcher: HttpFetcher) -> None:
    served.answers["/ocsp"] = Answer(lambda body: body[::-1])
    url = served.url + "/ocsp"
    found = fetcher.fetch(Request(url, LIMIT, "ocsp", "POST", b"abc", "application/ocsp-request"))
    assert found.body == b"cba"
    assert served.asked == [("POST", "/ocsp", b"abc")]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_service_is_asked_a_bounded_number_of_times(
    served: VendorServices, fetcher: HttpFetcher, waits: list[float], status: int
) -> None:
    served.faults["/x"] = Fault("status", status=status)
    with pytest.raises(UnavailableError, match=f"status {status}, {TRIES} times"):
        fetcher.fetch(ask(served))
    assert len(served.asked) == TRIES
    assert waits == list(PAUSES)


def test_a_service_that_recovers_is_heard(served: VendorServices, fetcher: HttpFetcher) -> None:
    served.faults["/x"] = Fault("status", times=TRIES - 1)
    assert fetcher.fetch(ask(served)).body


def test_a_service_may_ask_for_a_wait_but_not_for_a_long_one(
    served: VendorServices, fetcher: HttpFetcher, waits: list[float]
) -> None:
    served.faults["/x"] = Fault("status", times=1, status=429, headers={"Retry-After": "3"})
    fetcher.fetch(ask(served))
    served.faults["/x"] = Fault("status", times=1, status=429, headers={"Retry-After": "900"})
    fetcher.fetch(ask(served))
    served.faults["/x"] = Fault("status", times=1, status=429, headers={"Retry-After": "9" * 99})
    fetcher.fetch(ask(served))
    # Digits to Python, and to nobody else: `float` does not take the first.
    for text in ("\u00b2", "-3", "3.5"):
        served.faults["/x"] = Fault("status", times=1, status=429, headers={"Retry-After": text})
        fetcher.fetch(ask(served))
    assert waits == [3.0, RETRY_AFTER_MAX_S, *[PAUSES[0]] * 4]


@pytest.mark.parametrize("status", [201, 204, 304, 400, 401, 403, 404, 410])
def test_any_other_status_is_final(
    served: VendorServices, fetcher: HttpFetcher, status: int
) -> None:
    served.faults["/x"] = Fault("status", status=status, body=b"")
    with pytest.raises(UnavailableError, match=f"status {status}"):
        fetcher.fetch(ask(served))
    assert len(served.asked) == 1


@pytest.mark.parametrize("kind", ["slow", "drip", "headers"])
def test_a_slow_service_has_a_bounded_time(
    served: VendorServices, fetcher: HttpFetcher, kind: str
) -> None:
    served.faults["/x"] = Fault(kind)  # type: ignore[arg-type]  # one of its kinds
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="in time"):
        fetcher.fetch(Request(served.url + "/x", 1 << 20, "test"))
    assert time.monotonic() - started < TRIES * 0.4 + 3


@pytest.mark.parametrize("kind", ["truncated", "reset"])
def test_an_answer_that_breaks_off_is_none(
    served: VendorServices, fetcher: HttpFetcher, kind: str
) -> None:
    served.faults["/x"] = Fault(kind)  # type: ignore[arg-type]  # one of its kinds
    with pytest.raises(UnavailableError, match="broke off"):
        fetcher.fetch(ask(served))


def test_an_answer_that_does_not_mark_its_end_is_refused(
    served: VendorServices, fetcher: HttpFetcher
) -> None:
    served.faults["/x"] = Fault("unmarked")
    unavailable(fetcher, ask(served), "does not mark its end")


def test_an_endless_answer_is_dropped_at_its_limit(
    served: VendorServices, fetcher: HttpFetcher
) -> None:
    served.faults["/x"] = Fault("huge")
    with pytest.raises(UnavailableError, match=f"more than {LIMIT} bytes"):
        fetcher.fetch(ask(served))
    assert len(served.asked) == 1


def test_the_limit_is_exact(served: VendorServices, fetcher: HttpFetcher) -> None:
    assert len(fetcher.fetch(ask(served, limit=500)).body) == 500
    with pytest.raises(UnavailableError):
        fetcher.fetch(ask(served, limit=499))


def test_a_compressed_answer_is_refused(served: VendorServices, fetcher: HttpFetcher) -> None:
    served.answers["/x"] = Answer(b"bomb", {"Content-Encoding": "gzip"})
    with pytest.raises(UnavailableError, match="compressed"):
        fetcher.fetch(ask(served))


def test_a_service_that_is_not_there_is_unavailable(
    served: VendorServices, waits: list[float]
) -> None:
    gone = served.services(amd_kds="http://127.0.0.1:9")
    with HttpFetcher(gone, pause=waits.append) as fetcher:
        unavailable(fetcher, Request("http://127.0.0.1:9/x", LIMIT, "test"), "cannot connect")


# ------------------------------------------------------------------ where to


def test_a_redirect_within_the_service_is_followed(
    served: VendorServices, fetcher: HttpFetcher
) -> None:
    served.faults["/old"] = Fault("redirect", target="/x")
    assert fetcher.fetch(ask(served, "/old")).body == b"y" * 500


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/x", "//evil.example/x", "http://127.0.0.1:9/x", "http://[x", "ftp://a/b",
     "file:///etc/passwd", "http://127.0.0.1@evil.example/"],
)  # fmt: skip
def test_a_redirect_to_another_host_is_never_followed(
    served: VendorServices, fetcher: HttpFetcher, target: str
) -> None:
    served.faults["/x"] = Fault("redirect", target=target)
    with pytest.raises(UnavailableError, match="redirects elsewhere"):
        fetcher.fetch(ask(served))


def test_a_redirect_to_another_configured_service_is_not_followed_either(
    served: VendorServices, waits: list[float]
) -> None:
    with (
        VendorServices() as other,
        HttpFetcher(served.services(amd_kds=other.url), pause=waits.append) as fetcher,
    ):
        served.faults["/x"] = Fault("redirect", target=other.url + "/x")
        with pytest.raises(UnavailableError, match="redirects elsewhere"):
            fetcher.fetch(ask(served))
        assert not other.asked


def test_a_loop_of_redirects_ends(served: VendorServices, fetcher: HttpFetcher) -> None:
    served.faults["/x"] = Fault("redirect", target="/x")
    with pytest.raises(UnavailableError, match="redirects"):
        fetcher.fetch(ask(served))
    assert len(served.asked) <= 3


def test_a_posted_question_is_never_redirected(
    served: VendorServices, fetcher: HttpFetcher
) -> None:
    served.faults["/ocsp"] = Fault("redirect", target="/x")
    with pytest.raises(UnavailableError, match="redirects elsewhere"):
        fetcher.fetch(Request(served.url + "/ocsp", LIMIT, "ocsp", "POST", b"a", "x/y"))


def test_an_address_that_no_operator_configured_is_never_connected_to(
    fetcher: HttpFetcher,
) -> None:
    with VendorServices() as other:
        with pytest.raises(ConfigError, match="not one that is configured"):
            fetcher.fetch(Request(other.url + "/x", LIMIT, "test"))
        assert not other.asked


# ------------------------------------------------------------------ TLS


def test_a_slow_service_has_a_bounded_time_under_tls_too(tmp_path: Path) -> None:
    tls = ServerTls(tmp_path)
    with VendorServices(tls) as served:
        services = served.services(ca_file=str(tls.ca_file))
        served.answers["/x"] = Answer(b"ok")
        with HttpFetcher(services, pause=lambda _: None, whole_s=0.4) as fetcher:
            for kind in ("headers", "drip"):
                served.faults["/x"] = Fault(kind, times=TRIES)  # type: ignore[arg-type]  # kinds
                started = time.monotonic()
                unavailable(fetcher, Request(served.url + "/x", 1 << 20, "test"), "in time")
                assert time.monotonic() - started < TRIES * 0.4 + 3
            assert fetcher.fetch(ask(served)).body == b"ok"


def test_a_private_ca_file_is_trusted_for_the_pccs(tmp_path: Path) -> None:
    tls = ServerTls(tmp_path)
    with VendorServices(tls) as served:
        served.answers["/x"] = Answer(b"ok")
        with HttpFetcher(served.services(ca_file=str(tls.ca_file))) as fetcher:
            assert fetcher.fetch(ask(served)).body == b"ok"


def test_a_certificate_of_an_unknown_ca_is_refused_at_once(
    tmp_path: Path, waits: list[float]
) -> None:
    with VendorServices(ServerTls(tmp_path)) as served:
        with HttpFetcher(served.services(), pause=waits.append) as fetcher:
            unavailable(fetcher, ask(served), "certificate is not trusted")
        assert not served.asked
        assert not waits


def test_a_certificate_of_another_private_ca_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    mine, other = ServerTls(tmp_path), ServerTls(tmp_path / "other")
    with VendorServices(mine) as served:
        with HttpFetcher(served.services(ca_file=str(other.ca_file))) as fetcher:
            unavailable(fetcher, ask(served), "certificate is not trusted")
        assert not served.asked


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    tls = ServerTls(tmp_path, host="127.0.0.2")
    with VendorServices(tls) as served:
        with HttpFetcher(served.services(ca_file=str(tls.ca_file))) as fetcher:
            unavailable(fetcher, ask(served), "certificate is not trusted")
        assert not served.asked


def test_the_private_ca_vouches_for_the_pccs_and_nobody_else(tmp_path: Path) -> None:
    tls = ServerTls(tmp_path)
    with VendorServices() as pccs, VendorServices(tls) as kds:
        services = pccs.services(amd_kds=kds.url, ca_file=str(tls.ca_file))
        with HttpFetcher(services) as fetcher:
            unavailable(fetcher, ask(kds), "certificate is not trusted")
        assert not kds.asked


@pytest.mark.parametrize("content", [None, b"", b"no PEM"])
def test_a_ca_file_that_is_none_is_a_clean_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with VendorServices() as served, pytest.raises(ConfigError, match="ca_file"):
        HttpFetcher(served.services(ca_file=str(path)))


def test_an_error_names_the_host_and_never_the_content(
    served: VendorServices, fetcher: HttpFetcher
) -> None:
    served.faults["/x"] = Fault("status", status=400, body=b"SECRET")
    with pytest.raises(UnavailableError) as caught:
        fetcher.fetch(ask(served, "/x"))
    assert "127.0.0.1" in caught.value.message
    assert "SECRET" not in caught.value.diagnostics()


@pytest.mark.parametrize(
    "address", ["socks5://user:secret@127.0.0.1:1", "http://user:secret@[::1", "garbage://secret"]
)
@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTPS_PROXY"])
def test_a_proxy_that_cannot_be_used_is_a_clean_error_without_its_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, address: str
) -> None:
    monkeypatch.setenv(variable, address)
    with VendorServices() as served, pytest.raises(ConfigError, match=r"(?i)proxy") as caught:
        HttpFetcher(served.services())
    assert "secret" not in caught.value.diagnostics()


def test_what_is_asked_after_the_end_is_no_answer(served: VendorServices) -> None:
    """Searches go on for a moment when a gateway stops."""
    with HttpFetcher(served.services()) as fetcher:
        pass
    unavailable(fetcher, ask(served), "this ends")
    assert not served.asked

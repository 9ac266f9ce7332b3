"""A vendor, a cache and a clock that the test sets, for tests of what vendors are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attestation.collateral.entry import Entry, Piece
from attestation.collateral.fetcher import DeclinedError
from attestation.collateral.store import Store
from attestation.collateral_key import amd, vcek
from gateway.asker import Asker
from gateway.breaker import SILENT_MAX
from gateway.questions import Held, Questions, Watcher
from wire.errors import AttestationError, MalformedError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from attestation.collateral.fetcher import Fetcher
    from attestation.collateral.http_fetcher import HttpFetcher
    from attestation.collateral_key import CollateralKey
    from gateway.questions import AskedFor

NOW = 1_700_000_000
LIST = amd("crl", "vcek", "Genoa")
CHAIN = amd("chain", "vcek", "Genoa")
SILENCE = UnavailableError("nothing came")
NO_SUCH = DeclinedError("status 404")


def chip(number: int) -> CollateralKey:
    """A name that evidence can make up."""
    return vcek("Genoa", number.to_bytes(64, "big"), (10, 0, 23, 84))


class Vendor:
    """Answers with an entry, or with what `says` holds for the key or for all."""

    def __init__(self) -> None:
        self.says: dict[CollateralKey | None, Exception] = {}
        self.asked: list[CollateralKey] = []

    def fetch(
        self, key: CollateralKey, fetcher: Fetcher, now: int, chain: Piece | None = None
    ) -> Entry:
        del fetcher, chain
        self.asked.append(key)
        error = self.says.get(key) or self.says.get(None)
        if error is not None:
            raise error
        return Entry(key, Piece(b"x"), now, now + 1000)


class World:
    """A vendor, a cache and a clock that the test sets."""

    def __init__(self, folder: Path, fetcher: HttpFetcher, per_minute: int = 20) -> None:
        self.at = 1000.0
        self.vendor, self.store, self.fetcher = Vendor(), Store(folder / "cache"), fetcher
        self.held: list[Held] = []
        self.turned: list[tuple[str, bool]] = []
        self.failed: list[BaseException] = []
        watcher = Watcher(
            held=lambda _, why: self.held.append(why),
            silent=lambda source, silent: self.turned.append((source, silent)),
            failed=self.failed.append,
        )
        self.questions = Questions(lambda: self.at, 15, per_minute, watcher)
        self.sweep = self.asker(None)
        self.link = self.asker(Asker(1, 1))

    def asker(self, asker: Asker | None) -> AskedFor:
        return self.questions.of(self.vendor, self.store, asker)

    def ask(self, key: CollateralKey, asker: AskedFor | None = None) -> Exception | None:
        """What asking came to; None for an entry."""
        try:
            (asker or self.sweep).fetch(key, self.fetcher, NOW)
        except (AttestationError, MalformedError, UnavailableError) as error:
            return error
        return None

    def silence(self, times: int = SILENT_MAX, first: int = 0) -> None:
        """The vendor leaves questions unanswered, each about another piece."""
        self.vendor.says[None] = SILENCE
        for number in range(first, first + times):
            assert self.ask(chip(number)) is SILENCE

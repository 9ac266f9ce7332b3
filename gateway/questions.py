"""Whether vendors are asked: what failed a moment ago is not asked again, nor what a stranger
made up beyond its share, nor a vendor that does not answer.

Steps, for one piece:
 1. what could not be had is remembered for a moment, with why: a fleet judged every minute, or a
    link that tries again, must not repeat a question whose answer is known;
 2. a piece that evidence alone names and that was never had here is a stranger's question while
    its worker is not admitted: it is paid for out of the link's and the process's share;
 3. a vendor that gave no answer several times in turn is left alone for a while;
 4. the vendor is asked, and what comes of it is remembered.

A question that is not put is as good as unanswered: what rests on it is missing, and refused.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from attestation.collateral.entry import Entry, Piece
from attestation.collateral.fetcher import DeclinedError, Fetcher
from attestation.collateral.resolve import Asks
from attestation.collateral.store import Store
from attestation.collateral_key import CollateralKey
from wire.errors import AnchorholdError, AttestationError, MalformedError, UnavailableError

from .allowance import Allowance
from .asker import Asker
from .breaker import Breaker

#: Failures remembered. More in one moment are asked again, within the allowance.
FAILURES_MAX = 4096
#: Kinds whose names hold what evidence says: a chip, a platform, a manifest, a certificate. All
#: others are a closed list of names, which nobody can make longer.
NAMED_BY_EVIDENCE = frozenset({"vcek", "tcb", "rim", "ocsp"})


class Held(Enum):
    """Why a question was not put."""

    REMEMBERED = "failed_lately"
    ALLOWANCE = "allowance_spent"
    SILENT = "vendor_silent"


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told; from several threads.

    Attributes:
        asked: a vendor, when it is asked.
        held: a vendor and why it was not asked.
        silent: a vendor, and whether it is left alone from now on, or asked again.
        failed: an error of ours, where a vendor's word or the cache was read.
    """

    asked: Callable[[str], None] = lambda _source: None
    held: Callable[[str, Held], None] = lambda _source, _why: None
    silent: Callable[[str, bool], None] = lambda _source, _is: None
    failed: Callable[[BaseException], None] = lambda _error: None


@dataclass(slots=True)
class Questions:
    """What is remembered of vendors, for all that ask.

    Args:
        monotonic: seconds.
        retry_s: how long a failure is remembered.
        per_minute: pieces of each vendor that strangers may ask for.
    """

    monotonic: Callable[[], float]
    retry_s: float
    per_minute: int
    watcher: Watcher = field(default_factory=Watcher)
    _failed: "OrderedDict[CollateralKey, tuple[float, AnchorholdError]]" = field(
        default_factory=OrderedDict
    )
    _breakers: dict[str, Breaker] = field(default_factory=dict)
    _allowance: Allowance = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Begin with a full allowance."""
        self._allowance = Allowance(self.per_minute)

    def of(self, vendors: Asks, store: Store, asker: Asker | None) -> "AskedFor":
        """The vendors as one asker may ask them; None asks for workers that are admitted."""
        return AskedFor(self, vendors, store, asker)

    def begin(self, key: CollateralKey, asker: Asker | None, *, stranger: bool) -> None:
        """Steps 1 to 3; when it returns the question may be put, and `end` must follow.

        Raises:
            UnavailableError: it may not, or what the earlier question came to, likewise
            AttestationError and MalformedError.
        """
        with self._lock:
            now = self.monotonic()
            # 1
            until, error = self._failed.get(key, (now, None))
            if error is not None and now < until:
                self.watcher.held(key.source, Held.REMEMBERED)
                raise _again(error)
            # 2
            paid = not stranger or asker is None or self._allowance.take(asker, key.source, now)
            if not paid:
                self.watcher.held(key.source, Held.ALLOWANCE)
                raise _held(key, "too much was asked for on behalf of unknown workers")
            # 3
            breaker = self._breakers.setdefault(key.source, Breaker())
            if not breaker.begin(now, stranger=stranger):
                self.watcher.held(key.source, Held.SILENT)
                raise _held(key, "the service gave no answers lately")
            self.watcher.asked(key.source)

    def end(
        self,
        key: CollateralKey,
        error: AnchorholdError | None,
        *,
        answered: bool | None,
        stranger: bool,
    ) -> None:
        """Step 4, afterwards."""
        with self._lock:
            now = self.monotonic()
            self._failed.pop(key, None)
            if error is not None and self.retry_s > 0:
                self._failed[key] = (now + self.retry_s, _again(error))
            # In the order in which they end: the oldest are first.
            while self._failed:
                until, _ = next(iter(self._failed.values()))
                if now < until and len(self._failed) <= FAILURES_MAX:
                    break
                self._failed.popitem(last=False)
            breaker = self._breakers.setdefault(key.source, Breaker())
            if breaker.end(now, answered=answered, stranger=stranger):
                self.watcher.silent(key.source, not answered)


@dataclass(frozen=True, slots=True)
class AskedFor:
    """`Questions` for one asker: what `attestation.collateral.resolve` asks."""

    questions: Questions
    vendors: Asks
    store: Store
    asker: Asker | None

    def fetch(
        self, key: CollateralKey, fetcher: Fetcher, now: int, chain: Piece | None = None
    ) -> Entry:
        """Ask for one stored key, unless the steps of the module's docstring say no.

        Raises:
            UnavailableError, AttestationError, MalformedError, ConfigError: as `Vendors.fetch`.
        """
        strange = self.asker is not None and key.kind in NAMED_BY_EVIDENCE
        stranger = strange and not self.store.holds(key)
        self.questions.begin(key, self.asker, stranger=stranger)
        failure: AnchorholdError | None = None
        answered: bool | None = None
        try:
            found = self.vendors.fetch(key, fetcher, now, chain)
            answered = True
        except (AttestationError, MalformedError, DeclinedError) as error:
            failure, answered = error, True
            raise
        except UnavailableError as error:
            failure, answered = error, False
            raise
        except AnchorholdError:
            raise
        except Exception as error:
            # What a vendor says may find a mistake of ours. It is a refusal like any other.
            self.questions.watcher.failed(error)
            failure, answered = MalformedError(f"collateral {key.kind}: cannot be read"), True
            raise failure from error
        finally:
            # A question that could not even be put (no address) says nothing of the vendor.
            self.questions.end(key, failure, answered=answered, stranger=stranger)
        return found


def _held(key: CollateralKey, why: str) -> UnavailableError:
    return UnavailableError(
        f"collateral {key.kind}: not asked for now: {why}",
        hint="try again in a minute, or fetch it into the cache, or import a bundle",
    )


def _again(error: AnchorholdError) -> AnchorholdError:
    """The same words in a new exception: one that was raised keeps alive all that led to it."""
    if isinstance(error, AttestationError):
        return AttestationError(error.message, reasons=error.reasons, hint=error.hint)
    if isinstance(error, MalformedError):
        return MalformedError(error.message, code=error.code, hint=error.hint)
    return UnavailableError(error.message, hint=error.hint)

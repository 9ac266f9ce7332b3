"""The newest admission policies that were ever in force here: what an older file must not undo.

A policy is named by `id` and `seq`, and does not change under a name: its digest stands in logged
verdicts. An older file put back, or the same number with other demands, is refused, over restarts
too. The memory is one file in the state folder; who may write that may also replace the gateway.

A policy may revoke, so a disk must not keep it out. At a start the memory must be read and written.
From then on this process knows what it has in it: one that is newer than all that is in force
though the file cannot be written, or even read, and is written once that can be done. A file that
cannot be read is never written over. One that is gone, or that an older copy replaced, takes
nothing from what the process knows: only a start has no more to go by.
"""

import errno
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from attestation.collateral.unkept import Cause, cause_of
from attestation.collateral.whole_file import read_whole, write_whole
from attestation.members import Members
from attestation.policy import Policy
from wire.canonical import parse_strict
from wire.errors import ConfigError, MalformedError, PolicyError

#: Policies that were ever in force here, by id; a deployment has one, or one a stage.
IDS_MAX = 64
MEMORY_MAX = 65_536


@dataclass(slots=True)
class PolicyMemory:
    """A file that remembers each policy's highest number, and its digest. Used by several threads.

    Args:
        path: the file.
        told: why a policy in force could not be written, with the first; None once all are.

    Attributes:
        waits: whether something is to be written.
    """

    path: Path
    told: Callable[[Cause | None], None] = lambda _cause: None
    waits: bool = False
    _known: dict[str, tuple[int, str]] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, policy: Policy) -> None:
        """Take a policy into force, and remember it; blocking.

        Raises:
            PolicyError: it is older than the one remembered, or differs from it under one number.
            ConfigError: the memory cannot be read or written, and never could.
        """
        with self._lock:
            started = self._known is not None
            refusal: ConfigError | None = None
            try:
                known = self._recall()
            except ConfigError as error:
                if self._known is None:
                    raise
                known, refusal = dict(self._known), error
            if not _is_new(policy, known):
                return
            known[policy.id] = (policy.seq, policy.digest)
            if refusal is None:
                try:
                    self._write(known)
                except ConfigError as error:
                    if not started:
                        raise
                    refusal = error
            self._known = known
            self._say(refusal)

    def settle(self) -> None:
        """Write what could not be written, if that can be done now; blocking."""
        with self._lock:
            if not self.waits:
                return
            try:
                self._write(self._recall())
            except ConfigError:
                return
            self._say(None)

    def _say(self, refusal: ConfigError | None) -> None:
        if self.waits != (refusal is not None):
            self.waits = refusal is not None
            self.told(None if refusal is None else cause_of(refusal))

    def _recall(self) -> dict[str, tuple[int, str]]:
        """What the file says, or this process knows, if that is newer; raises ConfigError."""
        known = self._read()
        for name, seen in (self._known or {}).items():
            known[name] = max(seen, known.get(name, seen), key=lambda found: found[0])
        self._known = dict(known)
        return known

    def _write(self, known: dict[str, tuple[int, str]]) -> None:
        record = {name: {"seq": seq, "digest": digest} for name, (seq, digest) in known.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self.path, json.dumps(record).encode())
        except OSError as error:
            raise ConfigError(f"policy memory {self.path}: {error.strerror}") from error

    def _read(self) -> dict[str, tuple[int, str]]:
        try:
            raw = read_whole(self.path, MEMORY_MAX)
        except FileNotFoundError:
            return {}
        except OSError as error:
            # Too long is damage of the file, and no limit of the system's.
            cause = None if error.errno == errno.EFBIG else error
            raise ConfigError(f"policy memory {self.path}: {error.strerror}") from cause
        try:
            found = parse_strict(raw, max_bytes=MEMORY_MAX)
            if not isinstance(found, dict) or not found:
                raise MalformedError("expected an object of policies")
            entries = {
                name: Members(entry, "memory", required=("seq", "digest"))
                for name, entry in found.items()
            }
            return {name: (e.integer("seq"), e.digest("digest")) for name, e in entries.items()}
        except MalformedError as error:
            # Forgetting silently is what a rollback needs.
            raise ConfigError(
                f"policy memory {self.path}: {error.message}",
                hint="restore the file, or delete it to accept the policy as it is",
            ) from error


def _is_new(policy: Policy, known: dict[str, tuple[int, str]]) -> bool:
    """Whether a policy is newer than what is known; False for the newest one itself.

    Raises:
        PolicyError: it is neither.
    """
    seq, digest = known.get(policy.id, (0, policy.digest))
    if policy.seq < seq:
        raise PolicyError(
            f"policy: found seq {policy.seq}, expected at least {seq}, which was in force",
            hint="give the policy to put in force a higher seq",
        )
    if policy.id not in known:
        if len(known) >= IDS_MAX:
            raise PolicyError(
                f"policy: found more than {IDS_MAX} ids in turn, expected few policies",
                hint="keep one id, and raise its seq",
            )
    elif policy.seq == seq:
        if policy.digest != digest:
            raise PolicyError(
                f"policy: found other demands under seq {seq}, expected those that were in "
                "force under it",
                hint="give a changed policy a higher seq",
            )
        return False
    return True

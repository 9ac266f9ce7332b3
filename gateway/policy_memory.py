"""The newest admission policies that were ever in force here: what an older file must not undo.

A policy is named by `id` and `seq`, and does not change under a name: its digest stands in logged
verdicts. An older file put back, or the same number with other demands, is refused, over restarts
too. The memory is one file in the state folder; who may write that may also replace the gateway.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from attestation.collateral.whole_file import read_whole, write_whole
from attestation.members import Members
from attestation.policy import Policy
from wire.canonical import parse_strict
from wire.errors import ConfigError, MalformedError, PolicyError

#: Policies that were ever in force here, by id; a deployment has one, or one a stage.
IDS_MAX = 64
MEMORY_MAX = 65_536


@dataclass(frozen=True, slots=True)
class PolicyMemory:
    """A file that remembers each policy's highest number, and its digest."""

    path: Path

    def admit(self, policy: Policy) -> None:
        """Take a policy into force, and remember it; blocking.

        Raises:
            PolicyError: it is older than the one remembered, or differs from it under one number.
            ConfigError: the memory cannot be read or written.
        """
        known = self._read()
        seq, digest = known.get(policy.id, (0, policy.digest))
        if policy.seq < seq:
            raise PolicyError(
                f"policy: found seq {policy.seq}, expected at least {seq}, which was in force",
                hint="give the policy to put in force a higher seq",
            )
        if policy.id in known and policy.seq == seq:
            if policy.digest != digest:
                raise PolicyError(
                    f"policy: found other demands under seq {seq}, expected those that were in "
                    "force under it",
                    hint="give a changed policy a higher seq",
                )
            return
        known[policy.id] = (policy.seq, policy.digest)
        if len(known) > IDS_MAX:
            raise PolicyError(
                f"policy: found more than {IDS_MAX} ids in turn, expected few policies",
                hint="keep one id, and raise its seq",
            )
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
            raise ConfigError(f"policy memory {self.path}: {error.strerror}") from error
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

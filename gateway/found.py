"""What was found for a worker's evidence, and whether looking again would find anything else.

Looking again opens the evidence, and reads certificates and the cache: milliseconds for a node of
GPUs. A fleet is judged every minute and nearly always nothing has changed. What was found counts
on while each file that was looked at, there or not, is the one it was then (`Store.stamp`), until
the first of its entries is to be renewed or ends: a revocation arrives when the cache has it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from attestation.collateral.decoded import Stamp
from attestation.collateral_key import CollateralKey
from attestation.examined import NO_BYTES, CollateralSet

from .digest import digest_of


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one piece of evidence.

    Attributes:
        roles: role to bytes.
        stamps: of all that was looked at, taken before it was read.
        age_s: the greatest age of an entry that was allowed.
        since: Unix second at which it was looked for.
        until: Unix second from which on it is to be looked for again.
        digest: of the roles.
    """

    roles: Mapping[str, bytes]
    stamps: Mapping[CollateralKey, Stamp] = field(default_factory=dict)
    age_s: int = 0
    since: int = 0
    until: int = 0
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Hash the roles once: they are judged every minute, and a node's may have two MiB."""
        parts = [part for role in sorted(self.roles) for part in (role.encode(), self.roles[role])]
        object.__setattr__(self, "digest", digest_of(parts))

    @property
    def size(self) -> int:
        """Bytes of the roles."""
        return sum(map(len, self.roles.values()))

    def in_time(self, now: int, age_s: int) -> bool:
        """Whether time and policy alone are no reason to look again."""
        return self.since <= now < self.until and self.age_s == age_s

    def unchanged(self, stamp_of: Callable[[CollateralKey], Stamp]) -> bool:
        """Whether the cache has what it had.

        Args:
            stamp_of: `Store.stamp`, which asks the file system, or what it said a moment ago.
        """
        return all(stamp_of(key) == stamp for key, stamp in self.stamps.items())


@dataclass(frozen=True, slots=True)
class Collected:
    """What was found for everything that one worker shows.

    Attributes:
        pieces: by kind of evidence.
        roles: kind to role to bytes, as appraisal takes it.
        digest: of all of it.
    """

    pieces: Mapping[str, Found] = field(default_factory=dict)
    roles: CollateralSet = field(init=False)
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Put the roles together."""
        roles = {kind: found.roles for kind, found in self.pieces.items()}
        parts = [
            part for kind in sorted(roles) for part in (kind.encode(), self.pieces[kind].digest)
        ]
        object.__setattr__(self, "roles", MappingProxyType(roles))
        object.__setattr__(self, "digest", digest_of(parts))

    def over(self, before: "Collected") -> "Collected":
        """This, and of what was found before the roles that are missing in it."""
        return Collected.of(
            {kind: {**before.roles.get(kind, NO_BYTES), **self.roles[kind]} for kind in self.roles}
        )

    @classmethod
    def of(cls, roles: CollateralSet) -> "Collected":
        """What came from elsewhere than the cache; it is to be looked for at the first chance."""
        return cls({kind: Found(found) for kind, found in roles.items()})


#: Nothing could be had.
NOTHING = Found(NO_BYTES)
#: For workers that show nothing that a vendor speaks of.
NONE_COLLECTED = Collected()

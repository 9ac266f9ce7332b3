"""Key epochs: HPKE keys that live only in this process's memory, one set per boot and epoch.

An epoch is made (`prepare`), attested by the caller, and installed (`install`). It is offered
until `exp` and can open what was sealed to it until `drop_at`, so that requests waiting in a queue
survive a rotation; then its seeds are wiped, and with them the ability to read recorded traffic.
The replay set lives exactly as long as the keys: replay safety does not depend on a clock.

Seeds lie in `SecretBytes`; a key object of the crypto library is built for one use and dropped.
What Python cannot do is wipe the copies the library's own calls leave on the heap (LIMITATIONS).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.binding import Beacon, Kem, Model, encode_binding, opens_until
from attestation.evidence import Evidence
from attestation.posture import record_digest
from wire.errors import KidUnknownError
from wire.ids import bh_of, sha256_tag
from wire.replay import ReplaySet
from wire.suites import HYBRID, SUITES, X25519, PrivateKey

from .sandbox.memory import SecretBytes
from .worker_config import WorkerConfig

SEED_LEN = 32
# For an hour's epoch the next one is published 10 minutes before the end. Short epochs scale it.
LEAD_MAX_S = 600
LEAD_PART = 6


class HeldKey:
    """One HPKE private key: its suite's name and the seed it is rebuilt from."""

    __slots__ = ("pk", "seed", "suite")

    def __init__(self, suite: str, seed: SecretBytes) -> None:
        """Take ownership of a random seed."""
        self.suite = suite
        self.seed = seed
        self.pk = SUITES[suite].public_bytes(self.private_key())

    def private_key(self) -> PrivateKey:
        """Build the key for one use; drop it at once."""
        return SUITES[self.suite].private_key(bytes(self.seed.view()))


@dataclass(slots=True, eq=False)
class Epoch:
    """One set of HPKE keys and the binding that names them.

    Attributes:
        number: from 1, in order of making.
        keys: by kid, one for each suite.
        binding: the binding's bytes, which the evidence covers.
        bh: SHA-256 of the binding.
        nbf, exp: offered in this window, seconds since the epoch.
        beacon: the log prefix the binding names, or None.
        drop_at: when the seeds are wiped.
        replay: every request opened under these keys.
    """

    number: int
    keys: dict[bytes, HeldKey]
    binding: bytes
    bh: bytes
    nbf: int
    exp: int
    beacon: Beacon | None
    drop_at: int
    replay: ReplaySet = field(default_factory=ReplaySet)
    _evidence: tuple[Evidence, ...] = ()

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Evidence over the binding; an epoch without it was never offered to anybody."""
        if not self._evidence:
            raise RuntimeError("epoch: asked for evidence before it was attested")
        return self._evidence

    @property
    def witness(self) -> Evidence:
        """The evidence that proves the measurement, which receipts name; GPUs' stands beside it."""
        return self.evidence[0]

    @property
    def evidence_digest(self) -> str:
        """sha256 tag of the witness's body, as receipts name it."""
        return sha256_tag(self.witness.body)

    def attested(self, evidence: Sequence[Evidence]) -> None:
        """Attach the evidence over `binding`, at least one item."""
        self._evidence = tuple(evidence)

    def wipe(self) -> None:
        """Overwrite every seed and forget the keys."""
        for key in self.keys.values():
            key.seed.close()
        self.keys.clear()


class Keyring:
    """The keys of one boot. Pure: the caller passes time in and obtains the evidence.

    Attributes:
        boot: 16 random bytes naming this process's life.
        sig_pk: public half of the receipt, notice and link key, 32 bytes.
    """

    def __init__(self, config: WorkerConfig, rng: Callable[[int], bytes]) -> None:
        """Draw the boot id, the signing seed and the first epoch's seeds.

        The first seeds exist before the first binding so that the posture record, which that
        binding names, can say how they are stored.
        """
        self._config = config
        self._epochs: list[Epoch] = []
        self._made = 0
        self._posture: str | None = None
        # Public names of keys that are gone: a refusal must name the candidate that was asked.
        self._retired: set[bytes] = set()
        self._sig_seed = SecretBytes.random(SEED_LEN)
        self._next = self._draw()
        self.boot = rng(16)
        self.sig_pk = self.sig.public_key().public_bytes_raw()

    @property
    def sig(self) -> Ed25519PrivateKey:
        """The signing key, built from its seed for one use."""
        return Ed25519PrivateKey.from_private_bytes(self._sig_seed.view())

    def secrets(self) -> list[SecretBytes]:
        """Return every secret held, for the posture's memory probe."""
        held = [key for epoch in self._epochs for key in epoch.keys.values()]
        return [self._sig_seed, *(key.seed for key in (*self._next, *held))]

    def set_posture(self, record: bytes) -> None:
        """Name this posture record in every later binding."""
        self._posture = record_digest(record)

    def prepare(self, now: int, beacon: Beacon | None = None) -> Epoch:
        """Make the next epoch. It can open nothing until it is installed.

        Args:
            now: seconds since the epoch.
            beacon: the newest log prefix known, for the binding to name.
        """
        self._made += 1
        held, self._next = self._next or self._draw(), []
        exp = now + self._config.epoch_s
        kems = [Kem(key.suite, key.pk) for key in held]
        binding = self._binding(self._made, kems, now, exp, beacon, None)
        return Epoch(
            number=self._made,
            keys={kem.kid: key for kem, key in zip(kems, held, strict=True)},
            binding=binding,
            bh=bh_of(binding),
            nbf=now,
            exp=exp,
            beacon=beacon,
            drop_at=opens_until(now, exp),
        )

    def install(self, epoch: Epoch, evidence: Sequence[Evidence]) -> None:
        """Begin to open requests under an attested epoch."""
        epoch.attested(evidence)
        self._epochs.append(epoch)

    def offered(self, now: int) -> list[Epoch]:
        """Return the epochs a gateway may list, oldest first."""
        return [epoch for epoch in self._epochs if now < epoch.exp]

    def rotate_at(self) -> int:
        """Return when to make the next epoch: before the newest ends, or at once (0) when there is
        none or its replay set is full (protocol §3.5)."""
        if not self._epochs or self._epochs[-1].replay.full:
            return 0
        lead = min(LEAD_MAX_S, max(1, self._config.epoch_s // LEAD_PART))
        return self._epochs[-1].exp - lead

    def find(self, kids: Iterable[bytes], now: int) -> tuple[Epoch, bytes, HeldKey]:
        """Return the first of `kids` this worker still holds: (epoch, kid, key).

        Raises:
            KidUnknownError: none of them.
        """
        for kid in kids:
            for epoch in self._epochs:
                if kid in epoch.keys and now < epoch.drop_at:
                    return epoch, kid, epoch.keys[kid]
        raise KidUnknownError("found no wrap for a key of this worker")

    def named(self, kids: Iterable[bytes]) -> bytes | None:
        """Return the first of `kids` that is or was a key of this boot."""
        own = self._retired.union(*(epoch.keys for epoch in self._epochs))
        return next((kid for kid in kids if kid in own), None)

    def drop_ended(self, now: int) -> int:
        """Wipe the seeds of epochs past their grace; returns how many epochs went."""
        return self._drop([epoch for epoch in self._epochs if now >= epoch.drop_at])

    def drop_all(self) -> int:
        """Wipe every epoch at once; returns how many there were."""
        return self._drop(list(self._epochs))

    def challenged(self, epoch: Epoch, nonce: bytes) -> bytes:
        """Return the epoch's binding with a verifier's 32-byte nonce in it, for live evidence."""
        kems = [Kem(key.suite, key.pk) for key in epoch.keys.values()]
        return self._binding(epoch.number, kems, epoch.nbf, epoch.exp, epoch.beacon, nonce)

    def close(self) -> None:
        """Wipe everything."""
        for epoch in self._epochs:
            epoch.wipe()
        self._epochs.clear()
        for key in self._next:
            key.seed.close()
        self._sig_seed.close()

    def _drop(self, epochs: list[Epoch]) -> int:
        for epoch in epochs:
            self._retired.update(epoch.keys)
            epoch.wipe()
            self._epochs.remove(epoch)
        return len(epochs)

    def _draw(self) -> list[HeldKey]:
        names = (HYBRID,) if self._config.require_pq else (HYBRID, X25519)
        return [HeldKey(name, SecretBytes.random(SEED_LEN)) for name in names]

    def _binding(
        self,
        number: int,
        kems: list[Kem],
        nbf: int,
        exp: int,
        beacon: Beacon | None,
        nonce: bytes | None,
    ) -> bytes:
        config = self._config
        return encode_binding(
            aud=config.aud,
            wid=config.wid,
            boot=self.boot,
            epoch=number,
            kems=kems,
            sig_pk=self.sig_pk,
            image=config.image,
            policy=config.policy,
            models=[Model(config.model_name, config.model_digests["tree"])],
            nbf=nbf,
            exp=exp,
            beacon=beacon,
            nonce=nonce,
            posture=self._posture,
            gpus=config.gpus,
        )

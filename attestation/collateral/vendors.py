"""All sources under one roof: which module asks, unpacks and checks for which key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.anchors import AMD, INTEL, Anchors
from attestation.collateral_key import AMD_KDS, INTEL_PCS, JWKS
from wire.errors import MalformedError

from . import amd, intel, jwks, nvidia
from .entry import check_size, make_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.collateral_key import CollateralKey

    from .entry import Checked, Entry, Piece
    from .fetcher import Fetcher, Request, Response
    from .services import Services

VENDOR_ROOTS: Final = Anchors(INTEL.pins | AMD.pins)


class Vendors:
    """Turns keys into questions, and answers into entries.

    Args:
        services: where the services are: the operator's configuration.
        anchors: roots under which signed collateral is kept. Verifiers check again, with the roots
            their policy names; this only keeps what nobody signed out of the cache.
        rng: random bytes, for nonces.
    """

    def __init__(
        self, services: Services, rng: Callable[[int], bytes], anchors: Anchors = VENDOR_ROOTS
    ) -> None:
        self._services = services
        self._anchors = anchors
        self._rng = rng

    def fetch(
        self, key: CollateralKey, fetcher: Fetcher, now: int, chain: Piece | None = None
    ) -> Entry:
        """Ask for one stored key and check the answer.

        Args:
            key: a stored key.
            fetcher: performs the question.
            now: Unix seconds.
            chain: the piece of one of the key's `view.witnesses`, if it has any.

        Raises:
            UnavailableError: no answer.
            AttestationError: an answer that is refused.
            MalformedError: an answer that does not follow its format.
        """
        nonce = self._rng(nvidia.NONCE_LEN)
        response = fetcher.fetch(self.request(key, nonce))
        piece = self._unwrap(key, response)
        return self.admit(key, piece, fetched_at=now, now=now, chain=chain, nonce=nonce)

    def request(self, key: CollateralKey, nonce: bytes) -> Request:
        """The question for one stored key."""
        if key.source == INTEL_PCS:
            return intel.request(key, self._services)
        if key.source == AMD_KDS:
            return amd.request(key, self._services)
        if key.source == JWKS:
            return jwks.request(key, self._services)
        return nvidia.request(key, self._services, nonce)

    def admit(
        self,
        key: CollateralKey,
        piece: Piece,
        *,
        fetched_at: int,
        now: int,
        chain: Piece | None = None,
        nonce: bytes | None = None,
        offline: bool = False,
    ) -> Entry:
        """The entry of a piece that is what its key says, genuine and in force.

        Args:
            key: a stored key.
            piece: unverified.
            fetched_at: when it came from the service.
            now: Unix seconds.
            chain: the piece of one of the key's `view.witnesses`, if it has any.
            nonce: of the question; None for a piece that came in a bundle.
            offline: it came in a bundle: other ages.

        Raises:
            AttestationError: with a reason.
            MalformedError: it does not follow its format.
        """
        check_size(key, piece)
        found = self._check(key, piece, now, chain, nonce)
        return make_entry(key, piece, found, fetched_at, offline=offline)

    def _unwrap(self, key: CollateralKey, response: Response) -> Piece:
        if key.source == INTEL_PCS:
            return intel.unwrap(key, response)
        if key.source == AMD_KDS:
            return amd.unwrap(key, response)
        if key.source == JWKS:
            return jwks.unwrap(key, response)
        return nvidia.unwrap(key, response)

    def _check(
        self,
        key: CollateralKey,
        piece: Piece,
        now: int,
        chain: Piece | None,
        nonce: bytes | None,
    ) -> Checked:
        if key.source == INTEL_PCS:
            return intel.check(key, piece, self._anchors, now, chain)
        if piece.chain:
            raise MalformedError(f"collateral {key.kind}: expected no issuer chain beside it")
        if key.source == AMD_KDS:
            return amd.check(key, piece, self._anchors, now, chain)
        if key.source == JWKS:
            return jwks.check(key, piece)
        return nvidia.check(key, piece, now, nonce)

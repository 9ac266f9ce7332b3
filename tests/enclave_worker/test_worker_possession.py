"""A real worker proves its keys on the link it stands on, and opens nothing else for a gateway."""

import os
from dataclasses import replace
from typing import Any

import pytest

from wire.ids import unb64u
from wire.schedule import wrap_info
from wire.suites import SUITES

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


async def test_every_epoch_is_proved_and_no_question_of_another_link_or_kind_is_answered(
    make_bed: Any,
) -> None:
    async with make_bed(epoch_s=12) as bed:
        peer, binding = bed.peer, bed.peer.newest.binding
        assert peer.proofs == 1
        asked = peer.possession(binding)
        assert asked.proves(unb64u(await peer.prove(binding.bh, asked.sealed)))
        elsewhere = peer.possession(binding, nonce=os.urandom(32))
        assert await peer.prove(binding.bh, elsewhere.sealed) is None
        stranger = replace(binding, raw=b"{}")
        about = peer.possession(stranger)
        assert await peer.prove(stranger.bh, about.sealed) is None
        assert await peer.prove(binding.bh, about.sealed) is None
        wraps = [
            SUITES[kem.suite].seal(kem.pk, wrap_info(kem.kid, b"t" * 32), bytes(64))
            for kem in binding.kems
        ]
        assert await peer.prove(binding.bh, wraps) is None
        assert await peer.prove(binding.bh, asked.sealed[:-1]) is None
        assert await peer.prove(binding.bh, [b""] * 10_000) is None
        await peer.until(lambda: peer.proofs == 2)  # the next epoch
        later = peer.possession(binding)
        answer = await peer.prove(binding.bh, later.sealed)
        assert later.proves(unb64u(answer))

"""The files of a sample's kind that no step read: they are told, since a file seems to be checked.

What a kind reads depends on the rest. The strict policy speaks of no reference manifest, so a `rim`
vouches for nothing here. A root, and what stands between it and a key, is not read where the
relying party brought the key itself. And an empty file says nothing, where its role is optional.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.formats.corim import Manifest
from attestation.rules.tpm_quote import TpmQuoteFacts
from attestation.schemes.corim import PUBLIC_KEY, ROOT
from attestation.schemes.tpm_quote import CRLS, INTERMEDIATE
from attestation.verify.device import RIM_ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.examined import Examined
    from attestation.scheme import Scheme

_WORDS_ONLY: Final = ("diag", "pck_cert", "other_root")  # of a manifest; of the TD and SGX kinds
_LOG: Final = "cc-event-log"
_QUOTE: Final = "quote"


def unused(scheme: Scheme, files: Mapping[str, bytes], examined: Examined) -> tuple[str, ...]:
    """The roles of the kind whose files no step read.

    Args:
        scheme: the kind.
        files: role to bytes.
        examined: what came of them; of what was refused only that is told which is never read,
            since the reasons say what was read.
    """
    found = {*RIM_ROLES, *_WORDS_ONLY} & {*scheme.evidence[1], *scheme.collateral}
    if examined.authentic is not False:
        found |= _passed_over(scheme, files, examined)
        found |= {role for role in scheme.evidence[1] if not files.get(role)}
    return tuple(sorted(found & set(files)))


def _passed_over(scheme: Scheme, files: Mapping[str, bytes], examined: Examined) -> set[str]:
    facts = examined.facts
    if isinstance(facts, TpmQuoteFacts) and facts.key is not None and not facts.key.certified:
        return {ROOT, INTERMEDIATE, *CRLS}
    if isinstance(facts, Manifest) and (PUBLIC_KEY in files or facts.signing is None):
        return {ROOT}
    return {ROOT} if scheme.kind == _LOG and _QUOTE not in files else set()

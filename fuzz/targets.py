"""What is attacked: one target per parser, one per kind for its whole examination.

A target's function takes the roles of a mutated input. It returns, or raises one of its `errors`;
anything else is a finding. Examinations raise nothing at all: data never makes them fail.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from attestation.conformance.strict import strict_rule
from attestation.examined import Expected
from attestation.ledger import Ledger
from attestation.schemes import SCHEMES
from fuzz.documents import DOCUMENTS
from fuzz.link import LINK
from fuzz.parsers import PARSERS
from fuzz.resigned import SIGNED
from fuzz.seeds import Seed, questions, simulated
from fuzz.target import Target
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from attestation.examined import Question
    from attestation.scheme import Scheme
    from fuzz.resigned import Signed

EVIDENCE, COLLATERAL = "evidence:", "collateral:"
# A node's list holds up to sixteen devices, each with a chain of five certificates and a report.
LIST_LIMIT_MS: Final = 400


@dataclass(frozen=True, slots=True)
class Examination:
    """A kind's whole way: what it needs, whether it is genuine, its state under the strict rule.

    Attributes:
        scheme: the kind.
        rule: the strict rule of it.
    """

    scheme: Scheme
    rule: Any

    def __call__(self, roles: Mapping[str, bytes], context: Question) -> bool:
        """The question with these roles instead of its own."""
        evidence, collateral = _side(roles, EVIDENCE), _side(roles, COLLATERAL)
        return self.of(replace(context, evidence=evidence, collateral=collateral))

    def of(self, question: Question) -> bool:
        """Examine and judge; returns whether the evidence is authentic.

        Raises:
            TypeError: a claim that is no JSON.
        """
        self.scheme.needs(question.evidence)
        examined = self.scheme.examine(question)
        json.dumps(examined.claims, default=_plain)
        if examined.facts is not None:
            ledger = Ledger()
            self.scheme.judge(ledger, examined.facts, self.rule, question.now)
            if self.scheme.carries is not None:
                with contextlib.suppress(AttestationError, MalformedError):
                    self.scheme.carries(examined.facts, bytes(32))
        return examined.authentic is True


def _plain(value: object) -> object:
    if hasattr(value, "items"):
        return dict(value.items())
    raise TypeError(f"claims: found {type(value).__name__}, expected JSON")


def _side(roles: Mapping[str, bytes], side: str) -> dict[str, bytes]:
    return {role[len(side) :]: data for role, data in roles.items() if role.startswith(side)}


def _seeds(kind: str, simulators_only: bool) -> Callable[[], Sequence[Seed]]:
    def found() -> list[Seed]:
        held = simulated(kind) if simulators_only else questions(kind)
        seeds = [_seed(question) for question in held]
        # Nothing asked is another way through an examination.
        return [*seeds, _seed(replace(held[-1], expected=Expected()))]

    return found


def _seed(question: Question) -> Seed:
    roles = {EVIDENCE + role: data for role, data in question.evidence.items()}
    roles |= {COLLATERAL + role: data for role, data in question.collateral.items()}
    return Seed(roles, question)


def _examinations() -> list[Target]:
    return [
        Target(
            name=f"examine {kind}",
            seeds=_seeds(kind, simulators_only=False),
            run=Examination(scheme, strict_rule(scheme)),
            errors=(),
            limit_ms=LIST_LIMIT_MS if kind.endswith("-list") else 50,
        )
        for kind, scheme in SCHEMES.items()
    ]


def _resigned() -> list[Target]:
    def target(kind: str, what: str, make: Callable[[], Signed]) -> Target:
        examination = Examination(SCHEMES[kind], strict_rule(SCHEMES[kind]))

        def seeds() -> list[Seed]:
            signed = make()
            return [replace(signed.seed, context=signed.question)]

        def run(roles: Mapping[str, bytes], context: Any) -> bool:
            return examination.of(context(roles))

        return Target(f"resigned {kind} {what}", seeds, run, ())

    return [target(kind, what, make) for (kind, what), make in SIGNED.items()]


TARGETS: Final[Mapping[str, Target]] = {
    target.name: target for target in (*PARSERS, *DOCUMENTS, *LINK, *_examinations(), *_resigned())
}

"""The error tree: stable codes, the drawing in the docstring, words for the human."""

from __future__ import annotations

import pytest

from wire import errors
from wire.errors import AnchorholdError, AttestationError, ConfigError, GatewayError


def tree():
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, AnchorholdError)
    ]


def make(kind):
    return kind(status=500) if kind is GatewayError else kind("found and expected")


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_every_class_stands_in_the_drawing_with_its_code(kind):
    drawing = errors.__doc__
    line = next(line for line in drawing.splitlines() if kind.__name__ in line.split())
    if kind is not AnchorholdError:
        assert kind.default_code in line.split()
        assert make(kind).code == kind.default_code


def test_codes_are_distinct():
    codes = [kind.default_code for kind in tree()]
    assert len(set(codes)) == len(codes)


def test_indentation_of_the_drawing_is_the_tree():
    for line in errors.__doc__.splitlines():
        if "──" not in line:
            continue
        name = line.split("── ")[1].split()[0]
        depth = 2 if line.startswith("    │   ") else 1
        assert len(getattr(errors, name).__mro__) - len(AnchorholdError.__mro__) == depth


def test_a_hint_says_what_to_do_next():
    error = ConfigError("no such key", hint="See the manual.")
    assert str(error) == error.message == "no such key"
    assert error.diagnostics() == "no such key\nSee the manual."
    assert ConfigError("no such key").diagnostics() == "no such key"


def test_a_code_can_be_given():
    assert errors.WorkerNotice("x", code="busy").code == "busy"


def test_an_attestation_error_carries_its_reasons():
    assert AttestationError("x", reasons=("tcb_outdated",)).reasons == ("tcb_outdated",)
    assert AttestationError("x").reasons == ()


def test_a_refusal_has_one_reason_and_begins_with_what_was_looked_at():
    error = errors.refused("tcb_out_of_date", "found 1, expected 2", about="SNP")
    assert (type(error), error.reasons) == (AttestationError, ("tcb_out_of_date",))
    assert error.message == "SNP: found 1, expected 2"
    assert errors.refused("tcb_out_of_date", "found 1, expected 2").message == "found 1, expected 2"

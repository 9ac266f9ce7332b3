"""One target under attack: so many inputs, each within its errors, its time and its memory."""

from __future__ import annotations

import json
import time
import traceback
import tracemalloc
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuzz.draws import Draws
from fuzz.mutators import mutate
from fuzz.seeds import Seed
from wire.ids import b64u, unb64u

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fuzz.target import Target

CORPUS: Final = Path(__file__).parent / "corpus"
MEMORY_MAX: Final = 64 * 1024 * 1024  # what one input may allocate at once
MEASURED_EVERY: Final = 499  # tracing allocations is slow; the slowest inputs are traced as well
SLOW_NS: Final = 20_000_000
QUICK_NS: Final = 4_000_000  # far below every limit: not worth counting again
FINDINGS_MAX: Final = 40
_ROOT: Final = Path(__file__).parents[1]


@dataclass(slots=True)
class Finding:
    """A way in which a target misbehaved.

    Attributes:
        what: the exception and the innermost line of ours, or the bound that was exceeded.
        times: how many inputs did so.
        roles: the first of them.
        trace: where it happened, for a person to read.
    """

    what: str
    times: int
    roles: Mapping[str, bytes]
    trace: str


@dataclass(slots=True)
class Outcome:
    """What an attack gave.

    Attributes:
        target: its name; count: inputs; refused: those that raised our errors.
        genuine: inputs that were accepted as what they claim (parsed, or examined as authentic).
        worst_ms: processor time of the slowest input that took over 4 ms, or of those measured.
        mean_us: mean time of the target itself.
        peak_kib: greatest allocation of a traced input.
        findings: by what they are.
    """

    target: str
    count: int = 0
    refused: int = 0
    genuine: int = 0
    worst_ms: float = 0.0
    mean_us: float = 0.0
    peak_kib: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A row for a report; inputs are given where they were kept, never here."""
        return {
            "target": self.target,
            "count": self.count,
            "refused": self.refused,
            "genuine": self.genuine,
            "worst_ms": round(self.worst_ms, 2),
            "mean_us": round(self.mean_us),
            "peak_kib": self.peak_kib,
            "findings": [
                {"what": found.what, "times": found.times, "trace": found.trace}
                for found in self.findings.values()
            ],
        }


def attack(
    target: Target, count: int, seed: int, progress: Callable[[Outcome], None] | None = None
) -> Outcome:
    """Run `count` mutated inputs, after the honest ones and the kept ones.

    Args:
        target: what to attack.
        count: mutated inputs.
        seed: another seed gives other inputs.
        progress: called now and then.
    """
    outcome = Outcome(target.name)
    seeds = tuple(target.seeds())
    if not seeds:
        raise ValueError(f"{target.name}: no seeds")
    for kept in (*seeds, *corpus(target.name, seeds[-1])):
        _one(target, kept, outcome, trace=True)
    spent = 0
    start = zlib.crc32(target.name.encode()) ^ (seed * 0x9E3779B1)
    for number in range(count):
        made = variant(seeds, target.words, Draws(start + (number << 32)))
        spent += _one(target, made, outcome, trace=number % MEASURED_EVERY == 0)
        outcome.count += 1
        if progress is not None and number % 5000 == 4999:
            progress(outcome)
    outcome.mean_us = spent / 1000 / max(count, 1)
    return outcome


def variant(seeds: Sequence[Seed], words: Sequence[bytes], draws: Draws) -> Seed:
    """One mutated input: mostly one role changed, sometimes roles left out or exchanged."""
    seed = draws.pick(seeds)
    roles = dict(seed.roles)
    names = list(roles)
    if not names:
        return seed
    for _ in range(1 if len(names) == 1 or draws.chance(2) else 2):
        name = draws.pick(names)
        others = [other.roles[name] for other in seeds if name in other.roles]
        if len(names) > 1 and draws.chance(24):
            action = draws.below(3)
            if action == 0:
                roles.pop(name, None)
            elif action == 1:
                roles[name] = b""
            else:
                roles[name] = roles.get(draws.pick(names), b"")
        elif others and draws.chance(24):
            roles[name] = draws.pick(others)
        elif name in roles:
            roles[name] = mutate(roles[name], others, words, draws)
    return Seed(roles, seed.context)


def _one(target: Target, made: Seed, outcome: Outcome, *, trace: bool) -> int:
    """Run one input and account for it; the time it took in ns."""
    spent = _run(target, made, outcome, time.perf_counter_ns)
    slow = False
    if trace or spent > max(QUICK_NS, outcome.worst_ms * 1e6):
        # The machine may have been at fault: what counts is the least of three, on the processor's
        # clock, which is too slow to be read for each input.
        counts = [_run(target, made, Outcome(""), time.process_time_ns) for _ in range(3)]
        outcome.worst_ms = max(outcome.worst_ms, min(counts) / 1e6)
        slow = min(counts) > SLOW_NS
        if min(counts) > target.limit_ms * 1_000_000:
            _find(outcome, f"over {target.limit_ms} ms", made, f"{min(counts) / 1e6:.0f} ms")
    if trace or slow:
        tracemalloc.start()
        _run(target, made, Outcome(""), time.perf_counter_ns)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        outcome.peak_kib = max(outcome.peak_kib, peak // 1024)
        if peak > MEMORY_MAX:
            _find(outcome, f"over {MEMORY_MAX} bytes", made, f"{peak} bytes")
    return spent


def _run(target: Target, made: Seed, outcome: Outcome, clock: Callable[[], int]) -> int:
    begin = clock()
    try:
        outcome.genuine += target.run(made.roles, made.context)
    except target.errors:
        outcome.refused += 1
    except Exception as error:
        spent = clock() - begin
        _find(outcome, _what(error), made, "".join(traceback.format_exception(error)[-6:]))
        return spent
    return clock() - begin


def _what(error: Exception) -> str:
    frames = [
        f"{Path(frame.filename).relative_to(_ROOT)}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_ROOT) and ".venv" not in frame.filename
    ]
    return f"{type(error).__name__} at {frames[-1] if frames else 'nowhere'}"


def _find(outcome: Outcome, what: str, made: Seed, trace: str) -> None:
    found = outcome.findings.get(what)
    if found is not None:
        found.times += 1
    elif len(outcome.findings) < FINDINGS_MAX:
        outcome.findings[what] = Finding(what, 1, made.roles, trace)


# -- inputs that are kept -------------------------------------------------------------------------


def corpus(name: str, seed: Seed) -> list[Seed]:
    """Kept inputs of a target; roles they do not name are the seed's."""
    folder = CORPUS / name.replace(" ", "-")
    found = []
    for path in sorted(folder.glob("*.json")):
        kept = {role: unb64u(text) for role, text in json.loads(path.read_bytes()).items()}
        found.append(Seed({**seed.roles, **kept}, seed.context))
    return found


def keep(folder: Path, name: str, finding: Finding) -> Path:
    """Write an input that was found, to look at; a vendor's bytes may be in it."""
    folder = folder / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{zlib.crc32(finding.what.encode()):08x}.json"
    held = {role: b64u(data) for role, data in finding.roles.items()}
    path.write_text(json.dumps(held, indent=1) + "\n")
    return path

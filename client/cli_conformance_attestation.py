"""`anchorhold conformance attestation INDEX`: run published evidence samples."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from attestation.conformance.index import INDEX_MAX, Index, Sample, parse_index
from attestation.conformance.run import Outcome, run_sample
from attestation.conformance.strict import unknown_sentences
from wire.errors import ConfigError, MalformedError
from wire.excerpt import cut, listed, shown

from .cli_options import add_command, add_json
from .cli_terminal import note, say, width
from .files import read_file
from .report import EXIT_INVALID, EXIT_OK

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
anchorhold conformance attestation vectors/index.json
anchorhold conformance attestation vectors/index.json --kind intel-tdx-quote
anchorhold conformance attestation vectors/index.json --json > results.json"""
SAMPLE_FILE_MAX: Final = 16 * 1024 * 1024  # an event log or a bundle of collateral is 1 MiB at most
SAMPLE_MAX: Final = 64 * 1024 * 1024  # of all roles of a sample, each of which is looked through
ROLES_MAX: Final = 256  # a node of sixteen GPUs has about a hundred
PROGRESS_AFTER_S: Final = 2.0
_WORDS: Final = {True: "yes", False: "no", None: "-"}
_ID_WIDTH: Final = 36
_OTHER_WIDTH: Final = 33  # the mark before a name, and the three columns behind it
ID_MAX: Final = 120  # an index may hold longer names; a line of a table should not
WORD_MAX: Final = 71  # a digest with its name; an index may hold longer words, and this is a table
CHOICES_MAX: Final = 40


def register(kinds: Any) -> None:
    """Add the command under `conformance`."""
    text = "run evidence samples (schema attestation-vectors/1)"
    parser = add_command(kinds, "attestation", text, EXAMPLES)
    parser.add_argument("index", type=Path, metavar="INDEX", help="index of the samples, JSON")
    parser.add_argument(
        "--kind", action="append", metavar="KIND", help="run only samples of this kind; repeatable"
    )
    parser.add_argument(
        "--id", action="append", metavar="ID", help="run only this sample; repeatable"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 every sample gave what the index expects, 2 at least one did not, 4 not such an index."""
    index = _index(args.index)
    samples = _chosen(index, args.kind, args.id)
    for sentence in unknown_sentences(index.strict_policy):
        note(f"note: strict_policy: {shown(sentence)} is no rule that this version knows")
    for sentence in index.notes:
        note(f"note: {sentence}")
    results = []
    started = time.monotonic()
    for number, sample in enumerate(samples, 1):
        results.append(_timed(sample, index, args.index.parent))
        if sys.stderr.isatty() and time.monotonic() - started > PROGRESS_AFTER_S:
            end = "\n" if number == len(samples) else ""
            print(f"\r{number} of {len(samples)} samples", end=end, file=sys.stderr, flush=True)
    failed = sum(not outcome.ok for outcome, _ in results)
    if args.json:
        cases = [_document(outcome, ms) for outcome, ms in results]
        summary = {"passed": len(results) - failed, "failed": failed}
        print(json.dumps({"ok": not failed, **summary, "samples": cases}, indent=2))
    else:
        _table(results)
        say(f"{len(results) - failed} of {len(results)} samples gave what the index expects")
    return EXIT_INVALID if failed else EXIT_OK


def _index(path: Path) -> Index:
    raw = read_file(path, INDEX_MAX, "index")
    try:
        return parse_index(raw)
    except MalformedError as error:
        raise ConfigError(
            f"index file {path}: {error.message}",
            hint="name the index.json of a set of evidence samples (schema attestation-vectors/1)",
        ) from error


def _chosen(index: Index, kinds: list[str] | None, ids: list[str] | None) -> list[Sample]:
    for wanted, present, what in (
        (kinds, {sample.kind for sample in index.samples}, "kind"),
        (ids, {sample.id for sample in index.samples}, "id"),
    ):
        absent = sorted(set(wanted or ()) - present)
        if absent:
            raise ConfigError(
                f"--{what} {shown(absent[0])}: the index has no such sample",
                hint=f"choose of: {listed(present, CHOICES_MAX, ID_MAX)}",
            )
    return [
        sample
        for sample in index.samples
        if (kinds is None or sample.kind in kinds) and (ids is None or sample.id in ids)
    ]


def _timed(sample: Sample, index: Index, folder: Path) -> tuple[Outcome, float]:
    files = _files(folder, sample)

    def read(path: str) -> bytes:
        found = files[path]
        if isinstance(found, MalformedError):
            raise found
        return found

    before = time.perf_counter()
    outcome = run_sample(sample, index, read)
    return outcome, (time.perf_counter() - before) * 1000


def _files(folder: Path, sample: Sample) -> dict[str, bytes | MalformedError]:
    """What each name of a sample stands for: bytes, or why there are none.

    One bad sample must not end the run, and no index fill the memory or take hours: a file under
    many spellings of its name is read once, and counts for each role that it is looked at under.
    """
    names = Counter(sample.files.values())
    if len(sample.files) > ROLES_MAX:
        error = MalformedError(
            f"sample files: found {len(sample.files)}, expected at most {ROLES_MAX}"
        )
        return dict.fromkeys(names, error)
    found: dict[str, bytes | MalformedError] = {}
    contents: dict[Path, bytes] = {}
    room = SAMPLE_MAX
    for name, roles in names.items():
        try:
            path = _inside(folder, name)
            if path not in contents and room >= 0:
                contents[path] = read_file(path, SAMPLE_FILE_MAX, "sample")
            room -= roles * len(contents.get(path, b""))
            if room < 0:
                raise ConfigError(
                    f"sample file {shown(name)}: expected at most {SAMPLE_MAX} bytes in all"
                    " files of a sample, found more"
                )
            found[name] = _as_listed(contents[path], sample.digests.get(name), name)
        except ConfigError as error:
            found[name] = MalformedError(error.message)
        except MalformedError as error:
            found[name] = error
    return found


def _as_listed(data: bytes, digest: str | None, name: str) -> bytes:
    if digest is not None and hashlib.sha256(data).hexdigest() != digest.lower():
        raise MalformedError(
            f"sample file {shown(name)}: found another SHA-256, expected the one the index gives"
        )
    return data


def _inside(folder: Path, path: str) -> Path:
    """The file that an index names, under its own folder; links there are whoever unpacked it's.

    Raises:
        ConfigError: its name leads elsewhere, or it is no file.
    """
    named = PurePosixPath(path)
    try:
        found = (folder / named).resolve()
        whole = found.is_file()
    except (OSError, RuntimeError, ValueError):  # names too long, links in a circle, zero bytes
        raise ConfigError(f"sample file {shown(path)}: found no name that a file can have") from (
            None
        )
    if named.is_absolute() or ".." in named.parts:
        raise ConfigError(f"sample file {shown(path)}: it lies outside the index's folder")
    if not whole and found.exists():  # a pipe would hold the run up, a device fill the memory
        raise ConfigError(f"sample file {shown(path)}: found no plain file, expected one")
    return found


def _table(results: list[tuple[Outcome, float]]) -> None:
    room = min(_ID_WIDTH, width() - _OTHER_WIDTH)
    print(f"      {'sample':<{room}} authentic accepted      ms")
    for outcome, ms in results:
        mark = "ok  " if outcome.ok else "FAIL"
        authentic, accepted = _WORDS[outcome.authentic], _WORDS[outcome.accepted]
        columns = f"{authentic:<9} {accepted:<8} {ms:7.2f}"
        name = cut(outcome.id, ID_MAX)
        if len(name) > room:
            step = width() - len(mark) - 2
            parts = [name[at : at + step] for at in range(0, len(name), step)]
            print(f"{mark}  " + "\n      ".join(parts))
            print(f"      {'':<{room}} {columns}")
        else:
            print(f"{mark}  {name:<{room}} {columns}")
        codes = sorted({reason.code for reason in outcome.reasons})
        if codes:
            say(f"      {', '.join(codes)}", 0)
        for fault in outcome.faults:
            say(f"      {_cut_words(fault)}")
        if outcome.ignored:
            say(f"      not used: {listed(outcome.ignored)}", 0)


def _cut_words(text: str) -> str:
    """A sentence whose longest words, which are an index's own, fit a line."""
    words = text.split(" ")
    return " ".join(word if len(word) <= WORD_MAX else cut(word, WORD_MAX) for word in words)


def _document(outcome: Outcome, ms: float) -> dict[str, Any]:
    return {
        "id": outcome.id,
        "kind": outcome.kind,
        "ok": outcome.ok,
        "authentic": outcome.authentic,
        "accepted": outcome.accepted,
        "reasons": [
            {"code": reason.code, "step": reason.step, "detail": reason.detail}
            for reason in outcome.reasons
        ],
        "differing": {
            path: {"found": found, "expected": expected}
            for path, (found, expected) in outcome.differing.items()
        },
        "ignored": list(outcome.ignored),
        "faults": list(outcome.faults),
        "ms": round(ms, 3),
    }

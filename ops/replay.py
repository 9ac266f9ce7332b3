"""Run an answer again from its receipt, and compare.

    1 the receipt verifies                                  evidence.bundle
    2 the opening holds what the receipt commits to         client.opening
    3 the model folder is the one: every digest             attestation, enclave_worker.model_folder
    4 the answer was deterministic, and the same kernels are here
    5 the worker's parameters follow from the request; it runs
    6 text, finish, token counts and log-probabilities are the same

Steps 1, 2, 5 and 6 give a verdict on the answer; 3 and 4 refuse to (another folder, another
machine). The request is read by the worker's own code. It runs alone, in other chunks than a worker
makes, without a prefix cache and without speculation: that none of these matter is what the
receipt says, and what a replay checks on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attestation.collect.tree import digest_tree
from enclave_worker.api.endpoints import parse_request
from enclave_worker.api.errors import ApiError
from enclave_worker.api.results import overall
from enclave_worker.engine.config import PAGE_SIZE, EngineConfig
from enclave_worker.engine.engine import ANSWERS_MAX
from enclave_worker.engine.errors import EngineError
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.ops.library import settle
from enclave_worker.model_folder import check_model, model_digests
from enclave_worker.statement import ENGINE_NAME, engine_version
from evidence.bundle import verify_bundle
from evidence.commit import response_segments
from evidence.report import ExitCode
from wire.errors import ConfigError, ReceiptError

from .rerun import differs, rerun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from attestation.policy import Policy
    from client.opening import Opening
    from client.report import Report
    from enclave_worker.api.request import ApiRequest
    from enclave_worker.api.results import ChoiceResult

STEPS: Final = (
    "1 receipt verifies",
    "2 opening is the receipt's",
    "3 model folder is the receipt's",
    "4 same kernels, deterministic",
    "5 runs as the receipt says",
    "6 answer is the same",
)
# Workers take 512 tokens a step unless told otherwise: prompts are cut elsewhere here.
STEP_BUDGET: Final = 48


class Replay:
    """One receipt, its opening and a model folder."""

    def __init__(
        self, receipt: bytes, opening: Opening, model: Path, report: Report, threads: int = 1
    ) -> None:
        """Prepare; each step is recorded in `report`.

        Args:
            receipt: the bundle file's bytes.
            opening: what opens it.
            model: an imported model folder.
            report: takes a check for each step.
            threads: the engine's; they change no bit.
        """
        self._receipt = receipt
        self._opening = opening
        self._model = model
        self._report = report
        self._threads = threads
        self.trust: str | None = None
        self.below_policy = False

    def run(self, policy: Policy, now: int, progress: Callable[[str], None]) -> None:
        """Take all steps.

        Args:
            policy: the reader's, for step 1.
            now: unix seconds, likewise.
            progress: told what begins, before what takes long.

        Raises:
            ReceiptError: the receipt, the opening or the answer is not what it claims to be.
            ConfigError: nothing can be said with this folder or on this machine.
        """
        step = self._report.step
        with step(STEPS[0]) as detail:
            claims, detail.text = self._verified(policy, now)
        with step(STEPS[1]) as detail:
            self._opening.check(claims)
            detail.text = f"{claims['req']['n']} segments asked, {claims['resp']['n']} answered"
        with step(STEPS[2]) as detail:
            progress("hashing the model folder")
            self._check_folder(claims["model"])
            detail.text = str(claims["model"]["digest"])
        with step(STEPS[3]) as detail:
            settings = self._settings(claims)
            detail.text = f"{claims['eng']['version']}, {settings.dtype}"
        with step(STEPS[4]) as detail:
            progress("loading the model and running the request")
            request = self._request()
            results, counts = rerun(self._model, settings, request, claims["par"])
            detail.text = f"{counts[0]} tokens in, seed {claims['par'].get('seed') or 'not used'}"
        with step(STEPS[5]) as detail:
            compared = self._compare(results, counts, claims)
            detail.text = ", ".join(compared)

    def _verified(self, policy: Policy, now: int) -> tuple[Mapping[str, Any], str]:
        """Step 1. Genuine but below policy goes on: the answer can be judged all the same."""
        found = verify_bundle(self._receipt, policy, now)
        self.trust = found.trust
        if found.exit_code in (ExitCode.UNREADABLE, ExitCode.INVALID):
            wrong = next(check for check in found.checks if check.ok is False)
            sentence = f"receipt: {wrong.id}: {wrong.detail}"
            if found.exit_code == ExitCode.UNREADABLE:
                hint = "name a file that `anchorhold chat --receipt FILE` wrote"
                raise ConfigError(sentence, hint=hint)
            raise ReceiptError(sentence)
        self.below_policy = found.exit_code == ExitCode.BELOW_POLICY
        if not found.claims:
            raise ReceiptError("receipt: a statement with a valid signature expected")
        held = f"{len(found.checks)} checks"
        return found.claims, f"{held}; genuine, below the policy" if self.below_policy else held

    def _check_folder(self, claimed: Mapping[str, Any]) -> None:
        """Step 3."""
        check_model(self._model)
        found = model_digests(self._model, digest_tree(self._model))
        names = {"digest": "tree", "weights": "weights"}
        names |= {name: name for name in ("tokenizer", "template")}
        for member in ("weights", "tokenizer", "template", "digest"):
            digest = found.get(names[member])
            if digest != claimed[member]:
                raise ConfigError(
                    f"model folder {self._model}: {member}: found {digest}, "
                    f"expected {claimed[member]}",
                    hint=f"import {claimed['name']} as the worker's operator did, or get the folder"
                    " that the receipt names; nothing is said about the answer",
                )

    def _settings(self, claims: Mapping[str, Any]) -> EngineConfig:
        """Step 4: the worker's numbers and kernels, in sizes of our own."""
        engine, dtype = claims["eng"], claims["model"]["dtype"]
        if engine["name"] != ENGINE_NAME or not engine["det"]:
            raise ConfigError(
                f"engine: found {engine['name']} {engine['version']}, whose answers depend on what "
                "else ran beside them, expected one that the receipt calls deterministic",
                hint="a worker with dtype w8a8, w8a16 or bfloat16 on compiled kernels is",
            )
        kernels = engine["version"].partition("+")[2].partition(".")[0]
        par, used = claims["par"], claims["use"]
        try:
            positions = ModelFolder.read(self._model).config.max_positions
            length = min(used["in"] + int(par["max_tokens"]), positions)
            answers = max(1, min(int(par["n"]), ANSWERS_MAX))
            settings = settle(
                EngineConfig(
                    dtype=dtype,
                    kernels=kernels,
                    threads=self._threads,
                    max_batch=answers,
                    step_budget=STEP_BUDGET,
                    max_len=max(1, length),
                    kv_pages=answers * (length // PAGE_SIZE + 2),
                    prefix_cache=False,
                )
            )
            found = engine_version(settings.kernels)
        except (EngineError, ValueError, KeyError, TypeError, OSError) as error:
            raise ConfigError(
                f"engine: {error}; expected what the receipt names: {engine['version']}, {dtype}",
                hint="replay on a machine with that instruction set and a package built for it",
            ) from error
        if found != engine["version"]:
            raise ConfigError(
                f"engine: found {found}, expected {engine['version']}",
                hint="install the release the worker ran, built with the same compiler; other "
                "kernels may round differently, so nothing would follow from a difference",
            )
        return settings

    def _request(self) -> ApiRequest:
        """Step 5, first half: read the request as a worker does."""
        try:
            return parse_request("POST", self._opening.path, self._opening.body)
        except ApiError as error:
            raise ReceiptError(f"request: found one that no worker runs: {error}") from error

    def _compare(
        self, results: list[ChoiceResult], counts: tuple[int, int], claims: Mapping[str, Any]
    ) -> list[str]:
        """Step 6; returns what was compared."""
        used, answer = claims["use"], response_segments([result.said() for result in results])
        if counts != (used["in"], used["out"]):
            raise differs(
                f"answer: found {counts[0]} tokens in and {counts[1]} out, "
                f"expected {used['in']} and {used['out']}"
            )
        if (found := overall(results)) != claims["finish"]:
            raise differs(f"answer: found finish {found}, expected {claims['finish']}")
        for number, (one, other) in enumerate(zip(answer, self._opening.answer, strict=True)):
            if one != other:
                same = _agreeing(one[1], other[1])
                raise differs(f"answer: choice {number} differs from byte {same} on")
        compared = ["text", "finish", "token counts"]
        if claims["par"].get("logprobs") is None:
            return compared
        scores = tuple(tuple(entry.logprob for entry in r.logprobs or ()) for r in results)
        if tuple(values for values in scores if values) != self._opening.logprobs:
            raise differs("answer: the log-probabilities of the opening expected, found others")
        return [*compared, "log-probabilities"]


def _agreeing(one: bytes, other: bytes) -> int:
    pairs: Sequence[tuple[int, int]] = list(zip(one, other, strict=False))
    return next((at for at, (a, b) in enumerate(pairs) if a != b), len(pairs))

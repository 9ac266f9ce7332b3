"""Attestation in the words of others: the open `aci/1` report, and EAR result tokens.

Both say no more than what `/v1/keys` serves. A report is raw evidence in another shape; a token is
this gateway's verdict, for relying parties that trust this gateway. A tenant's client needs
neither: it judges the evidence itself.
"""

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from attestation.aci import Provenance, attestation_report, parse_nonce, response_headers
from attestation.binding import parse_binding
from attestation.ear import Verifier, ear_claims
from attestation.ear_token import result_key_set, sign_result
from gateway.appraiser import Presented
from gateway.errors import Fault, Refusal
from gateway.live_reports import LiveReports
from gateway.runtime import Gateway
from gateway.session import Epoch
from wire.errors import AttestationError, MalformedError, UnavailableError

from .keys import binding_hash
from .names import check_name
from .sealed import SCOPE

TOKEN_TYPE = "application/eat+jwt"  # noqa: S105 -- a media type
VERIFIER = Verifier("The Anchorhold authors", "anchorhold/1")
_LIVE = {"cache-control": "no-store"}


def attestation_routes(gateway: Gateway) -> APIRouter:
    """The routes, over one gateway."""
    router = APIRouter(dependencies=[Depends(_once)])
    live = LiveReports(gateway.workers)

    @router.get("/v1/aci/attestation", response_class=Response)
    async def get_report(
        request: Request, nonce: str | None = None, model: str | None = None
    ) -> Response:
        """One worker's attestation, over the caller's nonce if one is given.

        A nonce makes a worker attest anew, which costs it time: only tenants may ask for that.
        """
        check_name("model", model)
        asked = None if nonce is None else _nonce(nonce)
        if asked is not None:
            gateway.authenticator.authenticate(
                request.headers.get("authorization"), SCOPE, gateway.clock.wall()
            )
        offered = _offered(gateway, model)
        config = gateway.config
        provenance = Provenance(config.source_url, config.source_commit, config.source_image)

        def report_of(shown: Presented) -> dict[str, Any]:
            return attestation_report(
                parse_binding(shown.binding), shown.evidence, shown.posture, asked, provenance
            )

        try:
            if asked is None:
                report = report_of(offered[0].presented)
            else:
                report = await live.ask(offered, asked, report_of)
        except (AttestationError, MalformedError, UnavailableError) as error:
            raise Refusal(Fault.NO_WORKER, error.message, retry_after=2) from error
        return JSONResponse(report, headers={**_LIVE, **response_headers(report)})

    @router.get("/v1/attestation/results/{bh}", response_class=Response)
    async def get_result(bh: str, nonce: str | None = None, aud: str | None = None) -> Response:
        """This gateway's verdict on one worker, judged now, as a signed token."""
        check_name("aud", aud)
        echoed = None if nonce is None else _nonce(nonce)
        epoch = gateway.registry.epoch(binding_hash(bh))
        if epoch is None:
            raise Refusal(Fault.NOT_FOUND, "no admitted binding has this hash")
        appraiser, now = gateway.reappraisal.appraiser, gateway.clock.wall()
        verdict, policy = await appraiser.judge(epoch.presented, now, epoch.collateral)
        claims = ear_claims(
            verdict,
            verifier=VERIFIER,
            policy=policy,
            now=now,
            life_s=gateway.config.result_life_s,
            nonce=echoed,
            audience=aud,
        )
        token = sign_result(claims, gateway.result_key, gateway.config.result_kid)
        return Response(token, media_type=TOKEN_TYPE, headers=_LIVE)

    @router.get("/v1/attestation/keys", response_class=Response)
    async def get_result_keys() -> Response:
        """The key set of result tokens. Whoever relies on one takes it once, out of band."""
        keys = {gateway.config.result_kid: gateway.result_key.public_key()}
        return Response(result_key_set(keys), media_type="application/jwk-set+json")

    return router


async def _once(request: Request) -> None:
    """Of a parameter given twice, one is what somebody else may have read."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in ("nonce", "model", "aud"):
        if names.count(name) > 1:
            raise Refusal(Fault.BAD_QUERY, f"{name}: found {names.count(name)}, expected one")


def _nonce(text: str) -> bytes:
    try:
        return parse_nonce(text)
    except MalformedError as error:
        raise Refusal(Fault.BAD_QUERY, error.message) from error


def _offered(gateway: Gateway, model: str | None) -> list[Epoch]:
    """The workers that are offered now, and serve the model if one is named; at least one."""
    found = [
        epoch
        for epoch in gateway.registry.offered(gateway.clock.wall())
        if model is None or any(item.name == model for item in epoch.appraised.binding.models)
    ]
    if not found:
        raise Refusal(Fault.NO_WORKER, "no admitted worker serves this", retry_after=2)
    return found

"""One simulated Intel platform, parsed: what each step of a verification is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attestation.formats import intel_collateral as parts
from attestation.formats import intel_statements as texts
from attestation.formats.dcap_bodies import TdReport
from attestation.formats.dcap_quote import Quote, parse_quote
from attestation.formats.pck import Chain, Pck, parse_chain, parse_pck
from attestation.verify import intel_collateral as statements
from attestation.verify.intel_tcb import TcbVerdict, evaluate

if TYPE_CHECKING:
    from .intel import Intel


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the steps are given, of one simulated platform."""

    intel: Intel
    quote: Quote
    chain: Chain
    pck: Pck
    collateral: parts.Collateral
    info: texts.TcbInfo
    identity: texts.QeIdentity

    @classmethod
    def of(cls, intel: Intel) -> Parsed:
        quote = parse_quote(intel.quote())
        chain = parse_chain(quote.cert_data, "PCK chain")
        collateral = parts.parse_collateral({"collateral": intel.collateral()})
        info = texts.parse_tcb_info(collateral.tcb_info)
        identity = texts.parse_qe_identity(collateral.qe_identity)
        return cls(intel, quote, chain, parse_pck(chain.ders[0]), collateral, info, identity)

    def match(self) -> str:
        return statements.check_match(
            self.quote, self.pck, self.chain.ders[1:], [self.intel.root_der()],
            self.collateral, self.info, self.identity,
        )  # fmt: skip

    def verdict(self) -> TcbVerdict:
        return evaluate(self.quote, self.pck, self.info, self.identity)

    def evaluate(self) -> str:
        return self.verdict().status

    def with_td(self, **change: Any) -> Parsed:
        """The same with fields of the TD report changed."""
        assert isinstance(self.quote.body, TdReport)
        return replace(self, quote=replace(self.quote, body=replace(self.quote.body, **change)))

    def with_enclave(self, **change: Any) -> Parsed:
        """The same with fields of the quoting enclave's report changed."""
        report = replace(self.quote.qe_report, **change)
        return replace(self, quote=replace(self.quote, qe_report=report))

    def with_identity(self, **change: Any) -> Parsed:
        """The same with fields of the quoting enclave's identity changed."""
        return replace(self, identity=replace(self.identity, **change))

    def with_statuses(self, *, newest: str, older: str, enclave: str = "UpToDate") -> Parsed:
        """The same with other statuses of the two platform levels and of the enclave's first."""
        levels = tuple(
            replace(level, status=status)
            for level, status in zip(self.info.levels, (newest, older), strict=True)
        )
        first, *rest = self.identity.levels
        return replace(
            self,
            info=replace(self.info, levels=levels),
            identity=replace(self.identity, levels=(replace(first, status=enclave), *rest)),
        )

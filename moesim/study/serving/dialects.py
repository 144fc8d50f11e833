"""The same latencies as other tools define them: TPOT and ITL differ between them.

Sources: vLLM 0.33.0 benchmarks/serve.py (TPOT (e2e - ttft) / (out - 1), ITL pools single gaps);
GuideLLM ee7a7745 (TPOT e2e / out, with the first token; ITL is vLLM's TPOT); AIPerf db4f6397 (ITL
is vLLM's TPOT, no TPOT); MLPerf loadgen (TTFT and TPOT, as vLLM's; from memory, unchecked).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from moesim.study.serving.metrics import Counted, Quantiles, quantiles

_TTFT = "arrival to first token, queueing included"
_E2E = "arrival to last token"
_PER_TOKEN = "(last - first token) / (output tokens - 1), per request of two tokens or more"


@dataclass(frozen=True, slots=True)
class Measure:
    """A latency under the name that a tool gives it."""

    name: str
    definition: str
    quantiles: Quantiles


def _vllm(of: Counted, itl: Quantiles) -> tuple[Measure, ...]:
    return (
        Measure("TTFT", _TTFT, quantiles(of.ttft_s)),
        Measure("TPOT", _PER_TOKEN, quantiles(of.tpot_s)),
        Measure(
            "ITL", "every gap between two tokens of a request, all pooled", itl
        ),
        Measure("E2EL", _E2E, quantiles(of.e2e_s)),
    )  # fmt: skip


def _guidellm(of: Counted, itl: Quantiles) -> tuple[Measure, ...]:
    del itl
    return (
        Measure("TTFT", _TTFT, quantiles(of.ttft_s)),
        Measure(
            "TPOT", "(last token - arrival) / output tokens, per request: TTFT is in it",
            quantiles(of.e2e_s / of.output),
        ),
        Measure("ITL", _PER_TOKEN, quantiles(of.tpot_s)),
        Measure("request latency", _E2E, quantiles(of.e2e_s)),
    )  # fmt: skip


def _aiperf(of: Counted, itl: Quantiles) -> tuple[Measure, ...]:
    del itl
    return (
        Measure("TTFT", _TTFT, quantiles(of.ttft_s)),
        Measure("ITL", _PER_TOKEN, quantiles(of.tpot_s)),
        Measure("request latency", _E2E, quantiles(of.e2e_s)),
    )


def _mlperf(of: Counted, itl: Quantiles) -> tuple[Measure, ...]:
    del itl
    return (
        Measure("TTFT", _TTFT, quantiles(of.ttft_s)),
        Measure("TPOT", _PER_TOKEN, quantiles(of.tpot_s)),
        Measure("sample latency", _E2E, quantiles(of.e2e_s)),
    )


DIALECTS: Mapping[str, Callable[[Counted, Quantiles], tuple[Measure, ...]]] = MappingProxyType(
    {"vllm": _vllm, "guidellm": _guidellm, "aiperf": _aiperf, "mlperf": _mlperf}
)
"""Latencies by the tool whose words they are in."""


def measures(dialect: str, of: Counted, itl: Quantiles) -> tuple[Measure, ...]:
    """Return the latencies in the words of a tool; `itl` is of all gaps pooled."""
    return DIALECTS[dialect](of, itl)

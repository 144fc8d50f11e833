"""Draws small traces of requests from laws with the measures of public ones, in their formats.

Stand-ins, so that the replay scenarios run on any machine; the public traces are not copied here.
Put the real files in their place:

azure-like-conversation.csv
    Azure/AzurePublicDataset, data/AzureLLMInferenceTrace_conv.csv (Patel et al., Splitwise, ISCA
    2024). Counted in that file: prompts of 1155 tokens on average, median 1020, 14050 at most;
    outputs 211, 129 and 1000; 5.53 requests a second with gaps of a CV of 1.09.
mooncake-like-conversation.jsonl
    kvcache-ai/Mooncake, FAST25-release/traces/conversation_trace.jsonl (Qin et al., FAST 2025).
    Counted there: prompts of 12035 tokens on average, p90 over median 3.96, 126195 at most; outputs
    343; 3.40 requests a second; all begin with the same block of 512 tokens, and 39 % of them with
    a second block that was there before; a cache without bounds finds 37.4 % of the prompt tokens.
    The real file does not say which requests are of one conversation; this one does.

Laws: lengths are lognormal with those means and with cv^2 = (mean / median)^2 - 1, cut at the
longest; gaps are gamma with shape 1 / CV^2. What the laws leave out: drift by the hour, bursts that
last, that long prompts come in groups, conversations of many turns. Azure's trace of code
completion has no stand-in, as its gaps follow no such law: their CV of 13 is of a few pauses of
minutes.
Needs moesim. Run: python make_serving_traces.py
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.sim.serving.requests import Requests
from moesim.spec.serving.workload import WorkloadSpec
from moesim.study.serving.traces.write import write_trace
from moesim.study.serving.workload import column, drawn

Ints = NDArray[np.int64]

AZURE = ((1155, 1020, 14050), (211, 129, 1000), "5.53 /s", 1.09)
"""Mean, median and most tokens of prompts and outputs; rate; CV of the gaps."""

ROWS, TALKS = 1500, 700

TURNS = [1, 1, 2, 3]
"""Turns of a conversation, each as likely. Assumed: with turns that add n tokens each, turn t finds
(t - 1) n of its t n, so that these find 4 n of 11 n = 36 %, the answers on top."""

SYSTEM, ADDED, ADDED_CV, LONGEST = 512, 7208, 1.47, 126195
"""Tokens of the beginning that all have, and that a turn adds: 7 turns of 4 conversations have
7 SYSTEM + 11 ADDED + 4 * 343 of 7 * 12035 prompt tokens. The CV gives p90 over median as counted:
sigma = ln(3.96) / 1.2816 and cv^2 = exp(sigma^2) - 1."""

TALKS_PER_S = "1.94 /s"
"""3.40 requests a second, 7 in 4 conversations."""

ANSWER_S, TOKEN_S, THINK_S = 2.0, 0.03, 20.0
"""When the next turn comes: answering takes 2 s and 30 ms a token, reading and writing 20 s on
average. Assumed: the trace says nothing of it."""


def law(mean: float, median: float) -> dict[str, object]:
    """Return the lognormal law of this mean and median."""
    return {"law": "lognormal", "mean": mean, "cv": round(((mean / median) ** 2 - 1) ** 0.5, 4)}


def azure() -> str:
    """Return a trace as Azure writes it."""
    prompt, output, rate, gap_cv = AZURE
    asked = drawn(
        WorkloadSpec.model_validate({
            "arrivals": "gamma", "rate": rate, "burstiness": round(gap_cv**-2, 6),
            "requests": ROWS, "prompt": law(*prompt[:2]), "output": law(*output[:2]),
        }),
        seed=1,
    )  # fmt: skip
    begin = datetime(2023, 11, 16, 18, tzinfo=UTC)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for at, tokens, out in zip(asked.arrival, asked.prompt, asked.output, strict=True):
        second, part = divmod(at, 10**12)
        moment = begin + timedelta(seconds=second)
        lines.append(
            f"{moment:%Y-%m-%d %H:%M:%S}.{part // 10**5:07d},{min(tokens, prompt[2])},"
            f"{min(out, output[2])}"
        )
    return "\r\n".join(lines) + "\r\n"


def mooncake() -> Requests:
    """Return conversations as one list of requests in the order of their arrival.

    It ends where the last conversation begins: what would come later, of fewer and fewer, is cut.
    """
    workload = WorkloadSpec.model_validate({
        "rate": TALKS_PER_S, "requests": TALKS * 7 // 4,
        "prompt": {"law": "lognormal", "mean": ADDED, "cv": ADDED_CV},
        "output": law(343, 300),
        "sessions": {"turns": TURNS, "longest": LONGEST, "shared_prefix": SYSTEM},
    })  # fmt: skip
    asked = drawn(workload, seed=1)
    think = np.random.default_rng(1).exponential(THINK_S, len(asked))
    assert asked.turn is not None and asked.session is not None
    at = list(asked.arrival)
    for n in range(len(asked)):
        if asked.turn[n]:
            answer = ANSWER_S + TOKEN_S * asked.output[n - 1]
            at[n] = at[n - 1] + round((answer + think[n]) * 1e3) * 10**9
        at[n] = at[n] // 10**9 * 10**9
    order = np.argsort(np.array(at), kind="stable")
    last = max(at[n] for n in range(len(asked)) if not asked.turn[n])
    order = order[np.array(at)[order] <= last]
    return Requests(
        column(np.array(asked.prompt)[order]), column(np.array(asked.output)[order]),
        column(np.array(at)[order]), prefix=blocks(asked, order),
        session=column(np.array(asked.session)[order]), turn=column(np.array(asked.turn)[order]),
    )  # fmt: skip


def blocks(asked: Requests, order: Ints) -> list[tuple[int, ...]]:
    """Return the ids of blocks of 512 tokens of each prompt, numbered as they first appear.

    A full block is told by what it ends with; the last, which is filled in part, is nobody else's.
    """
    assert asked.prefix is not None
    known: dict[object, int] = {}
    found = []
    for n in order.tolist():
        full = asked.prompt[n] // 512
        ends: Sequence[int] = asked.prefix[n][7 : 8 * full : 8]
        keys: list[object] = [*ends, *([] if asked.prompt[n] % 512 == 0 else [(n, "rest")])]
        found.append(tuple(known.setdefault(key, len(known)) for key in keys))
    return found


def main() -> None:
    """Write the files beside this one."""
    folder = Path(__file__).parent
    (folder / "azure-like-conversation.csv").write_bytes(azure().encode())
    write_trace(mooncake(), folder / "mooncake-like-conversation.jsonl")


if __name__ == "__main__":
    main()

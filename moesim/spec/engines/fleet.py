"""Replicas, their router, and one side of a deployment whose prompts are computed apart.

A command line starts one side, prefill or decode; the other has its own. What the side comes to is
written as a pool to paste, and the scenario itself is of replicas that do both.
"""

import re

from moesim.spec.engines.facts import ModelFacts, object_of, say_else, switched
from moesim.spec.megatron.reading import Reading, yaml_value

_ROUTER = "serving.cluster.router"
_TIMEOUT, _WAIT = "attention-dp-config.timeout-iters", "attention-dp-config.batching-wait-iters"
_ENABLED = "attention-dp-config.enable-balance"
_METHODS = {"round_robin": "round_robin", "shortest_queue": "least_outstanding",
            "total_requests": "least_outstanding"}  # fmt: skip
_POLICIES = {"random": "random", "round_robin": "round_robin", "power_of_two": "power_of_two",
             "consistent_hashing": "session_affinity"}  # fmt: skip
_SIDES = {"prefill": "prefill", "context": "prefill", "kv_producer": "prefill",
          "decode": "decode", "generation": "decode", "kv_consumer": "decode"}  # fmt: skip
_ELSEWHERE = "prompts and decoding on different machines"
_ATTENTION = "enable-dp-attention"


def _ranks(reading: Reading) -> int:
    """Return the attention data parallel ranks."""
    found = reading.scenario.get("serving.parallel.dp")
    return 1 if found is None else int(found.value)


def read_vllm_fleet(reading: Reading, facts: ModelFacts) -> None:
    """Dense replicas of vLLM get requests by their load; a KV connector may make one side."""
    name = "data-parallel-size"
    if reading.count(name, 1) > 1 and _ranks(reading) == 1 and not reading.has(
        "data-parallel-external-lb", "data-parallel-hybrid-lb"
    ):  # fmt: skip
        why = "vLLM's coordinator: the fewest waiting and running; from memory, unchecked"
        reading.put(_ROUTER, "least_outstanding", name, why=why)
    transfer = "kv-transfer-config"
    config = object_of(reading, transfer)
    if not config:
        return
    role, connector = str(config.get("kv_role", "kv_both")), str(config.get("kv_connector", ""))
    if role not in ("kv_producer", "kv_consumer", "kv_both"):
        reading.wrong(transfer, "kv_role must be kv_producer, kv_consumer or kv_both, "
                      f"not '{role}'")  # fmt: skip
    elif role in _SIDES:
        _one_side(reading, facts, transfer, _SIDES[role])
    elif connector in ("NixlConnector", "P2pNcclConnector", "MooncakeConnector"):
        reading.say(transfer, f"not modelled: {_ELSEWHERE}; which side this is the proxy decides: "
                    "see serving.cluster.disaggregation")  # fmt: skip
    else:
        reading.say(transfer, "not modelled: a cache beside the devices' own")


def read_sglang_fleet(reading: Reading, facts: ModelFacts) -> None:
    """Which of the data parallel replicas a request goes to, and which side this is."""
    method = "load-balance-method"
    word = reading.word(method, "auto")
    copies = reading.count("dp-size", 1) if not reading.has(_ATTENTION) else 1
    if copies > 1 and word in _METHODS:
        reading.put(_ROUTER, _METHODS[word], method)
    elif word == "auto":
        reading.say(method, "no effect: SGLang's choice, round_robin here")
    else:
        what = "no effect: one replica" if copies == 1 else f"not modelled: {word}; round_robin"
        reading.say(method, what if _ranks(reading) == 1 else "not modelled: attention ranks take "
                    "requests in turn")  # fmt: skip
    _read_delay(reading)
    _read_router(reading)
    mode = "disaggregation-mode"
    side = _SIDES.get(reading.word(mode, "null", ("null", "prefill", "decode")))
    if side is None:
        reading.say(mode, "no effect: null, replicas do both")
    else:
        _one_side(reading, facts, mode, side)


def _read_router(reading: Reading) -> None:
    """sglang_router.launch_server: replicas behind a router of its own."""
    name = "router-policy"
    word = reading.word(name, "cache_aware")
    if word in _POLICIES:
        reading.put(_ROUTER, _POLICIES[word], name)
    else:
        reading.say(name, f"not modelled: {word}; see prefix_affinity and kv_aware of "
                    f"{_ROUTER}")  # fmt: skip


def _read_delay(reading: Reading) -> None:
    """SGLang's prefill delayer: prompts wait until all ranks have one, for so many passes.

    Default 30: from memory, unchecked.
    """
    name, passes = "enable-prefill-delayer", "prefill-delayer-max-delay-passes"
    if switched(reading, name) and _ranks(reading) > 1:
        reading.put("serving.engine.balance_steps", reading.count(passes, 30), name, passes)
    for one in (name, passes):
        say_else(reading, one, f"no effect without --{name} and attention data parallel ranks")


def read_trtllm_fleet(reading: Reading, facts: ModelFacts) -> None:
    """attention_dp_config and the side of a disaggregated server."""
    if switched(reading, _ENABLED) and _ranks(reading) > 1:
        steps = reading.count(_TIMEOUT, 50)
        if steps < 0:
            reading.wrong(_TIMEOUT, f"must be at least 0, not {steps}")
        else:
            reading.put("serving.engine.balance_steps", steps, _TIMEOUT, _ENABLED,
                        why="steps until prompts go without waiting for all ranks")  # fmt: skip
        if reading.count(_WAIT):
            reading.say(_WAIT, "not modelled: prompts would wait for more to fill the ranks")
    for name in (_ENABLED, _TIMEOUT, _WAIT):
        say_else(reading, name, "no effect without enable_attention_dp and enable_balance: true, "
                 "or at 0")  # fmt: skip
    role = "server-role"
    side = _SIDES.get(reading.word(role, "").lower())
    if side is not None:
        _one_side(reading, facts, role, side)


def side_of(command: str) -> str:
    """Return which side a command line is; empty for one that does both."""
    found = _SIDE.search(command)
    return "" if found is None else _SIDES[found[1].lower()]


_SIDE = re.compile(
    r"(?:--disaggregation[-_]mode[= ]|--server[-_]role[= ]|kv[-_]role\W+)"
    rf"({'|'.join(_SIDES)})\b", re.IGNORECASE,
)  # fmt: skip


def _one_side(reading: Reading, facts: ModelFacts, name: str, side: str) -> None:
    if facts.both_sides:
        reading.mapped.add(name)
        reading.say(name, f"serving.cluster.{side}")
        return
    reading.say(name, f"not modelled: this is the {side} side alone, {_ELSEWHERE}; the notes say "
                "how to put both sides together")  # fmt: skip
    other = "decode" if side == "prefill" else "prefill"
    reading.notes += [
        f"One side of a deployment: replicas here do both. For both sides import the {other} "
        "side's command",
        "too, put the pool that each import notes into one scenario's serving.cluster, and raise "
        "cluster.devices:",
        "  disaggregation: prefill_decode",
        *_pool(reading, side),
    ]


NOT_OF = {"prefill": ("balance_steps", "graphs", "graph_sizes", "speculative"),
          "decode": ("prefix_caching",)}  # fmt: skip
"""Keys of an engine that have no effect on one side."""


def _pool(reading: Reading, side: str) -> list[str]:
    """Return the keys of this side as a pool."""
    lines = [f"  {side}:"]
    name = {"vLLM": "vllm", "SGLang": "sglang"}.get(reading.program, "tensorrt-llm")
    for part in ("parallel", "engine"):
        start = f"serving.{part}."
        keys = {
            key.removeprefix(start): entry.value
            for key, entry in reading.scenario.items() if key.startswith(start)
        }  # fmt: skip
        keys = {key: value for key, value in keys.items()
                if key.partition(".")[0] not in NOT_OF[side]}  # fmt: skip
        if part == "engine":
            keys = {"name": name} | keys
        plain = {key: value for key, value in keys.items() if "." not in key}
        guesses = {key.partition(".")[2]: value for key, value in keys.items() if "." in key}
        said = [f"{key}: {yaml_value(value)}" for key, value in plain.items()]
        if guesses:
            inner = ", ".join(f"{key}: {yaml_value(value)}" for key, value in guesses.items())
            said.append(f"speculative: {{{inner}}}")
        lines.append(f"    {part}: {{{', '.join(said)}}}")
    return lines

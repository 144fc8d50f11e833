"""What all three engines have under other names: longest request, prefixes kept, CUDA graphs.

Rules from memory, unchecked: vllm/config/compilation.py, sglang/srt/server_args.py,
tensorrt_llm/llmapi/llm_args.py.
"""

from collections.abc import Sequence

from moesim.spec.engines.facts import object_of, say_else, switched, tokens
from moesim.spec.engines.graph_sizes import captured
from moesim.spec.megatron.reading import Reading

_ENGINE = "serving.engine"
GRAPHS, SIZES = f"{_ENGINE}.graphs", f"{_ENGINE}.graph_sizes"


def put_longest(reading: Reading, name: str) -> None:
    """Write the longest request, prompt and output together; longer ones are rejected."""
    longest = tokens(reading, name)
    if longest is not None:
        reading.put(f"{_ENGINE}.max_model_tokens", longest, name)
    say_else(reading, name, "the engine's choice: here only the cache sets a limit")


def put_caching(reading: Reading, name: str, *, on: bool) -> None:
    """Write whether prompts that begin alike share blocks; `on` is what the flag says when set."""
    said = switched(reading, name)
    if said is not None:
        reading.put(f"{_ENGINE}.prefix_caching", said == on, name)


def put_hidden_host(reading: Reading, name: str, *, on: bool) -> None:
    """Write whether the host prepares ahead; `on` is what the flag says when set."""
    said = switched(reading, name)
    if said is not None:
        reading.put(f"{_ENGINE}.async_scheduling", said == on, name)


def put_no_graphs(reading: Reading, name: str) -> bool:
    """Write that the host launches every kernel, where a flag says so; tell whether it does."""
    off = bool(switched(reading, name))
    if off:
        reading.put(GRAPHS, False, name)
    say_else(reading, name, "no effect: off, as by itself")
    return off


def put_largest(reading: Reading, name: str, engine: str, largest: int) -> None:
    """Write the sizes that an engine captures up to a largest one."""
    if largest < 1:
        reading.wrong(name, f"must be at least 1, not {largest}")
        return
    reading.put(SIZES, list(captured(engine, largest)), name, why=f"as captured up to {largest}")


def put_sizes(reading: Reading, name: str, sizes: Sequence[int]) -> None:
    """Write the sizes that are listed."""
    if not sizes or min(sizes) < 1:
        reading.wrong(name, "must be numbers of sequences of at least 1")
        return
    reading.put(SIZES, sorted(set(sizes)), name)


def whole_numbers(reading: Reading, name: str) -> list[int]:
    """Return the whole numbers that an argument lists, by spaces or commas, with or without [].

    Another text is a problem.
    """
    if not reading.has(name):
        return []
    text = " ".join(reading.given[name].values).strip("[]").replace(",", " ")
    try:
        return [int(one) for one in text.split()]
    except ValueError:
        reading.wrong(name, f"must be whole numbers such as 1 2 4 8, not '{text}'")
        return []


def read_vllm_graphs(reading: Reading) -> None:
    """Graphs of vLLM: --enforce-eager, sizes, and what --compilation-config says of both."""
    config = object_of(reading, "compilation-config") if _is_object(reading) else {}
    eager = put_no_graphs(reading, "enforce-eager") or _without(reading, config)
    given = [name for name in _VLLM_SIZES if reading.has(name)]
    if eager:
        for name in given:
            reading.say(name, "no effect: nothing is captured")
    else:
        _read_vllm_sizes(reading, config)
    say_else(reading, "optimization-level", "not modelled: which kernels are fused")
    say_else(reading, "compilation-config", "not modelled: which kernels are fused")


_VLLM_SIZES = ("cuda-graph-sizes", "cudagraph-capture-sizes", "max-cudagraph-capture-size")


def _is_object(reading: Reading) -> bool:
    """Tell whether --compilation-config is JSON; `-O 3` is a level."""
    if not reading.has("compilation-config"):
        return False
    return not reading.word("compilation-config", "").isdigit()


def _without(reading: Reading, config: dict[str, object]) -> bool:
    """Below level 3, vLLM's own compiler, nothing is captured unless a mode of graphs is given."""
    for name in ("optimization-level", "compilation-config"):
        if reading.has(name) and reading.word(name, "") == "0":
            reading.put(GRAPHS, False, name)
            return True
    level, mode = config.get("level", config.get("mode")), config.get("cudagraph_mode")
    if (isinstance(mode, str) and mode.upper() == "NONE") or (
        mode is None and level in (0, 1, 2, "NONE")
    ):
        reading.put(GRAPHS, False, "compilation-config")
        return True
    return False


def _read_vllm_sizes(reading: Reading, config: dict[str, object]) -> None:
    """One of --cuda-graph-sizes is the largest, several are the sizes."""
    old, new, most = _VLLM_SIZES
    whole = "compilation-config"
    inner, largest = config.get("cudagraph_capture_sizes"), config.get("max_cudagraph_capture_size")
    name = new if reading.has(new) else old if reading.has(old) else ""
    sizes = whole_numbers(reading, name) if name else []
    if inner is not None and not name:
        listed = inner if isinstance(inner, list) else [inner]
        name, sizes = whole, [one for one in listed if isinstance(one, int)]
        if len(sizes) < len(listed):
            reading.wrong(whole, "cudagraph_capture_sizes must be a list of whole numbers")
    limit = reading.count(most) if reading.has(most) else None
    if limit is None and isinstance(largest, int):
        limit, most = largest, whole
    if len(sizes) == 1 and name == old:
        put_largest(reading, name, "vllm", sizes[0])
    elif name:
        put_sizes(reading, name, sizes)
        if limit is not None and sizes and max(sizes) != limit:
            reading.wrong(most, f"must be the largest of the sizes captured, {max(sizes)}, "
                          f"not {limit}")  # fmt: skip
        reading.say(most, f"no effect: --{name} lists the sizes")
    elif limit is not None:
        put_largest(reading, most, "vllm", limit)


def read_sglang_graphs(reading: Reading) -> None:
    """Graphs of SGLang: listed sizes go before the largest one."""
    listed, largest = "cuda-graph-bs", "cuda-graph-max-bs"
    if put_no_graphs(reading, "disable-cuda-graph"):
        for name in (listed, largest):
            reading.say(name, "no effect: nothing is captured")
    elif reading.has(listed):
        put_sizes(reading, listed, whole_numbers(reading, listed))
        reading.say(largest, f"no effect: --{listed} lists the sizes")
    elif reading.has(largest):
        put_largest(reading, largest, "sglang", reading.count(largest))


def read_trtllm_graphs(reading: Reading) -> None:
    """Graphs of TensorRT-LLM; `cuda_graph_config: null` is without any."""
    whole = "cuda-graph-config"
    listed = _first(reading, f"{whole}.batch-sizes", "cuda-graph-batch-sizes")
    largest = _first(reading, f"{whole}.max-batch-size", "cuda-graph-max-batch-size")
    padding = _first(reading, f"{whole}.enable-padding", "cuda-graph-padding-enabled")
    if reading.has(whole) or switched(reading, "use-cuda-graph") is False:
        reading.put(GRAPHS, False, whole, "use-cuda-graph")
        for name in (listed, largest, padding):
            reading.say(name, "no effect: nothing is captured")
        return
    reading.say("use-cuda-graph", "as by itself")
    most = reading.count(largest) if reading.has(largest) else None
    if reading.has(listed):
        sizes = whole_numbers(reading, listed)
        put_sizes(reading, listed, sizes)
        if most is not None and sizes and max(sizes) != most:
            reading.wrong(largest, f"must be the largest of --{listed}, {max(sizes)}, not {most}")
        reading.say(largest, f"no effect: --{listed} lists the sizes")
    elif most is not None:
        put_largest(reading, largest, "tensorrt-llm", most)
    off = "not modelled: other numbers would run without a graph; here they are padded"
    reading.say(padding, off if switched(reading, padding) is False else "as here: padded")


def _first(reading: Reading, *names: str) -> str:
    return next((name for name in names if reading.has(name)), names[0])

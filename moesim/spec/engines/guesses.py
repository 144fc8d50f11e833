"""Speculative decoding in engines' arguments: who guesses how many tokens ahead.

How many guesses are accepted is a matter of the text, not of the command line: who imports says it.
Rules from memory, unchecked: vllm/config/speculative.py; sglang/srt/server_args.py, check of the
speculative arguments; tensorrt_llm/llmapi/llm_args.py, DecodingBaseConfig.
"""

from dataclasses import dataclass

from moesim.spec.engines.checkpoints import checkpoint
from moesim.spec.engines.facts import ModelFacts, object_of
from moesim.spec.megatron.reading import Reading

_KEY = "serving.engine.speculative"
_ARGUMENT_STARTS = ("speculative", "num-speculative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """What a command line says of guesses."""

    by: tuple[str, ...]
    """The arguments, the one that decides first."""
    tokens: int
    """Guesses per step."""
    mtp: bool = False
    """By the model's own module for multi-token prediction."""
    model: str = ""
    """By a small model, as the command line names it."""


def guesses_anything(reading: Reading) -> bool:
    """Tell whether an argument speaks of guesses."""
    return any(name.startswith(_ARGUMENT_STARTS) for name in reading.given)


def read_vllm_guesses(reading: Reading, facts: ModelFacts) -> None:
    """--speculative-config, or the arguments of the v0 engine."""
    whole, count, small = "speculative-config", "num-speculative-tokens", "speculative-model"
    config = object_of(reading, whole)
    by = tuple(name for name in (whole, count, small) if reading.has(name))
    if not by or (reading.has(whole) and not config):
        return
    inner = config.get("num_speculative_tokens")
    number = inner if isinstance(inner, int) else reading.count(count)
    model = str(config.get("model") or reading.word(small, ""))
    method = str(config.get("method") or ("ngram" if model == "[ngram]" else ""))
    if not method:
        method = "draft_model" if model else "mtp"
    mtp = method == "mtp" or method.endswith("_mtp")
    if number < 1 and mtp:
        number = facts.mtp_layers
    if number < 1:
        reading.wrong(by[0], "needs num_speculative_tokens of at least 1")
        return
    if not mtp and method != "draft_model":
        _leave(reading, by, f"guesses by {method}: only the model's own module (mtp) and small "
               "models (draft_model) guess here")  # fmt: skip
        return
    put_guesses(reading, facts, Guesses(by=by, tokens=number, mtp=mtp, model="" if mtp else model))


_SGLANG = ("speculative-algorithm", "speculative-num-steps", "speculative-eagle-topk",
           "speculative-num-draft-tokens", "speculative-draft-model-path")  # fmt: skip


def read_sglang_guesses(reading: Reading, facts: ModelFacts) -> None:
    """EAGLE and NEXTN without another's draft are the model's own module; STANDALONE is a model."""
    name, steps, width, checked, path = _SGLANG
    by = tuple(one for one in _SGLANG if reading.has(one))
    if not by:
        return
    if not reading.has(name):
        for one in by:
            reading.say(one, f"no effect without --{name}")
        return
    algorithm = reading.word(name, "EAGLE").upper()
    if not reading.has(steps) and reading.has(width, checked):
        reading.wrong(steps, f"must be given with --{width} and --{checked}, or none of the three")
        return
    model, own = reading.word(path, ""), facts.checkpoint.rpartition("/")[2]
    mtp = algorithm in ("EAGLE", "NEXTN") and (
        facts.mtp_layers > 0 and (not model or model.rpartition("/")[2] == own or "NextN" in model)
    )
    number = reading.count(steps, 3 if mtp else 5)
    if not reading.has(steps):
        reading.notes.append(f"{number} guesses per step: SGLang's choice, from memory, unchecked")
    if number < 1:
        reading.wrong(steps, f"must be at least 1, not {number}")
        return
    if algorithm != "STANDALONE" and not mtp:
        _leave(reading, by, f"guesses by {algorithm}: only the model's own module and small models "
               "(STANDALONE) guess here")  # fmt: skip
    elif reading.count(width, 1) > 1:
        _leave(reading, by, f"a tree of guesses (--{width} above 1): only a chain is modelled")
    elif put_guesses(reading, facts, Guesses(by=by, tokens=number, mtp=mtp,
                                             model="" if mtp else model)):  # fmt: skip
        _few_sequences(reading, name)


def _few_sequences(reading: Reading, name: str) -> None:
    key = "serving.engine.max_sequences"
    if key not in reading.scenario:
        reading.put(key, 48, name, why="SGLang's default beside guesses; from memory, unchecked")


def read_trtllm_guesses(reading: Reading, facts: ModelFacts) -> None:
    """`speculative_config` of the YAML: MTP, or a small model (DraftTarget)."""
    kind, *others = (f"speculative-config.{one}" for one in (
        "decoding-type", "num-nextn-predict-layers", "max-draft-len", "speculative-model",
        "speculative-model-dir",
    ))  # fmt: skip
    by = tuple(one for one in (kind, *others) if reading.has(one))
    if not by:
        return
    if not reading.has(kind):
        reading.wrong(by[0], "speculative_config needs decoding_type")
        return
    said = reading.word(kind, "MTP")
    counted = [one for one in others[:2] if reading.has(one)]
    if said not in ("MTP", "DraftTarget", "Draft_Target"):
        _leave(reading, by, f"guesses by {said}: only MTP and DraftTarget guess here")
        return
    number = reading.count(counted[0]) if counted else 1 if said == "MTP" else 0
    if number < 1:
        reading.wrong(counted[0] if counted else kind, "must guess at least 1 token: max_draft_len")
        return
    model = next((reading.word(one, "") for one in others[2:] if reading.has(one)), "")
    mtp = said == "MTP"
    put_guesses(reading, facts, Guesses(by=by, tokens=number, mtp=mtp, model="" if mtp else model))


def put_guesses(reading: Reading, facts: ModelFacts, found: Guesses) -> bool:
    """Write who guesses how many tokens; tell whether that is written."""
    small = checkpoint(found.model) if found.model else None
    ranks = reading.scenario.get("serving.parallel.dp")
    if found.mtp and not facts.mtp_layers:
        reading.wrong(found.by[0], "moesim's model has no module for multi-token prediction")
    elif not found.mtp and small is None:
        said = f"the draft model '{found.model}' is not known" if found.model else "no draft model"
        _leave(reading, found.by, f"{said}: plain decoding is taken")
    elif ranks is not None and ranks.value > 1:
        _leave(reading, found.by, "guesses on attention data parallel ranks: plain decoding is "
               "taken")  # fmt: skip
    elif facts.acceptance is None:
        reading.wrong(found.by[0], _ASK.format(count=found.tokens))
    elif not facts.acceptance:
        _leave(reading, found.by, "left out by --acceptance none: plain decoding is taken")
    else:
        _put(reading, facts, found, "" if small is None else small.model)
        return True
    return False


_ASK = (
    "how many guesses are accepted is not of a command line: give --acceptance SHARE (that a guess "
    "is accepted, given that those before it were), or {count} shares by place (0.8,0.6,...: the "
    "share of steps that accept it), or --acceptance none for plain decoding"
)


def _put(reading: Reading, facts: ModelFacts, found: Guesses, small: str) -> None:
    shares = facts.acceptance or ()
    reading.put(f"{_KEY}.draft_tokens", found.tokens, *found.by)
    reading.put(f"{_KEY}.acceptance", shares[0] if len(shares) == 1 else list(shares),
                why="--acceptance of the import, not of the command line")  # fmt: skip
    if found.mtp:
        reading.put(f"{_KEY}.mtp", True, *found.by)
    else:
        reading.put(f"{_KEY}.draft_model", small, *found.by)


def _leave(reading: Reading, by: tuple[str, ...], why: str) -> None:
    for name in by:
        reading.say(name, f"not modelled: {why}")

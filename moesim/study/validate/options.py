"""Reads the free words of a training case: precision, routing, recomputation, dispatcher, overlap.

What is understood becomes a key of a scenario; what is guessed or not modelled is said as an
assumption, so that nothing is passed over in silence.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from moesim.moe.natural import MANY_EXPERTS, natural_cv
from moesim.spec.cases import Case
from moesim.study.validate.maxtext import is_maxtext, remat
from moesim.study.validate.skipped import SkippedError


@dataclass(slots=True)
class Reading:
    """The keys of a scenario that a case's words came to, and what was assumed on the way."""

    training: dict[str, Any] = field(default_factory=dict)
    parallel: dict[str, Any] = field(default_factory=dict)
    routing: dict[str, Any] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    unstated: set[str] = field(default_factory=set)
    """Keys that the case says nothing of."""

    def assume(self, text: str) -> None:
        """Note what was assumed."""
        self.assumed.append(text)


_PRECISIONS = (("fp32", "fp32"), ("mxfp8", "fp8"), ("fp8", "fp8"), ("nvfp4", ""), ("mxfp4", ""),
               ("bf16", "bf16"), ("fp16", "fp16"))  # fmt: skip


def read_precision(case: Case, reading: Reading) -> None:
    """Read the type of the matrix products and the recipe of fp8."""
    text = case.text("precision").casefold()
    for word, precision in _PRECISIONS:
        if text.startswith(word):
            if not precision:
                raise SkippedError(f"training in {word} is not modelled")
            reading.training["precision"] = precision
            if precision == "fp8":
                reading.training["fp8_recipe"] = _recipe(case, text, reading)
            return
    raise SkippedError(f"precision '{text}' is not known" if text else "no precision is given")


_RECIPES = (("mxfp8", "mxfp8"), ("delayed", "delayed"), ("block", "blockwise"),
            ("current", "tensorwise"), ("tensorwise", "tensorwise"))  # fmt: skip
_HOPPER = ("h100", "h200", "h800", "h20", "gh200")


def _recipe(case: Case, text: str, reading: Reading) -> str:
    recipe = next((name for word, name in _RECIPES if word in text), None)
    if recipe is None:
        reading.assume("fp8 recipe not stated: current scaling")
        reading.unstated.add("fp8_recipe")
        return "tensorwise"
    if recipe == "mxfp8" and case.text("hardware").casefold().startswith(_HOPPER):
        reading.assume("mxfp8 on Hopper: taken as block scales of 128")
        return "blockwise"
    return recipe


_MODULES = {
    "norm": "layernorm", "layernorm": "layernorm", "act": "moe_act", "moe_act": "moe_act",
    "mla_up_proj": "mla_up_proj", "mlp": "mlp", "moe": "moe", "core_attn": "core_attn",
    "attention core": "core_attn", "shared_experts": "shared_experts",
    "shared_expert": "shared_experts",
}  # fmt: skip


def read_recompute(case: Case, reading: Reading) -> None:
    """Read what is computed again in the backward pass."""
    words = case.part("options").get("recompute")
    if words is None and is_maxtext(case):
        reading.training["recompute"], note = remat(case)
        reading.assume(note)
        return
    if isinstance(words, list):
        said = [str(word) for word in words]
        known = [_MODULES[word] for word in said if word in _MODULES]
        for word in said:
            if word not in _MODULES:
                reading.assume(f"recomputation of {word} is not modelled")
        reading.training["recompute"] = list(dict.fromkeys(known)) or "none"
        return
    text = "" if words is None else str(words).casefold()
    if text.startswith("full"):
        reading.training["recompute"] = "full"
    elif "core" in text or text.startswith("selective"):
        reading.training["recompute"] = ["core_attn"]
        if "core" not in text:
            reading.assume(f"recompute '{text}' taken as the attention core")
    elif text.startswith("none"):
        reading.training["recompute"] = "none"
    else:
        reading.training["recompute"] = "none"
        reading.assume(f"recompute '{text or 'not stated'}' taken as none")
        if text in ("", "unknown"):
            reading.unstated.add("recompute")


def read_dispatcher(case: Case, reading: Reading) -> None:
    """Read how tokens travel to their experts."""
    text = str(case.part("options").get("dispatcher", "")).casefold()
    if "deepep" in text or "hybridep" in text:
        reading.parallel["dispatcher"] = "deepep" if "deepep" in text else "hybridep"
    elif text.startswith("allgather"):
        reading.parallel["dispatcher"] = "allgather"
    else:
        reading.parallel["dispatcher"] = "alltoall"
        if text and not text.startswith(("alltoall", "n/a")):
            reading.assume(f"dispatcher '{text}' taken as alltoall")


def read_overlap(case: Case, reading: Reading) -> None:
    """Read what communication runs beside compute."""
    options = case.part("options")
    overlap: dict[str, Any] = {
        name: bool(options[f"overlap_{key}"])
        for name, key in (("grad_reduce", "grad_reduce"), ("param_gather", "param_gather"))
        if f"overlap_{key}" in options
    }
    if options.get("tp_comm_overlap") is True and (case.part("parallel").get("tp") or 1) > 1:
        overlap["tensor_parallel"] = options.get("sequence_parallel") is not False
    _read_exchange_overlap(case, overlap, reading)
    if options.get("gradient_bucket") is False:  # vTrain: one piece after the backward pass
        overlap.setdefault("grad_reduce", False)
    if overlap:
        reading.training["overlap"] = overlap


def _read_exchange_overlap(case: Case, overlap: dict[str, Any], reading: Reading) -> None:
    """Read what runs beside the exchange of tokens: Megatron-LM pairs passes with vpp, or pp 1."""
    options, cut = case.part("options"), case.part("parallel")
    if options.get("shared_expert_overlap") is True:
        overlap["expert_exchange"] = "shared_expert"
    if options.get("ep_overlap") in (None, False, "unknown"):
        return
    if cut.get("pp", 1) in (None, 1) or (cut.get("vpp") or 1) > 1:
        overlap["expert_exchange"] = "batch"
        if options.get("delay_wgrad") is True:
            overlap["delay_weight_gradients"] = True
    else:
        reading.assume("overlap of the expert exchange needs vpp above 1: taken as none")


def read_loss(case: Case, reading: Reading, *, fused: bool) -> None:
    """Read whether cross-entropy is one pass; `fused` is the trainer's habit."""
    said = case.part("options").get("cross_entropy_fusion")
    if said is None:
        said = fused
        if fused:
            reading.assume("cross-entropy not stated: taken as fused")
    elif said:
        reading.training["cross_entropy"] = "native"
        reading.assume("cross-entropy fusion: Megatron-LM's native one, its default")
    if not said:
        reading.training["cross_entropy"] = "unfused"


def read_graphs(case: Case, reading: Reading, *, compiled: bool) -> None:
    """Read what is launched at once; `compiled` trainers launch whole steps."""
    said = case.part("options").get("cuda_graph")
    text = "" if said is None else str(said).casefold()
    if compiled or "full" in text:
        reading.training["cuda_graph"] = "full"
    elif "attn" in text or "scoped" in text or text == "on":
        reading.training["cuda_graph"] = "attention_router"
        if "attn" not in text:
            reading.assume(f"cuda_graph '{text}' taken as graphs of attention and router")
    elif text and text != "none":
        reading.assume(f"cuda_graph '{text}' taken as none: router alone")


def read_routing(case: Case, reading: Reading, experts: int = MANY_EXPERTS[0]) -> None:
    """Read how evenly `experts` are loaded and whether they drop tokens."""
    options = case.part("options")
    text = str(options.get("routing", "")).casefold()
    factor = options.get("capacity_factor")
    if "natural" in text:
        cv = natural_cv(experts)
        reading.routing["load"] = {"law": "dirichlet", "cv": cv}
        reading.assume(f"natural routing: shares with a coefficient of variation of {cv:.2g}")
    elif "token drop" in text:
        reading.routing["load"] = {"law": "uniform"}
        reading.assume("token drop: tokens choose at random")
    elif text and not text.startswith(("forced", "n/a")):
        reading.assume(f"routing '{text}' taken as forced balance")
    elif not text and case.text("cls") == "moe":
        reading.assume("routing not stated: taken as forced balance")
    if factor is not None:
        if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
            raise SkippedError(f"capacity_factor '{factor}' is no factor above 0")
        reading.routing["capacity"] = {"factor": float(factor), "pad": True}
    elif "token drop" in text:
        raise SkippedError("tokens are dropped, but no capacity factor is given")


_READ = {
    "recompute",
    "activation_offload_layers",
    "fsdp",
    "dispatcher",
    "overlap_grad_reduce",
    "overlap_param_gather",
    "ep_overlap",
    "shared_expert_overlap",
    "delay_wgrad",
    "tp_comm_overlap",
    "routing",
    "capacity_factor",
    "pad_to_capacity",
    "pp_layout",
    "optimizer",
    "optimizer_cpu_offload_pct",
    "sequence_parallel",
    "schedule",
    "framework",
    "cross_entropy_fusion",
    "cuda_graph",
    "grouped_gemm",
    "permute_fusion",
    "router_fusion",
    "attention",
    "data",
    "task",
    "mp_mode",
    "zero",
    "gradient_bucket",
}


def read_rest(case: Case, reading: Reading) -> None:
    """Read the optimizer's place, and list the options that change nothing here."""
    options = case.part("options")
    share = options.get("optimizer_cpu_offload_pct")
    if share is not None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 100:
            raise SkippedError(f"optimizer_cpu_offload_pct '{share}' is no percentage")
        reading.training["optimizer"] = {"offload": share / 100}
    if "moments" in (words := str(options.get("optimizer", ""))):
        reading.training.setdefault("optimizer", {})["moment_dtype"] = "bf16"
        if "bf16" not in words:
            reading.assume(f"{words}: bf16")
    if isinstance(options.get("pp_layout"), str):
        reading.parallel["layout"] = options["pp_layout"]
    if options.get("sequence_parallel") is False:
        reading.parallel["sequence_parallel"] = False
    read = _READ | ({"activation_offload"} if is_maxtext(case) else set())
    unread = [name for name in options if name not in read]
    if unread:
        reading.assume(f"not modelled: {', '.join(_said(unread, options))}")


def _said(names: Iterable[str], options: Any) -> Iterable[str]:
    return (f"{name} = {options[name]}" for name in names)

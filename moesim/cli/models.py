"""`moesim models`: the catalogue of named models, or one of them in detail."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.cli.guard import AsJson, Debug, guard
from moesim.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from moesim.model.architecture import Architecture, Layer


def models(
    name: Annotated[
        str | None,
        typer.Argument(help="A model's name, config.json or YAML; left out, all are listed."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the named models, or show one in detail."""
    with guard(debug=debug):
        if name is None:
            _list(as_json=as_json)
        else:
            _show(name, as_json=as_json)


def _list(*, as_json: bool) -> None:
    from moesim.model.named import load_named, named_models

    rows = [{"name": name, **_summary(load_named(name))} for name in named_models()]
    if as_json:
        print_json(rows)
        return
    print_table(
        [
            {
                "name": row["name"],
                "total": _billions(row["total_params"]),
                "active": _billions(row["active_params"]),
                "layers": row["num_layers"],
                "experts": row["num_experts"] or "",
                "top-k": row["top_k"] or "",
            }
            for row in rows
        ],
        right=("total", "active", "layers", "experts", "top-k"),
    )


def _summary(architecture: "Architecture") -> dict[str, Any]:
    from moesim.model.architecture import MoeFfn
    from moesim.model.parameters import active_params, total_params

    runs = (*architecture.encoder, *architecture.decoder)
    moe = [run.layer.ffn for run in runs if isinstance(run.layer.ffn, MoeFfn)]
    return {
        "total_params": total_params(architecture),
        "active_params": active_params(architecture),
        "num_layers": architecture.num_layers,
        "num_experts": max((ffn.num_experts for ffn in moe), default=0),
        "top_k": max((ffn.top_k for ffn in moe), default=0),
    }


def _billions(params: int) -> str:
    from moesim.units import three_digits

    return f"{three_digits(params / 1e9)} B" if params >= 1e9 else f"{three_digits(params / 1e6)} M"


def _show(name: str, *, as_json: bool) -> None:
    from moesim.model.named import load_model

    architecture = load_model(name)
    parts, layers = _parts(architecture), list(_layers(architecture))
    if as_json:
        print_json(
            {
                "name": architecture.name,
                "source": architecture.source,
                **_summary(architecture),
                "hidden": architecture.hidden,
                "vocab": architecture.vocab,
                "weight_dtype": architecture.weight_dtype,
                "mtp_layers": architecture.mtp_layers,
                "layers": layers,
                "params": parts,
            }
        )
        return
    typer.echo(f"{architecture.name}: hidden {architecture.hidden}, vocab {architecture.vocab}")
    typer.echo(f"source: {' '.join(architecture.source.split())}\n")
    print_table(layers, right=("layers",))
    typer.echo("")
    rows = [{"part": part, "parameters": f"{count:,}"} for part, count in parts.items()]
    print_table(rows, right=("parameters",))


def _layers(architecture: "Architecture") -> Iterator[dict[str, Any]]:
    for stack, runs in (("encoder", architecture.encoder), ("decoder", architecture.decoder)):
        for run in runs:
            yield {
                "stack": stack,
                "layers": run.count,
                "attention": _attention(run.layer),
                "ffn": _ffn(run.layer),
            }


def _attention(layer: "Layer") -> str:
    from moesim.model.architecture import GroupedQueryAttention, LatentAttention

    attention = layer.attention
    if isinstance(attention, GroupedQueryAttention):
        window = f", window {attention.window}" if attention.window else ""
        return f"gqa {attention.heads}/{attention.kv_heads} x {attention.head_dim}{window}"
    if isinstance(attention, LatentAttention):
        return f"mla {attention.heads}, rank {attention.kv_lora_rank}"
    return f"linear {attention.key_heads}/{attention.value_heads} x {attention.value_head_dim}"


def _ffn(layer: "Layer") -> str:
    from moesim.model.architecture import DenseFfn

    ffn = layer.ffn
    if isinstance(ffn, DenseFfn):
        return f"dense {ffn.width}"
    beside = ffn.shared_width + ffn.parallel_dense_width
    every_token = f" + {beside} for every token" if beside else ""
    return f"{ffn.num_experts} experts x {ffn.expert_width}, top-{ffn.top_k}{every_token}"


def _parts(architecture: "Architecture") -> dict[str, int]:
    """Return the parameters by part; they sum to the total."""
    from moesim.model import parameters

    total, routed = (
        parameters.total_params(architecture),
        parameters.routed_expert_params(architecture),
    )
    runs = (*architecture.encoder, *architecture.decoder)
    hidden = architecture.hidden
    named = {
        "embeddings": parameters.embedding_params(architecture),
        "output projection": parameters.lm_head_params(architecture),
        "attention": sum(
            run.count * parameters.attention_params(one, hidden)
            for run in runs
            for one in (run.layer.attention, run.layer.cross_attention)
            if one is not None
        ),
        "routed experts": routed,
        "dense ffn, router, shared experts": sum(
            run.count * parameters.ffn_unrouted_params(run.layer.ffn, hidden) for run in runs
        ),
    }
    return {
        **named,
        "norms and others": total - sum(named.values()),
        "total": total,
        "active per token": parameters.active_params(architecture),
    }

"""`moesim hardware`: the accelerators and clusters that come with moesim, or one in detail."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.cli.guard import AsJson, Debug, guard
from moesim.cli.tables import print_json, print_table
from moesim.errors import Problem, ScenarioError, nearest

if TYPE_CHECKING:
    from moesim.hardware.figures import SourcedFigure
    from moesim.spec.hardware import AcceleratorSpec, ClusterSpec


def hardware(
    name: Annotated[
        str | None,
        typer.Argument(help="An accelerator or a cluster; left out, all are listed."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the known machines, or show one in detail.

    The detail has the source of every figure.
    """
    with guard(debug=debug):
        if name is None:
            _list(as_json=as_json)
        else:
            _show(name, as_json=as_json)


def _list(*, as_json: bool) -> None:
    from moesim.hardware import profiles

    accelerators = [profiles.load_accelerator(name) for name in profiles.accelerator_names()]
    clusters = [profiles.load_cluster(name) for name in profiles.cluster_names()]
    if as_json:
        print_json(
            {
                "accelerators": [_accelerator(spec) for spec in accelerators],
                "clusters": [_cluster(spec) for spec in clusters],
            }
        )
        return
    print_table(
        [_accelerator_row(spec) for spec in accelerators],
        right=("bf16", "memory", "bandwidth"),
    )
    typer.echo("")
    print_table(
        [_cluster_row(spec) for spec in clusters],
        right=("node", "domain", "scale-up", "scale-out"),
    )


def _accelerator(spec: "AcceleratorSpec") -> dict[str, Any]:
    from moesim.hardware.device import device

    return {
        "name": spec.name,
        "description": spec.description,
        "peak_flop_per_s": dict(device(spec).peak_flop_per_s),
        "memory_capacity_bytes": spec.memory.capacity.value,
        "memory_bandwidth_bytes_per_s": spec.memory.bandwidth.value,
    }


def _cluster(spec: "ClusterSpec") -> dict[str, Any]:
    out, node = spec.scale_out, spec.devices_per_node.value
    share = out.nic_bandwidth.value * out.nics_per_node.value / node if out else None
    return {
        "name": spec.name,
        "description": spec.description,
        "accelerator": spec.accelerator,
        "devices_per_node": node,
        "scale_up_domain": spec.scale_up.domain.value,
        "scale_up_bandwidth_bytes_per_s": spec.scale_up.bandwidth.value,
        "scale_out_bandwidth_bytes_per_s": share,
    }


def _accelerator_row(spec: "AcceleratorSpec") -> dict[str, object]:
    facts = _accelerator(spec)
    peak = facts["peak_flop_per_s"].get("bf16")
    return {
        "accelerator": spec.name,
        "bf16": _text(peak, "flop_per_s"),
        "memory": _gib(spec.memory.capacity.value),
        "bandwidth": _text(spec.memory.bandwidth.value, "bytes_per_s"),
        "description": spec.description,
    }


def _cluster_row(spec: "ClusterSpec") -> dict[str, object]:
    facts = _cluster(spec)
    return {
        "cluster": spec.name,
        "accelerator": spec.accelerator,
        "node": facts["devices_per_node"],
        "domain": facts["scale_up_domain"],
        "scale-up": _text(facts["scale_up_bandwidth_bytes_per_s"], "bytes_per_s"),
        "scale-out": _text(facts["scale_out_bandwidth_bytes_per_s"], "bytes_per_s"),
        "description": spec.description,
    }


def _text(value: float | None, dimension: str) -> str:
    from moesim.units import readable

    return "-" if value is None else readable(value, dimension)


def _gib(value: float) -> str:
    from moesim.units import three_digits

    return f"{three_digits(value / 2**30)} GiB"


def _show(name: str, *, as_json: bool) -> None:
    description, figures = _figures(name)
    if as_json:
        rows = [asdict(figure) for figure in figures]
        print_json({"name": name, "description": description, "figures": rows})
        return
    typer.echo(f"{name}: {description}\n")
    print_table(
        [
            {
                "figure": f"{figure.subject.split()[0]} {figure.name}",
                "value": figure.text,
                "kind": figure.kind,
                "source": figure.source + (f" ({figure.note})" if figure.note else ""),
            }
            for figure in figures
        ]
    )


def _figures(name: str) -> "tuple[str, tuple[SourcedFigure, ...]]":
    """Return the description and the figures of a profile, be it a cluster or an accelerator."""
    from moesim.hardware import profiles
    from moesim.hardware.device import device
    from moesim.hardware.topology import cluster

    if name in profiles.cluster_names():
        spec, accelerator = profiles.load_machines(name)
        return spec.description, cluster(spec, accelerator, spec.devices_per_node.value).figures
    if name in profiles.accelerator_names():
        one = device(profiles.load_accelerator(name))
        return one.description, one.figures
    known = [*profiles.accelerator_names(), *profiles.cluster_names()]
    message = f"unknown hardware '{name}'.{nearest(name, known)} See `moesim hardware`."
    raise ScenarioError([Problem("", message)])

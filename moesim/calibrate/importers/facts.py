"""What the files of other tools do not say, or say wrongly, and their user knows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from moesim.calibrate.table_fit import accelerator_name
from moesim.errors import CalibrationError, nearest
from moesim.hardware.profiles import accelerator_names

SHAPE = ("tokens_per_rank", "hidden_size", "top_k", "num_experts", "max_nodes_per_token")
"""Columns of an exchange that a log may leave unsaid."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_NETWORK = re.compile(r"none\b.*|.*\d+\s*x\s*\d+\s*Gb.*")
_MOST_CHARACTERS = 100
_ONE_DOMAIN = re.compile(r"nvl72|nvlink5_72", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was measured on; None where the file shall say it."""

    hardware: str
    library: str | None = None
    library_version: str | None = None
    num_gpus: int | None = None
    num_nodes: int | None = None
    network: str | None = None
    """Such as "8x400 Gb/s per node"; "none" where nothing leaves the NVLink domain."""
    interconnect: str = "unknown"
    """Such as nvlink, pcie; nvlink_nvl72 where a domain spans nodes."""
    shape: Mapping[str, int] = field(default_factory=dict)
    """Columns out of SHAPE that the file leaves unsaid; they overrule what it says."""


@dataclass(frozen=True, slots=True)
class Machines:
    """The devices that took part, as the tables have them."""

    num_gpus: int
    num_nodes: int
    network: str

    @property
    def gpus_per_node(self) -> int:
        """Devices of one node."""
        return self.num_gpus // self.num_nodes


def checked(facts: Facts) -> Facts:
    """Return `facts` with the hardware under one name; CalibrationError where one is impossible."""
    _check_words(facts)
    for name, number in (("num_gpus", facts.num_gpus), ("num_nodes", facts.num_nodes)):
        if number is not None and number < 1:
            raise CalibrationError(f"{name} is {number}: at least 1")
    for name, number in facts.shape.items():
        if name not in SHAPE:
            raise CalibrationError(f"no column {name!r}: {', '.join(SHAPE)}.{nearest(name, SHAPE)}")
        if number < 1:
            raise CalibrationError(f"{name} is {number}: at least 1")
    return replace(facts, hardware=hardware_key(facts.hardware))


def hardware_key(text: str) -> str:
    """Return the key of a device in the tables: h100_sxm for h100-sxm, h200 for h200_sxm too."""
    found = accelerator_name(text.replace("-", "_"))
    if found is None:
        names = accelerator_names()
        hint = nearest(text.lower().replace("_", "-"), names)
        raise CalibrationError(f"no accelerator {text!r}: one of {', '.join(names)}.{hint}")
    return found.replace("-", "_")


def _check_words(facts: Facts) -> None:
    words = {"library": facts.library, "interconnect": facts.interconnect}
    for name, word in words.items():
        if word is not None and not _PLAIN.fullmatch(word):
            raise CalibrationError(f"{name} {word!r}: letters, digits and . _ + - only")
    version, network = facts.library_version, facts.network
    for name, word in (("library_version", version), ("network", network)):
        if word is not None and not (word.isprintable() and 0 < len(word) <= _MOST_CHARACTERS):
            raise CalibrationError(f"{name}: 1 to {_MOST_CHARACTERS} printable characters")
    if network is not None and not _NETWORK.fullmatch(network):
        raise CalibrationError(
            f"network {network!r}: the cards of a node and their rate, such as '8x400 Gb/s per "
            "node', or none"
        )


def machines(facts: Facts, num_gpus: int, num_nodes: int, origin: str) -> Machines:
    """Return the devices of a run; CalibrationError where they do not fit together.

    Between nodes the network must be known: a fit would assume one.
    """
    if num_nodes < 1 or num_gpus % num_nodes:
        raise CalibrationError(
            f"{origin}: {num_gpus} GPUs do not divide over {num_nodes} nodes: --num-gpus, "
            "--num-nodes"
        )
    network = facts.network
    if network is None and num_nodes > 1:
        if not _ONE_DOMAIN.search(facts.interconnect):
            raise CalibrationError(
                f"{origin}: {num_nodes} nodes: say what is between them, --network '8x400 Gb/s per "
                "node', or --interconnect nvlink_nvl72 --network none for one NVLink domain"
            )
        network = "none (NVLink domain of 72)"
    return Machines(num_gpus, num_nodes, network or "none")

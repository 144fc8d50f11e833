"""The order in which ranks are numbered, as data: which neighbours a parallel group finds.

An order such as tp-cp-ep-dp-pp names the dimensions from the fastest to the slowest. Attention and
dense layers have no ep, experts no cp: the stride of a dimension is the product of the sizes before
it, dense layers counting tp, cp, dp, pp and experts etp, ep, edp, pp ("parallel folding").
Source: Megatron-LM, core/parallel_state.py, RankGenerator; --use-tp-pp-dp-mapping is tp-cp-ep-pp-dp
(from memory, unchecked).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from moesim.hardware.groups import Group

DEFAULT_ORDER = "tp-cp-ep-dp-pp"
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "tp": ("tp",), "cp": ("cp",), "dp": ("dp",), "dp_cp": ("cp", "dp"), "pp": ("pp",),
}  # fmt: skip
_EXPERT_GROUPS: Mapping[str, tuple[str, ...]] = {
    "etp": ("tp",), "ep": ("ep",), "etp_ep": ("tp", "ep"), "edp": ("dp",),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """The sizes of a parallel layout; edp follows from tp * cp * dp = etp * ep * edp."""

    tp: int = 1
    cp: int = 1
    dp: int = 1
    pp: int = 1
    ep: int = 1
    etp: int = 1

    @property
    def dense(self) -> dict[str, int]:
        """Sizes of the dimensions as attention and dense layers see them."""
        return {"tp": self.tp, "cp": self.cp, "ep": 1, "dp": self.dp, "pp": self.pp}

    @property
    def experts(self) -> dict[str, int]:
        """Sizes of the dimensions as experts see them.

        Raises ValueError where the expert sizes do not divide the stage.
        """
        stage, each = self.tp * self.cp * self.dp, self.etp * self.ep
        if stage % each:
            raise ValueError(
                f"tp * cp * dp = {stage} ranks of a stage are no multiple of etp * ep = {each}"
            )
        return {"tp": self.etp, "cp": 1, "ep": self.ep, "dp": stage // each, "pp": self.pp}


def strides(sizes: Mapping[str, int], order: str = DEFAULT_ORDER) -> dict[str, int]:
    """Return how far apart neighbours of each dimension are: the product of the sizes before it."""
    names = order.split("-")
    return {name: prod(sizes[one] for one in names[:i]) for i, name in enumerate(names)}


def parallel_groups(degrees: Degrees, order: str = DEFAULT_ORDER) -> dict[str, Group]:
    """Return the rank groups of a layout by name, ranks numbered by `order`.

    dp_cp is the group over which the gradients of dense weights are reduced, etp_ep the one that a
    token may be sent to.
    """
    found = {}
    for sizes, named in ((degrees.dense, _GROUPS), (degrees.experts, _EXPERT_GROUPS)):
        apart = strides(sizes, order)
        for name, parts in named.items():
            found[name] = joined(*((sizes[part], apart[part]) for part in parts))
    return found


def joined(*axes: tuple[int, int]) -> Group:
    """Return the group over one or two dimensions, each (size, stride)."""
    inner, *rest = sorted((axis for axis in axes if axis[0] > 1), key=lambda axis: axis[1]) or [
        min(axes, key=lambda axis: axis[1])
    ]
    size, stride = inner
    if not rest:
        return Group(size, stride)
    (outer, apart) = rest[0]
    if apart == size * stride:
        return Group(size * outer, stride)
    return Group(size * outer, stride, run=size, apart=apart)

"""What the names of pipeline schedules have in common."""

from typing import Literal

Schedule = Literal["1f1b", "gpipe", "zb_h1", "zb_h2", "zb_v", "dualpipe", "dualpipe_v"]

SPLIT = frozenset({"zb_h1", "zb_h2", "zb_v", "dualpipe", "dualpipe_v"})
"""Schedules that run weight gradients apart from the gradients that other stages wait for."""

FOLDED = frozenset({"zb_v", "dualpipe_v"})
"""Schedules whose two chunks per stage lie in a V: both ends of the network on the first stage."""

PAIRED = frozenset({"dualpipe", "dualpipe_v"})
"""Schedules that run a forward and a backward pass of two micro-batches as one."""

UNPAIRED = frozenset({"gpipe"}) | (SPLIT - PAIRED)
"""Schedules in which no forward pass can run as one with a backward pass."""

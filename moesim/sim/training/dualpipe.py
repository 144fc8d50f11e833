"""DualPipe: micro-batches enter a pipeline from both ends and pass each other in pairs."""

from dataclasses import dataclass, field

from moesim.sim.training.schedules import Action, Order, Pair


def dualpipe(stage: int, stages: int, micro_batches: int, chunks: int = 1) -> Order:
    """Return DualPipe: chunk 0 is the stage's own, chunk 1 that of the stage opposite.

    Half of the micro-batches take either way; a forward pass of one runs with a backward pass of
    the other. Bubble (p/2 - 1)(F&B + B - 3W) around as much of a chunk's own work; needs even p and
    an even number of micro-batches, 2 p at least. Source: DeepSeek-V3 technical report, arXiv
    2412.19437, section 3.2.1 and table 2; deepseek-ai/DualPipe, dualpipe/dualpipe.py, step.
    """
    del chunks
    half, near = stages // 2, min(stage, stages - 1 - stage)
    run = _Writer(stage >= half, micro_batches // 2)
    return _order(run, near, half, micro_batches // 2)


def dualpipe_v(stage: int, stages: int, micro_batches: int, chunks: int = 2) -> Order:
    """Return DualPipeV: DualPipe's one half, its 2 p chunks folded over p stages in a V.

    Chunk 0 of stage s is number s of the network, chunk 1 number 2 p - 1 - s. Bubble
    (p - 1)(F&B + B - 3W); needs 2 p micro-batches at least. Source: deepseek-ai/DualPipe, README.md
    and dualpipe/dualpipev.py, step.
    """
    del chunks
    return _order(_Writer(False, 0), stage, stages, micro_batches)


def _order(run: "_Writer", near: int, half: int, per_way: int) -> Order:
    """Return what the stage `near` to its end does, of `half` stages to the turning point."""
    outer = half - near - 1
    for _ in range(outer * 2):
        run.forward(0)
    for _ in range(near + 1):
        run.forward(0)
        run.forward(1)
    for _ in range(outer):
        run.backward(1, apart=True)
        run.weights()
        run.forward(1)
    _middle(run, outer == 0, per_way - 2 * half + near + 1)
    for _ in range(outer):
        run.backward(1)
        run.pair(1, 0)
    _end(run, near, outer)
    return tuple(run.order)


@dataclass(slots=True)
class _Writer:
    """Writes down a stage's passes; way 0 is the one that starts nearer to it."""

    flipped: bool
    per_way: int
    order: list[Action | Pair] = field(default_factory=list)
    done: dict[tuple[str, int], int] = field(default_factory=dict)
    late: list[Action] = field(default_factory=list)

    def forward(self, way: int) -> None:
        self.order.append(self._next("F", way))

    def backward(self, way: int, *, apart: bool = False) -> None:
        """Append a backward pass; `apart`: its weight gradients come later."""
        one = self._next("B", way)
        if apart:
            self.late.append(Action("W", one.micro_batch, one.chunk))
            one = Action("I", one.micro_batch, one.chunk)
        self.order.append(one)

    def weights(self) -> None:
        self.order.append(self.late.pop(0))

    def pair(self, forward: int, backward: int) -> None:
        self.order.append(Pair(self._next("F", forward), self._next("B", backward)))

    def _next(self, kind: str, way: int) -> Action:
        number = self.done.get((kind, way), 0)
        self.done[kind, way] = number + 1
        chunk = way ^ self.flipped
        return Action("F" if kind == "F" else "B", number + chunk * self.per_way, chunk)


def _middle(run: _Writer, innermost: bool, times: int) -> None:
    """Two pairs in turn; the innermost stages take the first two passes one after the other."""
    for number in range(times):
        if number == 0 and innermost:
            run.forward(0)
            run.backward(1)
        else:
            run.pair(0, 1)
        run.pair(1, 0)


def _end(run: _Writer, near: int, outer: int) -> None:
    """Only backward passes are left: from half of them on weight gradients fill the gaps."""
    apart = False
    for number in range(near + 1):
        middle = number == (near + 1) // 2
        apart = apart or (middle and near % 2 == 1)
        run.backward(1, apart=apart)
        apart = apart or (middle and near % 2 == 0)
        run.backward(0, apart=apart)
    for _ in range(outer):
        run.weights()
        run.backward(0, apart=True)
    while run.late:
        run.weights()

"""Several ranks measured at once: processes of torch.distributed on this machine.

Operators run on all ranks at the same time, since they share memory and power in a real step too;
a collective is timed with the same number of turns on every rank. Gloo on CPUs, NCCL (or RCCL) on
GPUs.
"""

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from moesim.calibrate.bench import Batch, Effort, Timing, timing
from moesim.calibrate.clock import lap, mark
from moesim.calibrate.device import Target, synchronise, torch_dtype, torch_module
from moesim.calibrate.meter import LocalMeter
from moesim.calibrate.suite import Case, case
from moesim.errors import CalibrationError

_START_S = 120.0
_ANSWER_S = 600.0


class Ranks:
    """The processes of a group, asked one thing at a time; all do it together."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.in_one_call = False
        self._folder = tempfile.TemporaryDirectory(prefix="moesim-ranks-")
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        meeting = str(Path(self._folder.name) / "meeting")
        for rank in range(target.processes):
            here, there = context.Pipe()
            process = context.Process(
                target=_work, args=(target, rank, meeting, there), daemon=True
            )
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self) -> "Ranks":
        try:
            answers = self._answers(_START_S)
        except BaseException:
            self.close()
            raise
        self.in_one_call = all(answers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(10)
        for pipe in self._pipes:
            pipe.close()
        self._folder.cleanup()

    def measure(self, case: Case, effort: Effort) -> Timing:
        """Return how long a case takes when all ranks do it: the mean, or the slowest to end."""
        taken = self.ask(_measure, case, effort)
        join = np.max if case.operator == "collective" else np.mean
        return Timing(
            seconds=float(join([one.seconds for one in taken])),
            host_s=float(join([one.host_s for one in taken])),
            spread=float(np.median([one.spread for one in taken])),
            repeats=min(one.repeats for one in taken),
            disturbed=max(one.disturbed for one in taken),
        )

    def ask(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what `function(meter, *arguments)` gives on each rank."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        return self._answers(_ANSWER_S)

    def _answers(self, patience_s: float) -> list[Any]:
        found = []
        end = time.perf_counter() + patience_s
        for rank, pipe in enumerate(self._pipes):
            while not pipe.poll(0.2):
                if not self._processes[rank].is_alive():
                    raise CalibrationError(f"process {rank} of the group ended unexpectedly")
                if time.perf_counter() > end:
                    raise CalibrationError(f"process {rank} of the group does not answer")
            try:
                answer = pipe.recv()
            except EOFError:
                raise CalibrationError(f"process {rank} of the group ended unexpectedly") from None
            if isinstance(answer, CalibrationError):
                raise answer
            found.append(answer)
        return found


def _work(target: Target, rank: int, meeting: str, pipe: Connection) -> None:
    """Be a rank: join the group, then do what is asked until the process is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    try:
        torch = torch_module()
        meter = LocalMeter(target, rank)
        torch.distributed.init_process_group(
            "nccl" if target.kind == "cuda" else "gloo", init_method=f"file://{meeting}",
            rank=rank, world_size=target.processes,
        )  # fmt: skip
        pipe.send(meter.in_one_call)
        while True:
            function, arguments = pipe.recv()
            pipe.send(function(meter, *arguments))
    except (EOFError, BrokenPipeError):
        return
    except CalibrationError as error:
        pipe.send(error)
    except Exception as error:  # what torch raises differs between its backends
        pipe.send(CalibrationError(f"process {rank} of the group: {type(error).__name__}: {error}"))


def _measure(meter: LocalMeter, one: Case, effort: Effort) -> Timing:
    if one.operator != "collective":
        torch_module().distributed.barrier()
        return meter.measure(one, effort)
    return time_together(_collective(one, meter.target), meter.target, effort)


def time_together(call: Callable[[], object], target: Target, effort: Effort) -> Timing:
    """Return the time of what ranks do together: all take the same number of turns."""
    torch = torch_module()
    for _ in range(3):
        call()
    synchronise(target)
    begin = time.perf_counter()
    call()
    synchronise(target)
    (once,) = agreed_s([time.perf_counter() - begin], target)
    inner = int(min(200, max(1, effort.batch_s // once)))
    turns = int(min(effort.most, max(effort.least, effort.limit_s // (once * inner))))
    laps = []
    for _ in range(turns):
        torch.distributed.barrier()
        synchronise(target)
        start = mark(target.computing_threads)
        for _ in range(inner):
            call()
        synchronise(target)
        laps.append(lap(start))
    delayed = agreed_s([one.delayed_s for one in laps], target)
    together = [replace(one, delayed_s=d) for one, d in zip(laps, delayed, strict=True)]
    batches = [
        Batch(one.seconds / inner, one.seconds / inner, one.delayed_share) for one in together
    ]
    return timing(batches, target)


def agreed_s(seconds: list[float], target: Target) -> list[float]:
    """Return the longest of what the ranks measured, for each of some times."""
    torch = torch_module()
    device = "cuda" if target.kind == "cuda" else "cpu"
    most = torch.tensor(seconds, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
    return [max(value, 1e-9) for value in most.tolist()]


def _collective(one: Case, target: Target) -> Callable[[], object]:
    torch = torch_module()
    ranks = target.processes
    count = max(ranks, one.sizes["payload"] // torch_dtype(one.dtype).itemsize // ranks * ranks)
    whole = torch.randn(count, device=target.kind).to(torch_dtype(one.dtype))
    part = whole[: count // ranks].clone()
    group = torch.distributed
    gather = getattr(group, "all_gather_single", None) or group.all_gather_into_tensor
    scatter = getattr(group, "reduce_scatter_single", None) or group.reduce_scatter_tensor
    if one.variant == "all_to_all":
        return _all_to_all(whole, one, target)
    calls: Mapping[str, Callable[[], object]] = {
        "all_reduce": lambda: group.all_reduce(whole),
        "all_gather": lambda: gather(whole, part),
        "reduce_scatter": lambda: scatter(part, whole),
    }
    return calls[one.variant]


def _all_to_all(whole: Any, one: Case, target: Target) -> Callable[[], object]:
    """Every rank sends the same shares: rank 0 receives `skew` times the mean, the others less."""
    torch = torch_module()
    ranks, count = target.processes, len(whole)
    first = min(count, int(count / ranks * dict(one.shape)["skew"]))
    sends = [first] + [(count - first) // (ranks - 1)] * (ranks - 1)
    sends[-1] += count - sum(sends)
    mine = sends[torch.distributed.get_rank()]
    out = whole.new_empty(mine * ranks)
    return lambda: torch.distributed.all_to_all_single(out, whole, [mine] * ranks, sends)


_PAYLOADS = (2**8, 2**12, 2**16, 2**18, 2**20, 2**22, 2**24)


def collective_grid(target: Target) -> list[Case]:
    """Return the collectives to measure between the ranks of `target`."""
    main, ranks = target.dtypes[0], target.processes
    found = [
        case("collective", variant, main, ranks=ranks, payload=payload, skew=1.0)
        for variant in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
        for payload in _PAYLOADS
    ]
    uneven = [
        case("collective", "all_to_all", main, ranks=ranks, payload=payload, skew=1.5)
        for payload in _PAYLOADS[1::2]
    ]
    return found + uneven

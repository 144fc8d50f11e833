"""One replica of an engine: which requests an iteration takes, and how far decoding can skip.

Between two changes of the batch all iterations are alike but for the growth of the cache, so they
are taken at once; what ends when is the same as iteration by iteration (law 11).
"""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

from moesim.cost.iteration import IterationTimes, steps_ps, steps_until
from moesim.sim.serving.batching import BATCHING
from moesim.sim.serving.cache import Blocks
from moesim.sim.serving.log import Log, packed
from moesim.sim.serving.pace import Pace
from moesim.sim.serving.prefix import PrefixCache, prefix_cache
from moesim.sim.serving.requests import NEVER, Requests
from moesim.sim.serving.rules import EngineRules, limits


@dataclass(slots=True)
class Decoding:
    """A request that decodes: what it holds of the cache follows from the number of the step."""

    request: int
    begun: int
    """The step in which it decodes first."""
    cached: int
    """Its tokens in the cache then."""
    end: int
    """The step after its last."""
    evicted: bool = False

    def __lt__(self, other: "Decoding") -> bool:
        """Order entries of the heap that are alike but for this: the evicted one first."""
        return self.evicted and not other.evicted


@dataclass(slots=True)
class Plan:
    """What the engine does next: an iteration with chunks of prompts, or steps of decoding."""

    chunks: list[tuple[int, int, int]]
    """Requests, how many tokens of their prompts, and after how many."""
    decodes: bool
    steps: int
    ends: int
    """When that has ended, if nothing comes in between."""


@dataclass(slots=True, eq=False)
class Replica:
    """An engine with its queue, its batch and its cache; time moves on when asked to."""

    rules: EngineRules
    times: IterationTimes
    asked: Requests
    one_by_one: bool = False
    """Take every step on its own, to check that skipping changes nothing."""
    log: Log | None = field(init=False, default=None)
    """Where iterations are noted; None: nowhere."""
    now: int = 0
    """Start of the next iteration; nothing is under way before it."""
    step: int = 0
    """Tokens of a sequence that decoded all the time: decoding steps, but for guessed tokens."""
    pace: Pace | None = field(init=False, default=None)
    """How many tokens a step yields where guesses are checked; None: one."""
    turn: int = 0
    """Decoding steps so far, where guesses are checked."""
    blocks: Blocks = field(init=False)
    prefix: PrefixCache | None = field(init=False, default=None)
    """What is kept of earlier prompts; None where nothing is shared."""
    queue: deque[int] = field(default_factory=deque)
    computed: dict[int, int] = field(default_factory=dict)
    """Tokens computed of each prompt that is under way, in the order of their places."""
    put_out: dict[int, int] = field(default_factory=dict)
    """Tokens that an evicted request had put out: they are computed again with its prompt."""
    running: dict[int, Decoding] = field(default_factory=dict)
    """Who decodes, in the order of their places."""
    cached: int = 0
    """Tokens in the cache of those who decode."""
    ends: list[tuple[int, int, int, Decoding]] = field(default_factory=list)
    """Heap of the last steps, by request and how often it had lost its place."""
    finished: list[int] = field(default_factory=list)
    """Requests that finished, for whoever empties it."""
    ended: int = 0
    """Requests that finished when any did last."""
    ended_at: int = NEVER
    rejected: list[int] = field(default_factory=list)
    """Requests that could never be served here."""
    begun: list[int] | None = None
    """Where requests are noted as they put out a first token; None: nobody asks."""
    plan: Plan | None = None
    limit: int = field(init=False)
    """Tokens that a request may come to hold at most."""
    longest: int = field(init=False)
    """Tokens of a prompt at most."""

    def __post_init__(self) -> None:
        rules, asked = self.rules, self.asked
        self.blocks = Blocks(rules.block_tokens, rules.blocks)
        self.limit, self.longest = limits(rules)
        if asked.logs is not None:
            seen = asked.logs
            self.log = seen[0].beside(self.times) if seen else Log(self.times)
            self.log.blocks = rules.blocks
            seen.append(self.log)
        if rules.prefix_caching and asked.prefix is not None:
            self.prefix = prefix_cache(
                asked.prefix, asked.prefix_block, rules.block_tokens, rules.blocks
            )
        if rules.tokens_per_step != (1, 1):
            self.pace = Pace(*rules.tokens_per_step)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.running or self.queue or self.computed)

    @property
    def growth(self) -> int:
        """Blocks that the next decode step takes."""
        return self.blocks.growth(self.step, self._tokens(1))

    def _tokens(self, steps: int) -> int:
        """Return the tokens that so many steps yield each sequence from now on."""
        if self.pace is None:
            return steps
        return self.pace.tokens(self.turn + steps) - self.step

    def submit(self, request: int, at: int, put_out: int = 0) -> bool:
        """Queue a request at a time up to which the replica was advanced; False: it never fits.

        `put_out` are the tokens that it had put out elsewhere; they are computed again.
        """
        if not self.fits(request):
            self.rejected.append(request)
            return False
        if not self.running and self.is_idle:
            self.now = max(self.now, at)
        if put_out:
            self.put_out[request] = put_out
        self.queue.append(request)
        self.plan = None
        return True

    def fits(self, request: int) -> bool:
        """Tell whether a request could ever be served."""
        prompt = self.asked.prompt[request]
        return prompt <= self.longest and prompt + self.asked.allowed[request] <= self.limit

    def placed(self, at: int) -> int:
        """Return the requests with a place in the batch; an iteration in progress has not ended."""
        ended = self.ended if self.ended_at > at else 0
        return len(self.running) + len(self.computed) + ended

    def touch(self, at: int) -> None:
        """Advance to a time at which something from outside changes what may be planned."""
        if self.now < at:
            self.advance(at)
            self.now = max(self.now, at)
        self.plan = None

    def next_change(self) -> int | None:
        """Return when something ends next if nothing is submitted before; None when idle."""
        if self.plan is None:
            self.plan = self._decide()
        return None if self.plan is None else self.plan.ends

    def advance(self, until: int) -> None:
        """Carry out all iterations that begin before `until`."""
        while self.now < until:
            plan = self.plan or self._decide()
            self.plan = None
            if plan is None:
                return
            if plan.chunks or plan.ends <= until:
                self.carry_out(plan, plan.steps, plan.ends)
            else:
                self._decode_until(until, plan)

    def carry_out(self, plan: Plan, steps: int, ends: int) -> None:
        """Let the plan happen: its chunks, or so many of its steps, until `ends`."""
        began, cached, step = self.now, self.cached, self.step
        sequences = len(self.running) if plan.decodes else 0
        tokens = 0
        if plan.chunks:
            self._mixed(plan, ends)
            for chunk in plan.chunks:
                tokens += chunk[1]
        else:
            self._decode(steps, ends)
        log = self.log
        if log is not None:
            if sequences:
                log.decoded = ends
            log.rows.frombytes(
                packed(
                    began, ends, steps, sequences, cached + sequences, tokens, len(self.running),
                    len(self.computed), len(self.queue), self.blocks.used, self.step - step,
                )
            )  # fmt: skip

    def next_plan(self) -> Plan | None:
        """Return what this engine would do next, without how long it takes; None when idle.

        For ranks whose iterations last as long as those of others.
        """
        self._make_room()
        chunks = BATCHING[self.rules.batching](self) if self.queue or self.computed else []
        if chunks:
            return Plan(chunks, self.rules.batching != "prefill_first", 1, 0)
        return self.decoding_plan()

    def _make_room(self) -> None:
        """Evict where the cache cannot hold the next step."""
        blocks = self.blocks
        if self.pace is None and blocks.total - blocks.used >= blocks.growing:
            return  # nobody takes more than a block
        while blocks.total - blocks.used < self.growth:
            self._evict()

    def decoding_plan(self) -> Plan | None:
        """Return as many steps of decoding as can be skipped; None where nobody decodes."""
        return Plan([], True, self._steps(), 0) if self.running else None

    def _decide(self) -> Plan | None:
        """Plan from the present on; evicts where the cache cannot hold the next step."""
        self._make_room()
        chunks = BATCHING[self.rules.batching](self) if self.queue or self.computed else []
        if chunks:
            return self._with_chunks(chunks)
        sequences = len(self.running)
        if not sequences:
            return None
        steps = self._steps()
        lines = self.times.lines(sequences)
        cached = self.cached + sequences
        if self.pace is None:
            took = steps_ps(lines, cached, sequences, steps)
        else:
            took = self.pace.steps_ps(lines, cached, sequences, self.turn, steps)
        return Plan([], True, steps, self.now + took)

    def _with_chunks(self, chunks: list[tuple[int, int, int]]) -> Plan:
        decodes = self.rules.batching != "prefill_first"
        sequences = len(self.running) if decodes else 0
        sizes = [chunk[1:] for chunk in chunks]
        cached = self.cached + sequences if sequences else 0
        took = self.times.mixed_ps(sequences, cached, sizes)
        return Plan(chunks, decodes, 1, self.now + took)

    def _steps(self) -> int:
        """Return how many steps of decoding there are until somebody ends or the cache is full."""
        while self.ends[0][3].evicted:
            heappop(self.ends)
        if self.one_by_one:
            return 1
        tokens = self.ends[0][0] - self.step
        if self.pace is None:
            return self._until_less_is_found(self.blocks.steps_that_fit(self.step, tokens))
        last = self.pace.step_of(self.step + tokens)
        most = self.pace.tokens(last) - self.step
        fit = self.blocks.steps_that_fit(self.step, most)
        if fit < most:
            last = self.pace.step_of(self.step + fit + 1) - 1
        return self._until_less_is_found(last - self.turn)

    def _until_less_is_found(self, steps: int) -> int:
        """Return the steps up to one that takes a block which was found of the first that waits.

        Its first chunk takes fewer blocks then: there may be room for it.
        """
        places = self.rules.max_sequences - len(self.running) - len(self.computed)
        if self.prefix is None or not self.queue or places <= 0:
            return steps
        request, growth = self.queue[0], self.blocks.growth
        taken = growth(self.step, self._tokens(steps))
        spared = self.prefix.spared(request, self.context(request), taken)
        if spared >= taken:
            return steps
        return 1 + bisect_left(
            range(1, steps), True,
            key=lambda count: growth(self.step, self._tokens(count)) > spared,
        )  # fmt: skip

    def _decode_until(self, until: int, plan: Plan) -> None:
        sequences = len(self.running)
        lines = self.times.lines(sequences)
        span = until - self.now
        cached = self.cached + sequences
        if self.pace is None:
            steps, took = steps_until(lines, cached, sequences, most=plan.steps, span_ps=span)
        else:
            steps, took = self.pace.steps_until(
                lines, cached, sequences, first=self.turn, most=plan.steps, span_ps=span
            )
        self.carry_out(plan, steps, self.now + took)

    def _decode(self, steps: int, ends: int) -> None:
        """Let `steps` steps of all who decode go by, the last of which ends at `ends`."""
        tokens = steps if self.pace is None else self._tokens(steps)
        blocks, step, leave = self.blocks, self.step, self.ends
        if tokens == 1:
            taken = blocks.classes[-step % blocks.tokens]
        else:
            taken = blocks.growth(step, tokens)
        blocks.used += taken
        if self.prefix is not None:
            self.prefix.take(taken)
        if self.log is not None:
            self.log.most_blocks = max(self.log.most_blocks, blocks.used)
        self.cached += tokens * len(self.running)
        self.step = step = step + tokens
        self.turn += steps
        self.now = ends
        while leave and leave[0][0] <= step:
            done = heappop(leave)[3]
            if not done.evicted:
                self._leave(done)
                self._finish(done.request)

    def _mixed(self, plan: Plan, ends: int) -> None:
        if self.prefix is not None:
            self._enter(self.prefix, plan)
        scheduled, began, computed = self.asked.scheduled, self.now, self.computed
        for request, tokens, past in plan.chunks:
            first = request not in computed
            if first:
                self.queue.popleft()
                if scheduled[request] == NEVER:
                    scheduled[request] = began
            self._hold(request, tokens, past, first=first)
        if self.prefix is not None and self.prefix.gone:
            self.prefix.tell()
        if plan.decodes and self.running:
            self._decode(1, ends)
        elif self.log is not None:
            self.log.most_blocks = max(self.log.most_blocks, self.blocks.used)
        self.now = ends
        for request, tokens, past in plan.chunks:
            if past + tokens == self.context(request):
                self._first_token(request)

    def context(self, request: int) -> int:
        """Return the tokens to compute before a request can decode."""
        prompt = self.asked.prompt[request]
        return prompt + self.put_out.get(request, 0) if self.put_out else prompt

    def _enter(self, prefix: PrefixCache, plan: Plan) -> None:
        """Let requests that begin hold what was found of them, before others take places."""
        for request, _, past in plan.chunks:
            if request not in self.computed:
                self.blocks.used += prefix.enter(request, past)
                if self.asked.scheduled[request] == NEVER:
                    self.asked.cached[request] = past
                    if past and self.log is not None:
                        self.log.hits.extend((self.now, past))

    def _hold(self, request: int, tokens: int, past: int, *, first: bool) -> None:
        blocks = self.blocks
        if self.rules.reserve_output:
            most = self.most_tokens(request)
            held = blocks.needed(most) - blocks.needed(past) if first else 0
        else:
            size = blocks.tokens
            held = -past // size - -(past + tokens) // size
        blocks.used += held
        self.computed[request] = past + tokens
        if self.prefix is not None:
            self.prefix.take(held)
            self.prefix.computed(request, past + tokens)

    def most_tokens(self, request: int) -> int:
        """Return the tokens that a request may come to hold."""
        return self.asked.prompt[request] + self.asked.allowed[request]

    def _first_token(self, request: int) -> None:
        asked = self.asked
        if asked.first[request] == NEVER:
            asked.first[request] = self.now
            if self.log is not None:
                self.log.firsts.append(self.now)
        if self.begun is not None:
            self.begun.append(request)
        out = self.put_out.pop(request, 0) + 1 if self.put_out else 1
        if out > 1 and self.log is not None:
            self.log.token_again(request, self.now)
        self.join(request, self.computed.pop(request), out)

    def join(self, request: int, cached: int, out: int) -> None:
        """Let a request decode that has put out `out` tokens and holds `cached` of the cache."""
        self.plan = None
        left = self.asked.output[request] - out
        if left <= 0:
            self._release(request, cached)
            self._finish(request)
            return
        step, end = self.step, self.step + left
        one = self.running[request] = Decoding(request, step, cached, end)
        heappush(self.ends, (end, request, self.asked.preemptions[request], one))
        self.cached += cached
        if not self.rules.reserve_output:
            self.blocks.start(cached, step)

    def _leave(self, one: Decoding) -> None:
        cached = one.cached + self.step - one.begun
        del self.running[one.request]
        self.cached -= cached
        if not self.rules.reserve_output:
            self.blocks.stop(cached, self.step)
        self._release(one.request, cached)

    def _release(self, request: int, cached: int) -> None:
        blocks = self.blocks
        most = self.most_tokens(request) if self.rules.reserve_output else cached
        held = -(-most // blocks.tokens)
        if self.prefix is not None:
            self.prefix.computed(request, cached)
            held = self.prefix.leave(request, held)
            if self.prefix.gone:
                self.prefix.tell()
        blocks.used -= held

    def keep(self, blocks: int) -> None:
        """Hold free blocks for what comes from elsewhere or waits to go there."""
        self.blocks.used += blocks
        if self.prefix is not None:
            self.prefix.take(blocks)

    def hold_again(self, request: int, cached: int) -> None:
        """Hold the cache of a request that has just ended here, until `let_go`."""
        blocks = self.blocks.needed(cached)
        if self.prefix is not None:
            self.blocks.used += self.prefix.hold_again(request, cached, blocks)
        else:
            self.blocks.used += blocks

    def let_go(self, request: int, cached: int) -> None:
        """Free the cache of a request that was held again."""
        blocks = self.blocks.needed(cached)
        if self.prefix is not None:
            blocks = self.prefix.leave(request, blocks)
        self.blocks.used -= blocks

    def give(self, blocks: int) -> None:
        """Free blocks that were kept."""
        self.blocks.used -= blocks
        if self.prefix is not None:
            self.prefix.free(blocks)

    def _finish(self, request: int) -> None:
        self.asked.finish[request] = self.now
        self.finished.append(request)
        self.ended = self.ended + 1 if self.ended_at == self.now else 1
        self.ended_at = self.now

    def _evict(self) -> None:
        """Take its place from the request that got it last; it is computed again from the start."""
        if self.computed:
            request, cached = self.computed.popitem()
            self._release(request, cached)
        else:
            request, one = self.running.popitem()
            self.running[request] = one
            one.evicted = True
            self._leave(one)
            left = one.end - self.step
            self.put_out[request] = self.asked.output[request] - left
            self.note_left(one)
        if self.log is not None:
            self.log.evictions.append(self.now)
        self.asked.preemptions[request] += 1
        self.queue.appendleft(request)

    def note_left(self, one: Decoding) -> None:
        """Note when a request that decodes and leaves before its end got its last token."""
        log = self.log
        if log is None:
            return
        decoded = one.begun < self.step
        last = log.decoded if decoded else log.again.get(one.request, self.asked.first[one.request])
        log.left(one.request, last, decoded=decoded)

"""An engine written anew, as plainly as can be: every block of the cache an object with an owner.

The policy is vLLM's: decoding first, then chunks of prompts. One iteration at a time, no counting.
"""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Block:
    """A place of the cache."""

    name: int | None = None
    owners: int = 0


@dataclass
class Job:
    """A request on its way."""

    number: int
    prompt: int
    output: int
    names: list[int]
    done: int = 0
    target: int = 0
    out: int = 0
    blocks: list[Block] = field(default_factory=list)
    seen: int = 0
    hit: int | None = None
    first: int = -1
    finish: int = -1


class Engine:
    """Runs jobs with a cache of so many blocks."""

    def __init__(
        self, jobs: list[Job], arrivals: list[int], limits: tuple[int, int, int, int]
    ) -> None:
        self.jobs, self.arrivals = jobs, arrivals
        self.places, self.budget, self.size, total = limits
        self.free = [Block() for _ in range(total)]
        self.known: dict[int, Block] = {}
        self.queue: list[Job] = []
        self.prompts: list[Job] = []
        self.running: list[Job] = []
        self.now = 0

    def run(self) -> None:
        """Serve everything."""
        coming = sorted(range(len(self.jobs)), key=self.arrivals.__getitem__)
        while coming or self.queue or self.prompts or self.running:
            if not (self.queue or self.prompts or self.running):
                self.now = max(self.now, self.arrivals[coming[0]])
            while coming and self.arrivals[coming[0]] <= self.now:
                self.queue.append(self.jobs[coming.pop(0)])
            self.iterate()

    def iterate(self) -> None:
        """Carry out one iteration."""
        while len(self.free) < self.growing():
            self.evict()
        chunks = self.plan()
        decoding = list(self.running)
        cached = sum(job.done + 1 for job in decoding)
        tokens = len(decoding) + sum(tokens for _, tokens, _ in chunks)
        self.now += 1000 + 3 * tokens + 11 * (len(decoding) + len(chunks)) + 7 * cached
        self.now += sum(tokens * (past + tokens) for _, tokens, past in chunks)
        for job, _, past in chunks:
            if job in self.queue:
                self.begin(job, past)
        for job, tokens, _ in chunks:
            self.compute(job, tokens)
        for job in decoding:
            self.extend(job, 1)
            job.out += 1
        for job in sorted(decoding, key=lambda one: one.number):
            if job.out == job.output:
                self.running.remove(job)
                self.end(job)
        for job, _, _ in chunks:
            if job.done == job.target:
                self.prompts.remove(job)
                job.out += 1
                job.first = self.now if job.first < 0 else job.first
                if job.out == job.output:
                    self.end(job)
                else:
                    self.running.append(job)

    def growing(self) -> int:
        """Return the sequences whose blocks are full."""
        return sum(job.done % self.size == 0 for job in self.running)

    def plan(self) -> list[tuple[Job, int, int]]:
        """Choose chunks."""
        budget, free = self.budget - len(self.running), len(self.free) - self.growing()
        chunks: list[tuple[Job, int, int]] = []
        if budget <= 0:
            return chunks
        for job in self.prompts:
            room = free * self.size + -job.done % self.size
            tokens = min(job.target - job.done, budget, room)
            if tokens > 0:
                chunks.append((job, tokens, job.done))
                budget -= tokens
                free -= self.whole(job.done + tokens) - self.whole(job.done)
        places = self.places - len(self.running) - len(self.prompts)
        for job in self.queue:
            job.target = job.prompt + job.out
            found = self.found(job)
            past = len(found) * self.size
            tokens = min(job.target - past, budget)
            taken = self.whole(past + tokens) - len(found)
            taken += sum(block.owners == 0 for block in found)
            if places <= 0 or tokens <= 0 or taken > free:
                break
            chunks.append((job, tokens, past))
            budget, free, places = budget - tokens, free - taken, places - 1
        return chunks

    def whole(self, tokens: int) -> int:
        """Return blocks that hold so many tokens."""
        return (tokens + self.size - 1) // self.size

    def found(self, job: Job) -> list[Block]:
        """Return the leading blocks that are there, all but the last token's."""
        found = []
        for number, name in enumerate(job.names):
            if name not in self.known or (number + 1) * self.size >= job.target:
                break
            found.append(self.known[name])
        return found

    def begin(self, job: Job, past: int) -> None:
        """Share the blocks found."""
        self.queue.remove(job)
        self.prompts.append(job)
        job.blocks = self.found(job)[: past // self.size]
        for block in job.blocks:
            if block.owners == 0:
                self.free.remove(block)
            block.owners += 1
        job.done, job.seen = past, len(job.blocks)
        job.hit = past if job.hit is None else job.hit

    def compute(self, job: Job, tokens: int) -> None:
        """Fill blocks with tokens of the prompt, and name those that are full."""
        self.extend(job, tokens)
        self.name(job)

    def extend(self, job: Job, tokens: int) -> None:
        """Add tokens, in new blocks where the last one is full."""
        job.done += tokens
        while len(job.blocks) * self.size < job.done:
            block = self.free.pop(0)
            if block.name is not None:
                del self.known[block.name]
                block.name = None
            block.owners = 1
            job.blocks.append(block)

    def name(self, job: Job) -> None:
        """Name the blocks that have become full, unless somebody has the name."""
        full = min(len(job.names), job.done // self.size)
        for number in range(job.seen, full):
            name, block = job.names[number], job.blocks[number]
            if name not in self.known:
                block.name = name
                self.known[name] = block
        job.seen = max(job.seen, full)

    def end(self, job: Job) -> None:
        """Let go of a job that is done."""
        job.finish = self.now
        self.release(job)

    def release(self, job: Job) -> None:
        """Free its blocks: those without names, then the others from the last to the first."""
        self.name(job)
        nameless = [block for block in job.blocks if block.name is None]
        named = [block for block in job.blocks if block.name is not None]
        for block in [*nameless, *named[::-1]]:
            block.owners -= 1
            if block.owners == 0:
                self.free.append(block)
        job.blocks = []

    def evict(self) -> None:
        """Put the last one back into the queue."""
        job = self.prompts.pop() if self.prompts else self.running.pop()
        self.release(job)
        job.done = 0
        self.queue.insert(0, job)

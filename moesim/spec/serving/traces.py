"""Requests from a file."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from moesim.spec.base import Spec
from moesim.spec.quantities import Seconds
from moesim.spec.serving.lengths import TokenCount


class TraceSpec(Spec):
    """A file of requests and what is taken of it; a bare text is a file that is taken whole."""

    file: Annotated[str, Field(min_length=1, max_length=1000)]
    """Azure LLM inference or BurstGPT CSV, Mooncake, AIPerf (profile_export.jsonl) or
    LLMServingSim JSON lines, the detailed JSON of `vllm bench serve`, or a CSV of lengths; told
    apart by what is in it."""
    speed: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """How many times as fast as in the file the requests come: 2 doubles the rate."""
    start: Seconds = 0.0
    """Where the window of the file's time begins, such as `600 s`; it becomes time 0."""
    end: Seconds | None = None
    """Where the window ends; left out, with the file."""
    head: Annotated[int, Field(ge=1, le=10**8)] | None = None
    """How many requests of the window are taken at most, the first of them."""
    longest_prompt: TokenCount | None = None
    """Prompts longer than this are cut to it."""
    longest_output: TokenCount | None = None
    """Outputs longer than this are cut to it."""

    @model_validator(mode="after")
    def _check(self) -> "TraceSpec":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"the window ends at {self.end} s, before it starts: {self.start} s")
        return self


def _file(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


def _or_file(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a trace take the name of a file too (a json_schema_extra)."""
    schema["anyOf"] = [{"type": "string"}, {"$ref": schema.pop("$ref")}]


Traced = Annotated[TraceSpec, Field(json_schema_extra=_or_file), BeforeValidator(_file)]
"""A trace, or the name of its file."""

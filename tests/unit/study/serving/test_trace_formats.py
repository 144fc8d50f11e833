"""Files of requests: each format by its content, each number by hand; wrong lines are named."""

import json
from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.study.serving.traces.read import read_lengths, read_rows

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURST_6 = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
BURST_8 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
)
S = 10**12


def file(folder: Path, *lines: str, name: str = "trace.any", end: str = "\n") -> Path:
    path = folder / name
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def test_azure_has_seven_decimals_and_lines_that_end_in_crlf(tmp_path: Path) -> None:
    rows = read_rows(
        file(
            tmp_path,
            AZURE,
            "2023-11-16 23:59:59.9799600,4808,10",
            "2023-11-17 00:00:00.0319601,3180,8",
            "2024-05-10 00:00:00.009930+00:00,7,9",
            end="\r\n",
        )
    )
    assert (rows.prompt, rows.output) == ([4808, 3180, 7], [10, 8, 9])
    assert rows.at[1] - rows.at[0] == 52_000_100_000  # 52.0001 ms, over midnight
    days = 14 + 31 + 31 + 29 + 31 + 30 + 10  # 16 November 2023 to 10 May 2024, a leap year
    earlier = 86_399 * S + 979_960_000_000 - 9_930_000_000
    assert rows.at[2] - rows.at[0] == days * 86_400 * S - earlier
    assert not rows.counts_from_start


def test_burstgpt_leaves_out_failures_and_knows_sessions_only_where_there_are_columns(
    tmp_path: Path,
) -> None:
    six = read_rows(
        file(
            tmp_path,
            BURST_6,
            "5,ChatGPT,472,18,490,Conversation log",
            "45,ChatGPT,1087,0,1087,Conversation log",
            "118,GPT-4,417,276,693,API log",
        )
    )
    assert (six.prompt, six.output, six.at) == ([472, 417], [18, 276], [5 * S, 118 * S])
    assert (six.left_out, six.session, six.turn) == (1, [], [])
    eight = read_rows(
        file(
            tmp_path,
            BURST_8,
            "5,a,3.2,ChatGPT,472,18,490,Conversation log",
            "6.5,b,1.0,ChatGPT,10,20,30,Conversation log",
            "7,,1.0,ChatGPT,11,21,32,API log",
            "9,a,1.0,ChatGPT,500,5,505,Conversation log",
            "9,,1.0,ChatGPT,12,22,34,API log",
        )
    )
    assert eight.at == [5 * S, 6 * S + S // 2, 7 * S, 9 * S, 9 * S]
    assert eight.session[0] == eight.session[3]
    assert len(set(eight.session)) == 4  # requests without a session have one each
    assert eight.turn == [0, 0, 0, 1, 0]


def test_mooncake_counts_in_milliseconds_and_keeps_its_ids(tmp_path: Path) -> None:
    rows = read_rows(
        file(
            tmp_path,
            '{"timestamp": 3, "input_length": 1025, "output_length": 5, "hash_ids": [0, 7, 9]}',
            '{"timestamp": 3.000000001, "input_length": 512, "output_length": 1, "hash_ids": [0]}',
        )
    )
    assert rows.at == [3 * S // 1000, 3 * S // 1000 + 1]
    assert (rows.prefix, rows.block) == ([(0, 7, 9), (0,)], 512)


def test_lengths_have_no_times_and_servingsim_nanoseconds(tmp_path: Path) -> None:
    plain = read_rows(file(tmp_path, "num_prefill_tokens,num_decode_tokens", "3772,54", "2015,156"))
    assert (plain.prompt, plain.output, plain.at) == ([3772, 2015], [54, 156], [])
    vidur = read_rows(file(tmp_path, "arrived_at,num_prefill_tokens,num_decode_tokens", "0.25,3,4"))
    assert vidur.at == [S // 4]
    sim = read_rows(file(tmp_path, '{"input_toks":2358,"output_toks":531,"arrival_time_ns":7}'))
    assert (sim.prompt, sim.output, sim.at) == ([2358], [531], [7000])


BENCH = {
    "backend": "vllm",
    "duration": 3.0,
    "mean_ttft_ms": 20.5,
    "input_lens": [100, 200, 300],
    "output_lens": [10, 0, 30],
    "ttfts": [0.02, 0.0, 0.021],
    "start_times": [5000.5, 5000.75, 5001.000001],
    "errors": ["", "timed out", ""],
}


@pytest.mark.parametrize("indent", [None, 2])
def test_bench_lists_are_in_seconds_on_one_line_or_many(tmp_path: Path, indent: int | None) -> None:
    rows = read_rows(file(tmp_path, json.dumps(BENCH, indent=indent)))
    assert (rows.prompt, rows.output, rows.left_out) == ([100, 300], [10, 30], 1)
    assert rows.at[1] - rows.at[0] == 500_001_000_000  # half a second and a microsecond
    without = {key: value for key, value in BENCH.items() if key != "start_times"}
    assert read_rows(file(tmp_path, json.dumps(without))).at == []


def aiperf(start: int, tokens: tuple[int, int], **about: object) -> str:
    lengths = zip(("input_sequence_length", "output_sequence_length"), tokens, strict=True)
    return json.dumps(
        {
            "metadata": {"request_start_ns": start, "benchmark_phase": "profiling", **about},
            "metrics": {name: {"value": size, "unit": "tokens"} for name, size in lengths},
            "error": None,
        }
    )


def test_aiperf_leaves_out_warm_up_and_what_failed(tmp_path: Path) -> None:
    failed = json.dumps({**json.loads(aiperf(1, (3, 4))), "error": {"code": 500}})
    start = 1_700_000_000_123_456_789
    rows = read_rows(
        file(
            tmp_path,
            aiperf(start - 50, (9, 9), benchmark_phase="warmup"),
            aiperf(start + 25, (100, 10)),
            failed,
            aiperf(start, (200, 20)),
        )
    )
    assert (rows.prompt, rows.output, rows.left_out) == ([100, 200], [10, 20], 2)
    assert rows.at[0] - rows.at[1] == 25_000  # 25 ns, of times that a float cannot hold


def test_plain_lengths_are_one_a_line(tmp_path: Path) -> None:
    path = file(tmp_path, "5", "", "7")
    assert read_lengths(path, "prompt") == read_lengths(path, "output") == [5, 7]


GOOD = '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}'


@pytest.mark.parametrize(
    ("lines", "line", "what"),
    [
        ((AZURE, "2023-11-16 18:17:03.97,4808"), 2, "has 2 columns, the header has 3"),
        ((AZURE, "2023-11-16 18:17:03.97,4808,1", "16.11.2023,4,1"), 3, "not a date and time"),
        ((AZURE, "2023-11-16 18:17:03.97,4.5,1"), 2, "ContextTokens is '4.5', not a whole"),
        ((AZURE, "2023-11-16 18:17:03.97,-4,1"), 2, "ContextTokens is '-4', not a whole"),
        ((AZURE, "2023-11-16 18:17:03.97,99999999,1"), 2, "from 0 to 10,000,000"),
        ((BURST_6, "soon,GPT-4,4,1,5,API log"), 2, "Timestamp is 'soon', not a time"),
        ((BURST_6, "nan,GPT-4,4,1,5,API log"), 2, "Timestamp is 'nan', not a time"),
        ((BURST_6, "-3,GPT-4,4,1,5,API log"), 2, "not a time from 0 on"),
        ((GOOD, "", '{"timestamp": 0, "input_length": 5'), 3, "is not valid JSON"),
        ((GOOD, '{"timestamp": 0, "input_length": 5}'), 2, "has no output_length"),
        ((GOOD, GOOD.replace("0,", "NaN,")), 2, "has NaN, which is no number"),
        ((GOOD, GOOD.replace("0,", "1e999999999999,")), 2, "timestamp is 1E+999999999999"),
        ((GOOD, GOOD.replace("5,", "true,", 1)), 2, "input_length is True"),
        ((GOOD, GOOD.replace("[1]", "[1, 2]")), 2, "has 2 hash_ids, its tokens make 1"),
        ((GOOD, GOOD.replace("[1]", '["a"]')), 2, "hash_ids is not a list of whole numbers"),
        ((GOOD, GOOD.replace('"timestamp": 0, ', "")), 2, "only some lines have timestamp"),
        ((GOOD, GOOD.replace(', "hash_ids": [1]', "")), 2, "only some lines have hash_ids"),
        ((GOOD, "[]"), 2, "is not a JSON object"),
        ((GOOD, "[" * 100_000), 2, "is nested too deeply"),
        (("a,b,c", "1,2,3"), 1, "no known format of requests"),
        (('[{"conversations": []}]',), 1, "have no lengths in tokens"),
        (('{"prompt": "text"}',), 1, "no known format of requests"),
        (('{"total_input_tokens": 5}',), 1, "save the result of vllm bench with --save-detailed"),
        ((json.dumps(BENCH), json.dumps(BENCH)), 2, "a second result begins here"),
        (("{", '"input_lens": [1,', "x]}"), 3, "is not valid JSON"),
        ((json.dumps({**BENCH, "output_lens": [1]}),), 1, "output_lens has 1 items, input_lens 3"),
        ((), 1, "the file is empty"),
        ((AZURE,), 1, "has no request with tokens on both sides"),
        (("5", "x"), 2, "a length is 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(
    tmp_path: Path, lines: tuple[str, ...], line: int, what: str
) -> None:
    path = file(tmp_path, *lines)
    with pytest.raises(ScenarioError) as raised:
        read_rows(path)
    (problem,) = raised.value.problems
    assert (problem.file, problem.line) == (str(path), line)
    assert what in problem.message
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_and_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(AZURE.encode() + b"\n\xff\xfe,1,2\n")
    with pytest.raises(ScenarioError, match=r"trace.csv:2:1: is not UTF-8 text"):
        read_rows(path)
    path.write_bytes(b"\xef\xbb\xbf" + AZURE.encode() + b"\n2023-11-16 18:17:03,1,2\n")
    assert read_rows(path).prompt == [1]  # a mark of the byte order is no part of the header
    with pytest.raises(ScenarioError, match=r"missing.csv: No such file"):
        read_rows(tmp_path / "missing.csv")
    with pytest.raises(ScenarioError, match=r"is no file"):
        read_rows(tmp_path)

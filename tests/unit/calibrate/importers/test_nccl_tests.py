"""nccl-tests: its columns, its conventions and its traps, in text and in JSON."""

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from moesim.calibrate.importers.nccl_run import version_of
from moesim.calibrate.importers.nccl_tests import is_nccl_tests, read_nccl_tests
from moesim.calibrate.importers.rows import Imported
from moesim.calibrate.importers.values import rounding
from moesim.errors import CalibrationError
from tests.unit.calibrate.importers.samples import (
    ALL_REDUCE,
    H100,
    NCCL_COLUMNS,
    NCCL_HEADER,
    NCCL_JSON,
    SECRETS,
    nccl_line,
    nccl_log,
    nccl_ranks,
)

ROCE = replace(H100, network="8x400 Gb/s per node")


def read(text: str, facts: Any = H100, origin: str = "run.log") -> Imported:
    return read_nccl_tests(text, origin, facts)


def rows(text: str, facts: Any = H100, origin: str = "run.log") -> Any:
    return read(text, facts, origin).tables["collectives"]


def from_json(**changes: Any) -> Any:
    return rows(json.dumps({**NCCL_JSON, **changes}))


def test_a_log_gives_the_columns_of_the_table() -> None:
    assert is_nccl_tests(ALL_REDUCE)
    first, _, last = rows(ALL_REDUCE)
    assert first == {
        "hardware": "h100_sxm", "collective": "all_reduce", "library": "nccl",
        "library_version": "2.21.5", "algorithm": "auto", "dtype": "fp32", "num_gpus": 8,
        "num_nodes": 1, "gpus_per_node": 8, "interconnect": "nvlink", "network": "none",
        "bytes": 1024, "time_us": 20.0, "timing": "nccl-tests out-of-place",
        "time_origin": "measured", "quality": "ok", "source": "nccl-tests",
    }  # fmt: skip
    assert (last["bytes"], last["time_us"]) == (1048576, 40.0)


# doc/PERFORMANCE.md and src/*.cu: count is the elements of one rank's share where a collective
# spreads or collects, so 8 ranks x 128 floats are 4096 bytes
@pytest.mark.parametrize(
    ("redop", "count", "in_place", "collective"),
    [("sum", 1024, "0", "all_reduce"), ("sum", 128, "0", "reduce_scatter"),
     ("none", 128, "0", "all_gather"), ("none", 128, "N/A", "alltoall"),
     ("none", 1024, "N/A", "send_recv")],
)  # fmt: skip
def test_a_log_that_does_not_name_its_program(
    redop: str, count: int, in_place: str, collective: str
) -> None:
    (row,) = rows(nccl_log(nccl_line(4096, count, 20.0, redop=redop, in_place=in_place)))
    assert (row["collective"], row["bytes"], row["num_gpus"]) == (collective, 4096, 8)


def test_unchecked_all_gather_and_alltoall_look_alike_unless_the_name_tells() -> None:
    log = nccl_log(nccl_line(4096, 128, 20.0, redop="none", wrong="N/A", in_place="N/A"))
    with pytest.raises(CalibrationError, match="all_gather or alltoall"):
        rows(log)
    assert rows(log, origin="h100-alltoall.log")[0]["collective"] == "alltoall"
    (row,) = rows("# Collective test starting: all_gather_perf\n" + log)
    assert (row["collective"], row["quality"]) == ("all_gather", "unchecked")


def test_nodes_are_the_hosts_of_the_header_and_can_be_told() -> None:
    log = nccl_log(nccl_line(4096, 1024, 20.0), ranks=16)
    (row,) = rows(log, ROCE)
    assert (row["num_gpus"], row["num_nodes"], row["gpus_per_node"]) == (16, 2, 8)
    assert row["network"] == "8x400 Gb/s per node"
    (row,) = rows(log, replace(ROCE, num_nodes=4))
    assert (row["num_nodes"], row["gpus_per_node"]) == (4, 4)
    with pytest.raises(CalibrationError, match="--network"):
        rows(log)
    (row,) = rows(log, replace(H100, interconnect="nvlink_nvl72"))
    assert row["network"].startswith("none")


def test_a_header_without_ranks_needs_to_be_told() -> None:
    line = nccl_line(4096, 1024, 20.0)
    with pytest.raises(CalibrationError, match="--num-gpus"):
        rows(NCCL_HEADER + NCCL_COLUMNS + line)
    told = replace(H100, num_gpus=8, num_nodes=1)
    assert rows(NCCL_HEADER + NCCL_COLUMNS + line, told)[0]["num_gpus"] == 8
    # 4096 bytes of 128 floats are 8 ranks' shares
    share = NCCL_HEADER + NCCL_COLUMNS + nccl_line(4096, 128, 20.0)
    assert rows(share, replace(H100, num_nodes=1))[0]["num_gpus"] == 8


def test_several_runs_in_one_log_are_kept_apart() -> None:
    between = "+ mpirun -np 8 ./build/alltoall_perf -b 4096\n"
    first = nccl_log(nccl_line(4096, 1024, 20.0))
    second = nccl_log(nccl_line(4096, 256, 30.0, redop="none", in_place="N/A"), ranks=4)
    found = [(row["collective"], row["num_gpus"]) for row in rows(first + between + second + first)]
    assert found == [("all_reduce", 8), ("alltoall", 4), ("all_reduce", 8)]


def test_a_run_that_failed_leaves_nothing_behind() -> None:
    failed = "./build/alltoall_perf\n" + NCCL_HEADER + nccl_ranks(2) + "Test NCCL failure\n"
    (row,) = rows(failed + "./build/all_reduce_perf\n" + ALL_REDUCE)[:1]
    assert (row["collective"], row["num_gpus"]) == ("all_reduce", 8)


def test_wide_times_are_read_and_wrong_results_are_marked() -> None:
    lines = (nccl_line(8589934592, 2147483648, 50000.0), nccl_line(4096, 1024, 20.0, wrong="3"))
    wide, wrong = rows(nccl_log(*lines))
    # 50000 us is printed as 5.0e+04; 8589934592 bytes at the 171.80 GB/s beside it are 49999.6 us
    assert (wide["time_us"], wide["time_origin"]) == (49999.6, "derived_from_busbw")
    assert wrong["quality"] == "wrong_results"


def test_lines_without_a_measurement_are_counted() -> None:
    found = read(nccl_log(
        nccl_line(4096, 1024, 20.0), "0 0 float sum -1 0.13 0.00 0.00 0 0.12 0.00 0.00 0\n",
        "4096 1024 float sum -1 N/A N/A N/A N/A N/A N/A N/A N/A\n",
        nccl_line(4096, 1024, 20.0, type_name="other"),
    ))  # fmt: skip
    assert len(found.tables["collectives"]) == 1
    assert sorted(found.left_out) == ["0 bytes", "no time",
        "number type that the tables have no word for"]  # fmt: skip
    reduce = "./reduce_perf\n" + nccl_log("4096 1024 float sum 0 20 0.20 0.20 0 20 0.20 0.20 0\n")
    assert read(reduce).left_out == {"reduce: no cost model for it": 1}
    assert read(nccl_log(nccl_line(4096, 1024, 20.0), ranks=1)).left_out == {
        "a single rank sends nothing": 1
    }


def test_tags_of_mpirun_and_srun_and_other_output_do_not_disturb() -> None:
    tagged = "".join(f"[1,0]<stdout>:{line}\n" for line in ALL_REDUCE.splitlines())
    noise = "gpu-host-17:41234:41234 [0] NCCL INFO Bootstrap : Using eth0\n"
    assert rows(tagged) == rows(ALL_REDUCE)
    assert rows("".join(f"0: {line}\n{noise}" for line in ALL_REDUCE.splitlines())) == rows(
        ALL_REDUCE
    )


def test_an_older_version_prints_fewer_columns() -> None:
    old = (
        "# nThread 1 nGpus 8 minBytes 8 maxBytes 8 step: 2(factor)\n"
        "#   Rank  0 Pid  41234 on gpu-host-17 device  0 [0x07] Tesla V100\n"
        "#   Rank  1 Pid  41234 on gpu-host-17 device  1 [0x0a] Tesla V100\n"
        "#                                             out-of-place                    in-place\n"
        "#       size    count    type   time  algbw  busbw  error   time  algbw  busbw  error\n"
        "        4096      512   float  20.00   0.20   0.10  0e+00  18.00   0.23   0.11  0e+00\n"
    )
    (row,) = rows(old, origin="all_gather.txt")
    assert (row["collective"], row["num_gpus"], row["time_us"]) == ("all_gather", 2, 20.0)


def test_columns_in_place_may_come_first() -> None:
    turned = NCCL_COLUMNS.replace("out-of-place", "x").replace("in-place", "out-of-place")
    log = ALL_REDUCE.replace(NCCL_COLUMNS, turned.replace("x  ", "in-place  "))
    assert [row["time_us"] for row in rows(log)] == [10.0, 12.5, 20.0]


def test_groups_that_run_at_once_are_not_fitted() -> None:
    split = ALL_REDUCE
    for rank in range(4, 8):
        split = split.replace(f"Rank  {rank} Group  0", f"Rank  {rank} Group  1")
    assert {(row["num_gpus"], row["quality"]) for row in rows(split)} == {(4, "concurrent_groups")}


BAD_LINES = [
    ("4096 1024 float sum -1 20.0", "run.log:17: 6 columns, but the header has 13"),
    ("4096 1024 float sum -1 2x.0 0.20 0.36 0 20 0.20 0.36 0", "run.log:17: column time"),
    ("4096 1024 float sum -1 20.0 9.99 0.36 0 20 0.20 0.36 0", "run.log:17: size over time"),
    ("4096 1024 float sum -1 .02 0.20 0.36 0 .02 0.20 0.36 0", "must be in microseconds"),
    ("4096 2048 float sum -1 20.0 0.20 0.36 0 20 0.20 0.36 0", "run.log:17: size is 4,096 bytes"),
    ("99999999999999999999 1 float sum -1 1 1 1 0 1 1 1 0", "run.log:17: column size"),
]


@pytest.mark.parametrize(("line", "says"), BAD_LINES)
def test_a_bad_line_is_named(line: str, says: str) -> None:
    with pytest.raises(CalibrationError, match=re.escape(says)):
        rows(nccl_log(line + "\n"))


def test_rows_without_a_header_and_units_that_are_not_microseconds() -> None:
    with pytest.raises(CalibrationError, match=r"run\.log:1: a row above the header"):
        rows(nccl_line(4096, 1024, 20.0))
    with pytest.raises(CalibrationError, match="microseconds"):
        rows(ALL_REDUCE.replace("(us)", "(ms)"))


def test_processes_that_print_over_each_other_are_told() -> None:
    with pytest.raises(CalibrationError, match=r"run\.log:5: a rank is listed twice.*MPI=1"):
        rows(NCCL_HEADER + nccl_ranks(1) + nccl_ranks(1) + NCCL_COLUMNS)


def test_json_gives_the_same_rows_as_text() -> None:
    found = read(json.dumps(NCCL_JSON))
    (row,) = found.tables["collectives"]
    assert row == {**rows(ALL_REDUCE)[2], "library_version": "2.27.3"}
    assert found.left_out == {"no time": 1}


def test_nothing_of_the_environment_is_in_rows_or_messages() -> None:
    text = json.dumps(NCCL_JSON, indent=1)
    assert not any(secret in repr(read(text)) for secret in SECRETS)
    broken = [text[:-30], text.replace('"count": 262144', '"count": "hunter2"'),
              text.replace('"results"', '"AWS_SECRET"').replace('"out_of_place"', '"hunter2"'),
              text.replace('"rank": 1', '"rank": 0')]  # fmt: skip
    for changed in broken:
        with pytest.raises(CalibrationError) as caught:
            read(changed)
        assert not any(secret in str(caught.value) for secret in SECRETS)


def test_bad_json_is_named_by_line_or_row() -> None:
    with pytest.raises(CalibrationError, match=r"run\.log:3: not valid JSON"):
        read('{\n"out_of_place": 1,\n"a": \x01}')
    bad = {**NCCL_JSON["results"][0], "size": -1}
    with pytest.raises(CalibrationError, match=r"results\[1\]: size is not a whole number"):
        from_json(results=[NCCL_JSON["results"][0], bad])
    for results in ([{"out_of_place": 3}], [{"out_of_place": {}, "size": 1, "count": 1}, 7]):
        with pytest.raises(CalibrationError, match=r"results\[[01]\]"):
            from_json(results=results)
    with pytest.raises(CalibrationError, match="--num-nodes"):
        from_json(devices=[], nranks=8)


def test_rounding_as_printed() -> None:
    assert [rounding(text) for text in ("20.00", "50000", "1.2e+05")] == [0.005, 0.5, 5000.0]
    assert math.isinf(rounding("N/A"))
    # 1.2e+05 us stand for 115,000 to 125,000: 16 GB/s may belong to it, 13 may not
    line = "1920000000 480000000 float sum -1 1.2e+05 {} 28.0 0 1.2e+05 16.0 28.0 0\n"
    assert rows(nccl_log(line.format("16.40")))[0]["time_us"] == pytest.approx(117073, abs=1)
    with pytest.raises(CalibrationError, match="size over time is 16 GB/s"):
        rows(nccl_log(line.format("13.00")))


def test_versions_from_their_numbers() -> None:
    # nccl.h: NCCL_VERSION(X,Y,Z) is X*1000+Y*100+Z up to 2.8, X*10000+Y*100+Z from 2.9
    assert [version_of(code) for code in (2708, 21805, 22703)] == ["2.7.8", "2.18.5", "2.27.3"]

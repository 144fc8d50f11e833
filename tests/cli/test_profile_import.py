"""`moesim profile import` as a command: from a log to a curve, what it says, what it refuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moesim.cli.main import app
from tests.unit.calibrate.importers.samples import (
    ALL_REDUCE,
    INTERNODE,
    INTRANODE,
    NCCL_JSON,
    SECRETS,
    TRACE,
    nccl_line,
    nccl_log,
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"all_reduce.log": ALL_REDUCE, "run.json": json.dumps(NCCL_JSON),
                       "node.log": INTRANODE, "nodes.log": INTERNODE,
                       "trace.json": TRACE}.items():  # fmt: skip
        Path(name).write_text(text, encoding="utf-8")


def moesim(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", *arguments])


def imported(*arguments: str) -> Result:
    return moesim("import", *arguments, "--hardware", "h100-sxm", "--out", "out")


def table(name: str) -> list[str]:
    return Path("out", f"{name}.csv").read_text(encoding="utf-8").splitlines()


def test_a_log_becomes_a_curve() -> None:
    pytest.importorskip("scipy")
    # an ideal ring of 8: 12 us, and 7/4 of the bytes at 350 GB/s
    sizes = [2**power for power in range(10, 35)]
    lines = [nccl_line(n, n // 4, round(12.0 + 1.75 * n / 350e3, 2)) for n in sizes]
    Path("all_reduce.log").write_text(nccl_log(*lines), encoding="utf-8")
    done = imported("all_reduce.log")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "all_reduce.log (nccl-tests)", "  collectives: 25 measurements",
        f"{Path('out', 'collectives.csv')}: 25 rows",
    ]  # fmt: skip
    fitted = moesim("fit", "out", "--out", "profiles")
    assert fitted.exit_code == 0, fitted.output
    assert "h100-sxm--nccl.yaml: 1 curves" in fitted.output
    judged = moesim("check", "out", "--profiles", "profiles", "--all", "--json", "judged.json")
    assert judged.exit_code == 0, judged.output
    (row,) = json.loads(Path("judged.json").read_text(encoding="utf-8"))
    assert (row["operator"], row["dtype"], row["rows"]) == ("all_reduce", "fp32", 25)
    assert row["median"] < 0.1


def test_one_table_for_each_kind_and_repeats_in_one_row() -> None:
    done = imported("all_reduce.log", "run.json", "trace.json", "node.log")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "attention_prefill.csv", "collectives.csv", "gemm.csv", "moe_alltoall.csv",
    ]  # fmt: skip
    head, row = table("gemm")
    cells = dict(zip(head.split(","), row.split(","), strict=True))
    assert (cells["time_us"], cells["repeats"]) == ("105.0", "2")
    assert len(table("collectives")) == 1 + 3 + 1 + 1
    judged = moesim("check", "out")
    assert judged.exit_code == 0, judged.output


def test_what_was_left_out_and_assumed_is_said() -> None:
    done = imported("run.json", "trace.json", "node.log")
    for line in ("  left out, 1: no time", "  left out, 2: tuning step: the best chunk size counts",
                 "  note: num_experts 256: the default of DeepEP's test, the log does not say it "
                 "(--set num_experts=…)"):  # fmt: skip
        assert line in done.stdout.splitlines()
    counted = [line.split() for line in done.stdout.splitlines() if line.startswith("  deepep ")]
    assert counted == [["deepep", "1", "0", "0.250", "ms", "19.3", "%"]]  # of 1.295 ms


def test_nothing_private_is_printed_or_written() -> None:
    done = imported("all_reduce.log", "run.json", "trace.json", "--debug")
    written = [path.read_text(encoding="utf-8") for path in Path("out").iterdir()]
    assert len(written) == 3
    assert not any(secret in text for secret in SECRETS for text in (done.output, *written))


def test_a_table_that_is_there_stays() -> None:
    assert imported("all_reduce.log").exit_code == 0
    before = table("collectives")
    done = imported("all_reduce.log", "trace.json")
    assert done.exit_code == 2
    assert "collectives.csv exists" in done.stderr
    assert table("collectives") == before
    assert not Path("out", "gemm.csv").exists()


def test_facts_about_nodes_come_from_the_options() -> None:
    done = imported("nodes.log")
    assert (done.exit_code, Path("out").exists()) == (2, False)
    assert done.stderr.startswith("moesim: nodes.log:3: ")
    done = imported("nodes.log", "--num-nodes", "4", "--network", "8x400 Gb/s per node",
                    "--set", "num_experts=512", "--library-version", "1.2.1")  # fmt: skip
    assert done.exit_code == 0, done.output
    head, row, _ = table("moe_alltoall")
    cells = dict(zip(head.split(","), row.split(","), strict=True))
    assert (cells["ep_size"], cells["num_experts"], cells["library_version"]) == (
        "32", "512", "1.2.1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.log"], "cannot read absent.log"),
        (["node.log", "--format", "nccl"], "no format 'nccl'"),
        (["node.log", "--format", "nccl-tests"], "no measurement in this nccl-tests file"),
        (["node.log", "--set", "num_experts"], "a column and a whole number"),
        (["node.log", "--set", "experts=2"], "no column 'experts'"),
        (["node.log", "--network", "fast"], "network 'fast'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], says: str) -> None:
    done = imported(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_device_is_told_with_the_nearest() -> None:
    done = moesim("import", "node.log", "--hardware", "h100_sxn", "--out", "out")
    assert done.exit_code == 2
    assert "Did you mean 'h100-sxm'" in done.stderr


def test_a_trace_without_shapes_is_counted_but_writes_nothing() -> None:
    Path("bare.json").write_text(TRACE.replace('"Input Dims"', '"x"').replace("_allgather", "x"))
    done = imported("bare.json")
    assert (done.exit_code, Path("out").exists()) == (2, False)
    assert "attention" in done.stdout
    assert "nothing to write" in done.stderr

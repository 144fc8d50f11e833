"""Every command, called in this process: what it prints, where, and its exit code."""

import json
import os
import re
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from typer.testing import CliRunner, Result

from moesim.cli.main import app
from moesim.hardware.profiles import accelerator_names, cluster_names
from moesim.model.named import named_models
from moesim.spec.shipped import shipped, shipped_names
from moesim.version import __version__

SMALL = """\
# A small run.
model: olmoe-1b-7b
cluster: {profile: dgx-h100, devices: 8}
parallel: {ep: 8}
training: {sequence_length: 512, global_batch: 8}
"""
TOO_BIG = SMALL.replace("olmoe-1b-7b", "deepseek-v3")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def moesim(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments: str) -> str:
    """Return the only line on stderr of a command that must end with exit code 2."""
    done = moesim(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_version() -> None:
    done = moesim("--version")
    assert (done.exit_code, done.stdout) == (0, f"moesim {__version__}\n")


def test_help_names_every_command() -> None:
    done = moesim("--help")
    assert done.exit_code == 0
    for command in ("run", "init", "explain", "models", "hardware", "schema"):
        assert f"\n  {command} " in done.stdout
        assert moesim(command, "--help").exit_code == 0


def test_without_a_command_the_help_is_shown() -> None:
    assert "Usage: " in moesim().output


class TestRun:
    def test_the_report_is_shown_and_the_result_saved(self) -> None:
        write("small.yaml", SMALL)
        done = moesim("run", "small.yaml")
        assert (done.exit_code, done.stderr) == (0, "")
        assert "MFU" in done.stdout
        assert f"Result saved in {Path('results') / 'small'}" in done.stdout
        assert json.loads(Path("results/small/summary.json").read_text())["name"] == "small"

    def test_quiet_prints_nothing_but_saves(self) -> None:
        write("small.yaml", SMALL)
        done = moesim("run", "small.yaml", "--quiet", "--out", "there")
        assert (done.exit_code, done.output) == (0, "")
        assert Path("there/summary.json").is_file()
        assert not Path("results").exists()

    def test_json_is_the_summary_and_nothing_else(self) -> None:
        write("small.yaml", SMALL)
        done = moesim("run", "small.yaml", "--json", "--out", "there")
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == Path("there/summary.json").read_text(encoding="utf-8")

    def test_json_alone_writes_no_files(self) -> None:
        write("small.yaml", SMALL)
        assert json.loads(moesim("run", "small.yaml", "--json").stdout)["fits"] is True
        assert [path.name for path in Path().iterdir()] == ["small.yaml"]

    def test_settings_change_the_scenario(self) -> None:
        write("small.yaml", SMALL)
        done = moesim("run", "small.yaml", "--json", "--set", "parallel.ep=4", "--set", "seed=7")
        scenario = json.loads(done.stdout)["scenario"]
        assert (scenario["parallel"]["ep"], scenario["seed"]) == (4, 7)

    def test_an_earlier_result_is_replaced_and_anything_else_refused(self) -> None:
        write("small.yaml", SMALL)
        for seed in ("1", "2"):
            done = moesim("run", "small.yaml", "-q", "--out", "there", "--set", f"seed={seed}")
            assert done.exit_code == 0
        assert json.loads(Path("there/summary.json").read_text())["seed"] == 2
        Path("mine").mkdir()
        write("mine/thesis.txt", "years of work")
        assert "mine" in refused("run", "small.yaml", "-q", "--out", "mine")
        assert Path("mine/thesis.txt").read_text() == "years of work"
        assert "small.yaml" in refused("run", "small.yaml", "-q", "--out", "small.yaml")

    def test_check_gives_code_3_where_the_model_does_not_fit(self) -> None:
        write("big.yaml", TOO_BIG)
        write("small.yaml", SMALL)
        assert moesim("run", "big.yaml", "-q").exit_code == 0
        done = moesim("run", "big.yaml", "-q", "--check")
        assert done.exit_code == 3
        assert done.stderr == "moesim: the model does not fit into the devices' memory\n"
        assert moesim("run", "small.yaml", "-q", "--check").exit_code == 0

    def test_every_problem_of_a_file_is_one_line(self) -> None:
        write("bad.yaml", SMALL.replace("ep: 8", "epp: 8").replace("devices: 8", "devices: 0"))
        done = moesim("run", "bad.yaml")
        assert (done.exit_code, done.stdout) == (2, "")
        first, second = done.stderr.splitlines()
        assert first == "bad.yaml:3:30: cluster.devices: must be at least 1, not 0"
        assert second.startswith("bad.yaml:4:12: parallel.epp: unknown key. Did you mean '")
        assert not Path("results").exists()

    @pytest.mark.parametrize(
        ("setting", "says"),
        [
            ("parallel.epp=8", "--set parallel.epp=8:1:1: parallel.epp: unknown key. Did you mean"),
            ("parallel.ep=5", "--set parallel.ep=5:1:1: parallel.ep: "),
            ("model=olmo", "--set model=olmo:1:1: model: unknown model 'olmo'."),
            ("cluster.profile=dgx-h10", "Did you mean 'dgx-h100'?"),
            ("software=none.yaml", "software: cannot read none.yaml: No such file or directory"),
            ("nothing", "--set nothing:1:1: must have the form key=value"),
        ],
    )
    def test_a_wrong_setting_is_told_as_it_was_written(self, setting: str, says: str) -> None:
        write("small.yaml", SMALL)
        assert says in refused("run", "small.yaml", "--set", setting)

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("mixtral-8x7b-64xh10", "Did you mean 'mixtral-8x7b-64xh100'?"),
            ("none.yaml", "moesim: cannot read none.yaml: No such file or directory"),
            ("folder", "moesim: cannot read folder: Is a directory"),
            ("folder/none", "moesim: cannot read folder/none: No such file or directory"),
            ("a\0b.yaml", "moesim: 'a\\x00b.yaml' is not a file name"),
            ("a\0b", "moesim: unknown scenario 'a\\x00b'."),
            ("a\n\x1b[31mb.yaml", "moesim: cannot read a\\n\\x1b[31mb.yaml: No such file"),
            ("x" * 5000, "moesim: unknown scenario 'xxx"),
            ("x" * 5000 + ".yaml", ".yaml: File name too long"),
        ],
    )
    def test_a_scenario_that_is_not_there_is_one_line(self, name: str, says: str) -> None:
        Path("folder").mkdir()
        line = refused("run", name)
        assert says in line
        assert len(line) < 1000

    def test_an_architecture_that_cannot_be_read_is_one_line(self) -> None:
        Path("net").mkdir()
        write("net/config.json", '{"model_type": "nonesuch"}')
        write("small.yaml", SMALL.replace("olmoe-1b-7b", "./net"))
        assert "nonesuch" in refused("run", "small.yaml")

    def test_a_figure_that_a_profile_lacks_is_one_line(self) -> None:
        write("v100.yaml", SMALL.replace("dgx-h100", "v100-dgx1"))  # it has no bf16
        assert "bf16" in refused("run", "v100.yaml")

    def test_endless_problems_are_cut_short(self) -> None:
        write("bad.yaml", SMALL + "".join(f"k{i}: 1\n" for i in range(1000)))
        done = moesim("run", "bad.yaml")
        assert done.exit_code == 2
        assert len(done.stderr.splitlines()) == 51
        assert done.stderr.splitlines()[-1].startswith("moesim: and ")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
    def test_a_folder_that_cannot_be_written_is_one_line(self) -> None:
        write("small.yaml", SMALL)
        Path("locked").mkdir(mode=0o500)
        assert "Permission denied" in refused("run", "small.yaml", "-q", "--out", "locked/there")

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can write")
    def test_a_folder_of_the_kernel_is_one_line(self) -> None:
        write("small.yaml", SMALL)
        assert "cannot write /proc/there" in refused(
            "run", "small.yaml", "-q", "--out", "/proc/there"
        )


class TestInit:
    def test_every_shipped_scenario_is_listed_with_what_it_is_for(self) -> None:
        lines = moesim("init").stdout.splitlines()
        assert [line.split()[0] for line in lines] == shipped_names(shipped("scenarios"))
        assert all(len(line.split()) > 3 for line in lines)

    def test_a_copy_is_the_shipped_file_and_runs(self) -> None:
        done = moesim("init", "mixtral-8x7b-64xh100")
        assert done.exit_code == 0
        copy = Path("mixtral-8x7b-64xh100.yaml")
        assert copy.read_bytes() == (shipped("scenarios") / copy).read_bytes()
        assert f"moesim run {copy}" in done.stdout
        assert moesim("run", str(copy), "--quiet").exit_code == 0

    def test_what_a_scenario_reads_comes_with_it(self) -> None:
        done = moesim("init", "routing-trace-replay")
        assert "Next: moesim routing routing-trace-replay.yaml" in done.stdout
        for name in ("models/tiny-moe.yaml", "traces/tiny-moe.npz"):
            assert Path(name).read_bytes() == (shipped("scenarios") / name).read_bytes()
        assert moesim("routing", "routing-trace-replay.yaml", "--quiet").exit_code == 0

    def test_nothing_is_overwritten_without_force(self) -> None:
        mine = write("mine.yaml", "mine")
        line = refused("init", "mixtral-8x7b-64xh100", "--as", "mine.yaml")
        assert line == (
            "moesim: mine.yaml exists; choose another name with --as, or replace it with --force"
        )
        assert mine.read_text() == "mine"
        assert moesim("init", "mixtral-8x7b-64xh100", "--as", "mine.yaml", "--force").exit_code == 0
        assert "model: mixtral-8x7b" in mine.read_text()

    def test_wrong_names_are_one_line(self) -> None:
        assert "Did you mean 'mixtral-8x7b-64xh100'?" in refused("init", "mixtral-8x7b-64xh10")
        assert "No such file" in refused("init", "mixtral-8x7b-64xh100", "--as", "no/such/x.yaml")
        Path("folder").mkdir()
        wrong = refused("init", "mixtral-8x7b-64xh100", "--as", "folder", "--force")
        assert wrong == "moesim: folder: Is a directory"


class TestExplain:
    def test_a_key_is_explained(self) -> None:
        text = moesim("explain", "ep").stdout
        assert text.splitlines() == [
            "parallel.ep",
            "  Expert parallel: ranks over which the experts of a layer are spread.",
            "  type:     whole number, at least 1 and at most 100000",
            "  default:  1",
            "  also:     baseline.parallel.ep",
        ]

    def test_a_part_shows_its_keys(self) -> None:
        text = moesim("explain", "training.optimizer").stdout
        assert re.search(
            r"    gradient_dtype +Type in which gradients are kept and reduced\.", text
        )

    def test_the_tree_shows_every_key_indented(self) -> None:
        lines = moesim("explain").stdout.splitlines()
        assert any(line.startswith("  tp    ") for line in lines)
        assert any(line.startswith("    bf16  ") for line in lines)
        assert not any(line.strip().startswith("source ") for line in lines[-8:])

    def test_a_typo_is_one_line(self) -> None:
        assert "Did you mean 'training.recompute'?" in refused("explain", "training.recompte")


class TestCatalogues:
    def test_all_models_are_listed(self) -> None:
        lines = moesim("models").stdout.splitlines()
        assert [line.split()[0] for line in lines[1:]] == named_models()
        rows = json.loads(moesim("models", "--json").stdout)
        assert [row["name"] for row in rows] == named_models()

    def test_one_model_in_detail(self) -> None:
        # mistralai/Mixtral-8x7B-v0.1: 46,702,792,704 parameters, of which 12,879,925,248 active.
        text = moesim("models", "mixtral-8x7b").stdout
        assert "46,702,792,704" in text
        assert "8 experts x 14336, top-2" in text
        data = json.loads(moesim("models", "mixtral-8x7b", "--json").stdout)
        assert data["active_params"] == 12_879_925_248
        parts = {k: v for k, v in data["params"].items() if k not in ("total", "active per token")}
        assert sum(parts.values()) == data["total_params"] == 46_702_792_704

    @pytest.mark.parametrize("name", ["deepseek-v3", "switch-base-128", "qwen3-next-80b-a3b"])
    def test_parts_of_other_architectures_sum_to_the_total(self, name: str) -> None:
        params = json.loads(moesim("models", name, "--json").stdout)["params"]
        total = params.pop("total")
        del params["active per token"]
        assert sum(params.values()) == total
        assert min(params.values()) >= 0

    def test_all_machines_are_listed(self) -> None:
        text = moesim("hardware").stdout
        data = json.loads(moesim("hardware", "--json").stdout)
        assert [row["name"] for row in data["accelerators"]] == accelerator_names()
        assert [row["name"] for row in data["clusters"]] == cluster_names()
        for name in (*accelerator_names(), *cluster_names()):
            assert f"\n{name} " in text

    def test_every_figure_of_a_machine_is_shown_with_its_source(self) -> None:
        for name in ("h100-sxm", "dgx-h100", "tpu-v3-pod"):
            figures = json.loads(moesim("hardware", name, "--json").stdout)["figures"]
            assert figures
            assert all(figure["source"] and figure["kind"] for figure in figures)
        text = moesim("hardware", "h100-sxm").stdout
        assert "accelerator peak.bf16" in text
        assert "datasheet" in text

    @pytest.mark.parametrize("name", cluster_names())
    def test_every_cluster_can_be_shown(self, name: str) -> None:
        assert moesim("hardware", name).exit_code == 0

    def test_unknown_names_are_one_line(self) -> None:
        assert "Did you mean 'mixtral-8x7b'?" in refused("models", "mixtral-8x7")
        assert "Did you mean 'h100-sxm'?" in refused("hardware", "h100-sx")
        assert "Did you mean 'dgx-h100'?" in refused("hardware", "dgx-h10")


class TestSchema:
    def test_it_goes_to_stdout_or_to_a_file(self) -> None:
        text = moesim("schema").stdout
        Draft7Validator.check_schema(json.loads(text))
        assert moesim("schema", "--out", "s.json").output == ""
        assert Path("s.json").read_text(encoding="utf-8") == text

    @pytest.mark.parametrize("kind", ["model", "accelerator", "cluster", "software"])
    def test_other_files_have_one_too(self, kind: str) -> None:
        done = moesim("schema", "--kind", kind)
        assert json.loads(done.stdout)["title"] == f"moesim {kind}"

    def test_mistakes_are_one_line(self) -> None:
        assert "Did you mean 'cluster'?" in refused("schema", "--kind", "clster")
        assert refused("schema", "--out", "no/such/file") == (
            "moesim: no/such/file: No such file or directory"
        )

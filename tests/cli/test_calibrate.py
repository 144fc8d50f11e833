"""`moesim calibrate` as a command: options, errors, what it prints; measured on paper."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moesim.calibrate import session
from moesim.calibrate.fit import fit
from moesim.cli.calibrate import seconds
from moesim.cli.main import app
from moesim.errors import ScenarioError
from tests.unit.calibrate.made_up import samples, target


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def moesim(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["calibrate", *arguments])


@pytest.fixture
def on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calibration of a made-up device in place of a measured one."""

    def calibrated(wish: session.Wish, progress: object) -> session.Calibration:
        found = samples()
        return session.Calibration(
            target=target(), name=wish.name or target().slug, samples=tuple(found),
            fitted=fit(target(), found), spread=0.01, conditions="load average 0.1",
            measured=len(found),
        )  # fmt: skip

    monkeypatch.setattr(session, "calibrate", calibrated)


@pytest.mark.parametrize(
    ("text", "value"), [("2m", 120.0), ("90s", 90.0), ("1h", 3600.0), ("1.5 min", 90.0)]
)
def test_budgets(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["2", "m", "-2m", "1s", "25h", "2 minutes", "", "nan m"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(ScenarioError, match="--budget"):
        seconds(text)
    done = moesim("--budget", text)
    assert (done.exit_code, done.stdout) == (2, "")


def test_help_names_every_option() -> None:
    done = moesim("--help")
    assert done.exit_code == 0
    for option in ("--budget", "--device", "--threads", "--processes", "--out", "--name",
                   "--fresh", "--accept-noise", "--verify", "--check", "--json"):  # fmt: skip
        assert option in done.stdout


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done = moesim()
    assert (done.exit_code, done.stdout) == (2, "")
    assert "pip install 'moesim[calibrate]'" in done.stderr


@pytest.mark.parametrize("name", ["../up", "a b", "", "x/y"])
def test_a_name_names_files(name: str) -> None:
    done = moesim("--name", name)
    assert done.exit_code == 2
    assert "--name" in done.stderr


@pytest.mark.usefixtures("on_paper")
def test_profiles_are_written_and_a_scenario_can_use_them() -> None:
    done = moesim("--out", "here", "--name", "mine")
    assert done.exit_code == 0, done.output
    assert "Shapes left out of the fit" in done.stdout
    assert sorted(path.name for path in Path("here").iterdir()) == [
        "mine-cluster.yaml", "mine-software.yaml", "mine-torch.yaml", "mine.yaml",
    ]  # fmt: skip
    Path("s.yaml").write_text(
        "model: olmo-1b\ncluster: {profile: here/mine-cluster.yaml, devices: 1}\n"
        "software: here/mine-software.yaml\n"
        "training: {sequence_length: 64, global_batch: 1}\n",
        encoding="utf-8",
    )
    ran = CliRunner().invoke(app, ["run", "s.yaml", "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)


@pytest.mark.usefixtures("on_paper")
def test_json_has_the_figures_and_the_files() -> None:
    done = moesim("--json")
    facts = json.loads(done.stdout)
    assert facts["peak_flop_per_s"]["fp32"] > 0
    assert facts["held_out_median_error"] < 0.05
    assert all(Path(path).is_file() for path in facts["files"])


@pytest.mark.usefixtures("on_paper")
@pytest.mark.parametrize(("error", "code"), [(1.05, 0), (1.5, 3)])
def test_verify_is_judged_with_check(
    monkeypatch: pytest.MonkeyPatch, error: float, code: int
) -> None:
    from moesim.calibrate.verify import run
    from moesim.calibrate.verify.compare import Verification
    from tests.unit.calibrate.test_verify import MOE, compared, trial

    found = Verification((compared(trial(MOE.twin), 1.0, 1.0), compared(trial(), 2.0, 2 * error)))
    monkeypatch.setattr(run, "verify", lambda done, progress: found)
    done = moesim("--verify", "--check")
    assert done.exit_code == code, done.output
    assert ("missed: moe step" in done.stdout) == (code == 3)
    assert "over dense" in done.stdout
    assert moesim("--verify").exit_code == 0
    rows = json.loads(moesim("--verify", "--json").stdout)
    assert len(rows["verify"]) == 2
    assert set(rows["medians"]) == {"dense step", "moe step", "moe over dense"}

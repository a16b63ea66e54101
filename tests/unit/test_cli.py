"""The command line: dispatch, one-line errors, `poa run` and `poa bench`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from poa import cli
from poa.benchmarks import Figures, environment, interleave
from poa.benchmarks._timing import skipped
from poa.commands import composition
from poa.errors import PoaError

CHECKOUT = Path(__file__).parents[2] / "conf"
FILES = {
    "datanet/installed_docs.yaml": "_target_: d\n",
    "model/tiny.yaml": "layers: 2\n",
    "recipe/lora.yaml": "learning_rate: 0.1\nsteps: 3\n",
    "policy/net_epoch.yaml": "id: p\n",
    "logger/none.yaml": "_target_: q\n",
    "method/tracin.yaml": "_target_: t\n",
    "method/graddot.yaml": "_target_: g\n",
    "method/datainf.yaml": "_target_: i\ndamping: 0.1\n",
    "method/spans.yaml": "_target_: s\n",
    "experiment/quickstart.yaml": ("# @package _global_\ndefaults: [override /method: datainf]\nrecipe: {steps: 5}\n"),
    "experiment/seeds.yaml": ("# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: 'range(3)'}}}\n"),
}
Jobs = list[tuple[dict[str, Any], Path]]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """The shipped config.yaml over small groups, in an empty working folder; the pipeline only notes its jobs."""
    conf = tmp_path / "conf"
    for name, text in (FILES | {"config.yaml": (CHECKOUT / "config.yaml").read_text()}).items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / name).write_text(text)
    seen: Jobs = []

    def run_job(config: dict[str, Any], out: Path) -> dict[str, Any]:
        if config["recipe"]["steps"] < 0:
            raise PoaError("recipe.steps is negative")
        seen.append((config, out))
        (out / "result.txt").write_text("done")
        return {}

    pipeline = types.ModuleType("poa.pipeline.job")
    pipeline.run_job = run_job  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "poa.pipeline", types.ModuleType("poa.pipeline"))
    monkeypatch.setitem(sys.modules, "poa.pipeline.job", pipeline)
    monkeypatch.setattr(composition, "conf_folder", lambda: conf)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return seen


def test_one_run_gets_its_configuration_and_folder(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "experiment=quickstart", "seed=7"]) == 0
    ((config, out),) = jobs
    assert config["seed"] == 7
    assert config["recipe"] == {"learning_rate": 0.1, "steps": 5}
    assert config["method"] == {"_target_": "i", "damping": 0.1}
    assert config["choices"]["method"] == "datainf"
    assert config["choices"]["experiment"] == "quickstart"
    runs, name, date, job = out.relative_to(Path.cwd()).parts
    assert (runs, name) == ("runs", "quickstart")
    assert len(date) == len("2026-01-31")
    assert job.startswith("datainf-seed7-")
    assert yaml.safe_load((out / "config.yaml").read_text()) == config
    assert sorted(path.name for path in out.iterdir()) == ["config.yaml", "result.txt"]
    assert capsys.readouterr() == ("", "")  # Hydra is silent


def test_the_same_command_finds_its_folder_again_and_another_does_not(jobs: Jobs) -> None:
    for words in (["seed=1"], ["seed=1"], ["seed=1", "recipe.steps=4"]):
        assert cli.main(["run", *words]) == 0
    first, again, other = (out for _, out in jobs)
    assert first == again
    assert first != other


def test_a_sweep_runs_the_product(jobs: Jobs) -> None:
    assert cli.main(["run", "-m", "method=graddot,datainf,spans", "seed=0,1"]) == 0
    ran = [(config["choices"]["method"], config["seed"]) for config, _ in jobs]
    assert ran == [(method, seed) for method in ("graddot", "datainf", "spans") for seed in (0, 1)]
    assert len({out for _, out in jobs}) == 6
    assert len({out.parent for _, out in jobs}) == 1


def test_a_preset_may_sweep_by_itself(jobs: Jobs) -> None:
    assert cli.main(["run", "experiment=seeds"]) == 0
    assert [config["seed"] for config, _ in jobs] == [0, 1, 2]


def test_options_may_stand_between_overrides(jobs: Jobs) -> None:
    assert cli.main(["run", "method=spans", "-m", "seed=3,4"]) == 0
    assert [config["seed"] for config, _ in jobs] == [3, 4]


def test_show_prints_and_runs_nothing(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "-m", "seed=1,2", "--show"]) == 0
    shown = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [one["seed"] for one in shown] == [1, 2]
    assert jobs == []
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["method=gradot"], "unknown method 'gradot'; did you mean 'graddot'?"),
        (["-m", "method=spans,gradot"], "unknown method 'gradot'; did you mean 'graddot'?"),
        (["recipe.lerning_rate=1"], "unknown option 'recipe.lerning_rate'; did you mean 'recipe.learning_rate'?"),
        (["-m", "seed=1", "recipe.stepps=1,2"], "did you mean 'recipe.steps'?"),
        (["lerning_rate=1"], "did you mean 'recipe.learning_rate'?"),
        (["metod=tracin"], "unknown option 'metod'; did you mean 'method'?"),
        (["sed=1"], "unknown option 'sed'; did you mean 'seed'?"),
        (["method.damping.x=1", "method=datainf"], "unknown option 'method.damping.x'; did you mean 'method.damping'?"),
        (["experiment=quikstart"], "unknown experiment 'quikstart'; did you mean 'quickstart'?"),
        (["hydra/launcher=joblb"], "did you mean 'joblib'?"),
        (["seed=0,1"], "'seed=0,1' has several values: sweep over them with `poa run -m ...`"),
        (["quickstart"], "'quickstart' is not an override: write key=value"),
        (["method=null"], "unknown method 'null'"),
        (["~method"], "'~method' leaves a group out"),
        (["seed=[1"], "no viable alternative at input '[1'"),
        (["seed=${nope}"], "Interpolation key 'nope' not found"),
        (["--mutirun", "seed=1"], "unknown option of `poa run` '--mutirun'; did you mean '--multirun'?"),
        (["recipe.steps=-1", "seed=4"], "recipe.steps is negative"),
        (["-m", "recipe.steps=-1,-2", "out=new/deep"], "2 of 2 jobs failed: recipe.steps=-1: recipe.steps is negative"),
    ],
)
def test_a_wrong_word_is_one_line_and_leaves_nothing(
    jobs: Jobs, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert cli.main(["run", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("poa: error: ")
    assert says in err
    assert err.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []
    assert jobs == []


def test_a_failed_run_keeps_what_was_there(jobs: Jobs) -> None:
    kept = Path("runs/notes.txt")
    kept.parent.mkdir()
    kept.write_text("mine")
    Path("empty").mkdir()
    assert cli.main(["run", "recipe.steps=-1"]) == 2
    assert cli.main(["run", "recipe.steps=-1", "out=empty"]) == 2
    assert sorted(map(str, Path().rglob("*"))) == ["empty", "runs", "runs/notes.txt"]


def test_one_bad_job_does_not_stop_a_sweep(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "-m", "recipe.steps=1,-1,2"]) == 2
    assert [config["recipe"]["steps"] for config, _ in jobs] == [1, 2]
    assert all((out / "result.txt").is_file() for _, out in jobs)
    assert "1 of 3 jobs failed: recipe.steps=-1: recipe.steps is negative" in capsys.readouterr().err
    assert len([path for path in jobs[0][1].parent.iterdir() if path.is_dir()]) == 2


def test_an_output_folder_that_cannot_be_made(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert cli.main(["run", "out=file"]) == 2
    err = capsys.readouterr().err
    assert "cannot make the output folder" in err
    assert err.count("\n") == 1
    assert [path.name for path in Path.cwd().iterdir()] == ["file"]


def test_an_unexpected_error_keeps_its_traceback(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: dict[str, Any], out: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["poa.pipeline.job"], "run_job", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run"])


def interrupt(config: dict[str, Any], out: Path) -> None:
    raise KeyboardInterrupt


def test_an_interruption_says_how_to_go_on(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.modules["poa.pipeline.job"], "run_job", interrupt)
    assert cli.main(["run"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to continue\n"


def test_the_shipped_configuration_is_found() -> None:
    assert composition.conf_folder() == CHECKOUT.resolve()


@pytest.mark.parametrize("word", sorted(f"{path.parent.name}={path.stem}" for path in CHECKOUT.glob("*/*.yaml")))
def test_every_shipped_option_composes(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    # A mandatory value ("???") is the only reason why an option may be incomplete by itself, and it is named.
    code = cli.main(["run", word, "--show"])
    out, err = capsys.readouterr()
    if code:
        assert "must be given: add " in err
    else:
        group = word.split("=")[0]
        assert group == "experiment" or all(group in one for one in yaml.safe_load_all(out))


@pytest.mark.slow
def test_a_wheel_carries_its_configuration(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(CHECKOUT.parent),
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*build, "-q", "-w", str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("poa-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from poa.commands.composition import conf_folder; from poa.cli import main\n"
        "print(conf_folder()); sys.exit(main(['run', 'method=tracin', '--show']))"
    )
    # -I keeps the working folder and the environment out; the wheel's folder stands before the editable install.
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, rest = done.stdout.split("\n", 1)
    assert Path(first) == (tmp_path / "site" / "poa" / "conf").resolve()
    assert yaml.safe_load(rest)["seed"] == 0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["bemch"], "unknown command 'bemch'; did you mean 'bench'?"),
        (["--hlep"], "unknown option of `poa` '--hlep'; did you mean '--help'?"),
        (["methods", "--site"], "unknown option of `poa methods` '--site'; did you mean '--cite'?"),
        (["bench", "import_tim"], "unknown benchmark 'import_tim'; did you mean 'import_time'?"),
        (["version", "extra"], "unrecognized arguments: extra (see `poa version --help`)"),
    ],
)
def test_unknown_words_name_the_nearest(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_names_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: poa {name}")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_imports_no_torch(name: str) -> None:
    code = f"import sys; from poa.cli import main; main([{name!r}, '--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_python_m_poa_is_poa() -> None:
    done = subprocess.run([sys.executable, "-m", "poa", "run", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not an override" in done.stderr


def test_a_closed_pipe_is_no_error() -> None:
    code = "import sys; from poa.cli import main; sys.exit(main(['version']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == 0


@pytest.mark.parametrize(("words", "code"), [([], 0), (["version"], 0), (["run"], 141), (["bench"], 141)])
def test_work_that_a_closed_pipe_cuts_short_is_told(
    monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    def broken(arguments: list[str]) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "_dispatch", broken)
    monkeypatch.setattr(cli.os, "dup2", lambda *_: None)
    assert cli.main(words) == code


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    import poa

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"poa {poa.__version__}\n"
    assert cli.main(["version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"poa {poa.__version__}"
    assert any(line.startswith("torch 2.") for line in lines)


def test_every_method_is_listed_with_its_reference(capsys: pytest.CaptureFixture[str]) -> None:
    from poa import methods

    assert cli.main(["methods", "--cite"]) == 0
    shown = capsys.readouterr().out
    for name, kind in methods.available().items():
        assert f"\n{name} " in f"\n{shown}"
        assert kind.citation.split("\n")[0].strip() in shown


def test_every_method_says_what_it_needs_costs_and_was_measured_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from poa import methods
    from poa.commands import methods as command

    rows = {
        "graddot": {"identity": repr(methods.GradDot()), "interval": [-0.1, 0.7]},
        "influence": {"identity": "Influence(damping=1.0)", "interval": [0.5, 0.85]},
        "bm25": {"identity": "BM25()", "interval": [0.0, 0.0]},
    }
    told = {"graddot": 0.634, "influence": 0.77, "bm25": None}
    result = {"methods": {name: row | {"spearman_vs_truth": told[name]} for name, row in rows.items()}}
    (tmp_path / "first.json").write_text(json.dumps(result))
    (tmp_path / "other.json").write_text(json.dumps({"figures": {}}))
    monkeypatch.setattr(command, "results_folder", lambda: tmp_path)
    assert cli.main(["methods"]) == 0
    shown = capsys.readouterr().out
    entries = re.split(r"\n(?=\w)", shown)
    assert [entry.split()[0] for entry in entries] == sorted(methods.available())
    by_name = {entry.split()[0]: entry for entry in entries}
    for name, kind in methods.available().items():
        assert f"needs {kind.needs}; costs {kind.cost}" in by_name[name]
        assert by_name[name].split()[1] == kind.family
        assert ("not measured" in by_name[name]) == (name not in ("graddot", "influence"))
    assert by_name["graddot"].rstrip().endswith("Spearman +0.63 [-0.10, +0.70] with retraining (first)")
    assert by_name["influence"].rstrip().endswith("(first), as Influence(damping=1.0)")
    (tmp_path / "broken.json").write_text('{"methods": {"bm25": 3}}')
    assert cli.main(["methods"]) == 2
    assert "broken.json is not a committed result" in capsys.readouterr().err


def test_one_method_shows_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import fields

    from poa import methods

    for name, kind in methods.available().items():
        assert cli.main(["methods", name, "--cite"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"{name}  {kind.family}")
        made = kind()
        settings = [f"    {field.name} = {getattr(made, field.name)!r}" for field in fields(kind)]
        lines = [line.removeprefix(" " * len(name)) for line in shown.splitlines()]
        assert [line for line in lines if " = " in line and line.startswith("    ")] == settings
        assert kind.citation.split("\n")[0].strip() in shown


def test_the_committed_results_are_cards() -> None:
    from poa.evaluation.cards import cards, results_folder

    assert results_folder() == CHECKOUT.resolve().parent / "experiments" / "results"
    found = cards(results_folder())
    assert "graddot" in found
    assert all(card.low <= card.mean <= card.high for measured in found.values() for card in measured)
    assert cards(None) == {}


def test_a_benchmark_ends_with_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "import_time"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out.splitlines()[-1])
    assert set(result) == {"bench", "figures", "ranges", "environment"}
    assert result["bench"] == "import_time"
    (name,) = result["figures"]
    low, high = result["ranges"][name]
    assert 0 < low <= result["figures"][name] <= high
    assert result["figures"][name] < 1  # importing poa must cost less than importing numpy
    assert result["environment"]["python"].startswith("3.")
    assert "import_time" in err


def test_the_environment_names_no_machine() -> None:
    import getpass
    import platform

    text = json.dumps(environment())
    assert platform.node() not in text
    assert f'"{getpass.getuser()}"' not in text


@pytest.mark.parametrize(
    ("figures", "ranges", "says"),
    [
        ({"a": float("nan")}, {}, "figure 'a' is nan"),
        ({"a": 1.0}, {"b": (0.0, 2.0)}, "range 'b' belongs to no figure"),
        ({"a": 3.0}, {"a": (0.0, 2.0)}, "outside its range"),
    ],
)
def test_impossible_figures_are_refused(figures: dict[str, float], ranges: Any, says: str) -> None:
    with pytest.raises(PoaError, match=says):
        Figures(figures, ranges)


def scripted(clock: dict[str, list[float]], calls: list[str]) -> Callable[[Callable[[], str]], float]:
    def seconds(call: Callable[[], str]) -> float:
        name = call()
        calls.append(name)
        return clock[name].pop(0)

    return seconds


def test_interleaving_alternates_and_takes_the_median_of_ratios() -> None:
    # The first value of each is the unmeasured round; the machine is ten times slower in rounds 2 and 4.
    clock = {"a": [99.0, 2.0, 20.0, 3.0, 40.0], "b": [99.0, 1.0, 10.0, 1.0, 10.0]}
    calls: list[str] = []
    ratio = interleave(lambda: "a", lambda: "b", 4, scripted(clock, calls))
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab" + "ba"
    assert (ratio.median, ratio.low, ratio.high) == (2.5, 2.0, 4.0)
    with pytest.raises(PoaError, match="rounds is 2"):
        interleave(lambda: "a", lambda: "b", 2)


def test_the_interval_holds_the_median_often_enough_and_is_the_narrowest() -> None:
    # Brute force over all above/below patterns: the interval misses the median iff at most `skip` values are on a side.
    for count in range(3, 15):

        def missed(skip: int, count: int = count) -> float:
            below = [bin(pattern).count("1") for pattern in range(2**count)]
            return sum(k <= skip or count - k <= skip for k in below) / 2**count

        skip = skipped(count)
        assert missed(skip) <= 0.05 or skip == 0
        assert missed(skip + 1) > 0.05

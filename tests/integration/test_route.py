"""`poa run` takes the whole route on a small model, twice with the same bytes, and refuses wrong inputs cleanly."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.language import TOPICS, general, small_base, writings

from poa.cli import main
from poa.factory.causal import CausalLM
from poa.records import Corpus
from poa.scores import Scores


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    (writings(5, seed=5) + writings(5, seed=6)).to_jsonl(path)
    return path


@pytest.fixture(scope="module")
def base_folder(cache: None) -> Path:
    return small_base()


@pytest.fixture(scope="module", autouse=True)
def own_placebo() -> Iterator[None]:
    """Placebos of the base's own words: those of all installed packages take half a minute to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poa.pipeline.answers.general_docs", general)
        yield


def words(texts: Path, base_folder: Path, out: Path, *more: str) -> list[str]:
    return [
        "run",
        "datanet=jsonl",
        f"datanet.path={texts}",
        "model=folder",
        f"model.base={base_folder}",
        "method=tracin",
        "recipe.rank=2",
        "recipe.epochs=3",
        "recipe.batch=4",
        "recipe.checkpoints=2",
        "recipe.rate=0.02",
        "select.contributors=4",
        "select.records=4",
        "select.queries=1",
        "select.responses=2",
        "select.shortest=20",
        "select.longest=400",
        "answers.placebo=2",
        f"out={out}",
        "name=route",
        "job=job",
        *more,
    ]


FULL = ("stages.compare=[graddot,bm25]", "stages.truth=[0,1]", "stages.pay=true", "stages.report=true")


def result(out: Path) -> Path:
    (summary,) = out.rglob("summary.json")
    return summary.parent


@pytest.fixture(scope="module")
def route(texts: Path, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        # In this process: starting workers costs more than these trainings.
        patch.setattr("poa.factory.counterfactual.os.cpu_count", lambda: 1)
        assert main(words(texts, base_folder, out, *FULL)) == 0
    return result(out)


@pytest.fixture
def summary(route: Path) -> dict[str, Any]:
    return json.loads((route / "summary.json").read_text())


def test_the_summary_says_what_was_measured(summary: dict[str, Any]) -> None:
    assert summary["heldout_nll"]["tuned"] < summary["heldout_nll"]["base"]
    assert set(summary["methods"]) == {"tracin", "graddot", "bm25"}
    for row in summary["methods"].values():
        assert row["seconds"] >= 0
        low, high = row["interval"]
        assert -1 <= low <= row["spearman_vs_truth"] <= high <= 1 + 1e-12
    assert summary["seconds"]["total"] == pytest.approx(
        sum(seconds for stage, seconds in summary["seconds"].items() if stage != "total"), abs=0.01
    )
    assert {"snapshot", "adapter", "scores"} <= set(summary["digests"])
    assert all(len(digest) == 64 for digest in summary["digests"].values())


def test_money_is_conserved(summary: dict[str, Any]) -> None:
    residuals = summary["payout"]["residuals"]
    assert set(summary["payout"]) == {"net-epoch", "openledger-printed", "residuals"}
    for name, rule in summary["settlement"].items():
        payees = summary["payout"][name]
        assert all(isinstance(amount, int) and amount >= 0 for amount in payees.values())
        assert set(payees) <= set(TOPICS)
        given = (*payees.values(), *residuals[name].values(), *rule["parts"].values(), rule["carry"])
        assert sum(given) == rule["fee"] == 8 * 1_000_000
    assert sorted(rule["payable"] for rule in summary["settlement"].values()) == [False, True]


def test_the_ledger_verifies(summary: dict[str, Any], route: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary["ledger"]["verified"] is True
    assert summary["ledger"]["size"] > 10
    ledger = route / "ledger" / "ledger.sqlite"
    assert main(["ledger", "verify", str(ledger), "--vkey", str(route / "ledger" / "vkey")]) == 0
    assert summary["ledger"]["root"] in capsys.readouterr().out
    assert main(["ledger", "verify", str(route / "ledger" / "export")]) == 0
    proof = ["ledger", "verify", str(route / "ledger" / "receipt"), "--vkey", str(route / "ledger" / "vkey")]
    assert main(proof) == 0


def test_a_flipped_byte_in_the_ledger_is_found(route: Path, tmp_path: Path) -> None:
    body = (route / "ledger" / "ledger.sqlite").read_bytes()
    with sqlite3.connect(route / "ledger" / "ledger.sqlite") as open_ledger:
        names = [row[0] for row in open_ledger.execute("select name from sqlite_master where type = 'table'")]
    open_ledger.close()
    assert names
    place = body.index(b"adapter") + 3
    altered = tmp_path / "ledger.sqlite"
    altered.write_bytes(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :])
    assert main(["ledger", "verify", str(altered)]) != 0


def test_the_report_stands_alone(route: Path) -> None:
    page = (route / "report.html").read_text()
    assert "<html" in page
    assert "Whose data shaped these answers?" in page
    assert 'src="http' not in page
    for topic in TOPICS:
        assert topic in page


def test_scores_are_stored_with_their_run(route: Path, summary: dict[str, Any]) -> None:
    scores = Scores.load(route / "scores" / "tracin.safetensors")
    assert scores.digest == summary["digests"]["scores"]
    assert scores.meta["run"] == summary["digests"]["run"]
    assert scores.values.shape == (4 + 8 + 2 + 2, 16)  # queries, paid, placebos, random words of their own


def test_a_second_run_gives_the_same_bytes(
    route: Path,
    texts: Path,
    base_folder: Path,
    summary: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("poa.factory.counterfactual.os.cpu_count", lambda: 1)
    monkeypatch.setenv("POA_CACHE", str(tmp_path / "another-cache"))
    assert main(words(texts, base_folder, tmp_path / "out", *FULL)) == 0
    again = result(tmp_path / "out")
    found = json.loads((again / "summary.json").read_text())
    assert found["digests"] == summary["digests"]
    assert found["payout"] == summary["payout"]
    assert found["ledger"] == summary["ledger"]
    for name in ("tracin", "graddot", "bm25"):
        first, second = (Scores.load(folder / "scores" / f"{name}.safetensors") for folder in (route, again))
        assert first.values.tobytes() == second.values.tobytes()
    assert (again / "ledger" / "export" / "checkpoint").read_bytes() == (
        route / "ledger" / "export" / "checkpoint"
    ).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("datanet.path=missing.jsonl", "missing.jsonl"),
        ("method=tracing", "did you mean 'tracin'"),
        ("seed=abc", "seed is 'abc', must be an integer of 0 or more"),
        ("recipe.rate=fast", "recipe.rate is 'fast', must be a number"),
        ("stages.truth=[a]", "stages.truth is ['a'], must be a list of integers"),
        ("select.records=1.5", "select.records is 1.5, must be an integer"),
        ("+recipe.epoch=1", "recipe has no option 'epoch'"),
        ("+methd=tracin", "did you mean 'method'"),
        ("method.checkpoints=bogus", "must be last or all"),
        ("stages.compare=[graddott]", "did you mean 'graddot'"),
        ("model.base=missing", "is not 'tiny', an existing folder or a hub name"),
        ("select.contributors=[cook,nobody]", "'nobody', who has no text"),
        ("select.records=400", "select asks for"),
        ("select.recods=4", "recods"),
        ("recipe.rank=0", "rank is 0"),
        ("answers.texts=['" + "onion " * 200 + "']", "the model's context is 128"),
        ("stages.pay=true", "at least two seeds"),
        ("recipe=qlora", "QLoRA"),
    ],
)
def test_wrong_inputs_leave_one_line_and_nothing_else(
    texts: Path, base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    assert main(words(texts, base_folder, tmp_path / "out", change)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("poa: error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_settings_that_nobody_measured_do_not_pay(
    texts: Path, base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = ("stages.truth=[0,1]", "stages.pay=true", "method.checkpoints=last")
    assert main(words(texts, base_folder, tmp_path / "out", *change)) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("poa: error:")]
    assert "TracInCP(checkpoints='last', coordinates='adapter') has no measured card and may not pay" in error
    assert "stages.allow_uncarded=true" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"id": "a", "text": "x"}\n{"id": \n', "bad.jsonl:2: not valid JSON"),
        (b'{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "id 'a' was already used"),
        (b"", "holds no records"),
    ],
)
def test_bad_files(
    base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes, message: str
) -> None:
    (tmp_path / "bad.jsonl").write_bytes(body)
    assert main(words(tmp_path / "bad.jsonl", base_folder, tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_control_c_and_the_same_command_again(
    route: Path,
    texts: Path,
    base_folder: Path,
    summary: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("POA_CACHE", str(tmp_path / "cache"))
    real, calls = CausalLM.loss, []

    def loss(self: CausalLM, model: Any, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(self, model, batch)

    monkeypatch.setattr(CausalLM, "loss", loss)
    assert main(words(texts, base_folder, tmp_path / "out")) == 130
    assert "run the same command again to continue" in capsys.readouterr().err
    assert not list(tmp_path.rglob("summary.json"))
    before = len(calls)
    assert main(words(texts, base_folder, tmp_path / "out")) == 0
    found = json.loads((result(tmp_path / "out") / "summary.json").read_text())
    assert found["digests"] == summary["digests"]
    # 12 steps, checkpoint after 6: training again takes 6, not 12. The rest are gradients of 16 records at 2 places,
    # where the first record is asked twice, to see that the answer is the same, and once more beside the second, to see
    # that they do not mix.
    assert len(calls) - before == 6 + 2 * (16 + 2)


def test_texts_survive_the_way(texts: Path) -> None:
    assert Corpus.from_jsonl(texts) == writings(5, seed=5) + writings(5, seed=6)

"""The README and the docs are true: their code runs as written, and trees, commands and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def tree() -> list[Path]:
    """Every path that the tree names."""
    (text,) = [block for block in blocks("") if "├──" in block]
    inside, found = Path(), []
    for line in text.splitlines():
        name = line.replace("├──", "").replace("└──", "").split()[0]
        if line.startswith(("├", "└")):
            found.append(inside / name)
        else:
            inside = Path(name)
            found.append(inside)
    return found


def test_the_twelve_lines_run_as_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from poa.datanets import installed_docs
    from poa.factory import tiny

    recipe = tiny.TinyRecipe(vocabulary=300, width=32, layers=1, heads=2, inner=48, context=512, steps=20, length=32)
    folder = tiny.tiny_base(recipe, [f"The function number {i} returns an array of size {i * i}." for i in range(200)])
    monkeypatch.setattr(tiny, "tiny_base", lambda: folder)
    # One package instead of four: reading the others takes longer than all the rest.
    monkeypatch.setattr(installed_docs, "DATANETS", ("networkx",))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec", dont_inherit=True), {"__name__": "readme"})
    printed = capsys.readouterr().out.splitlines()
    assert all(re.match(r"[+-]\d\S*  \w", line) for line in printed[:3])
    assert "contributor" not in printed[3]
    assert printed[3].split() == ["query", "train", "score"]
    assert (tmp_path / "runs/first-scores.safetensors").is_file()
    assert len([line for line in code.splitlines() if line]) <= 12


def test_the_tree_is_there_and_complete() -> None:
    named = tree()
    missing = [str(path) for path in named if not (ROOT / path).exists()]
    assert missing == []
    package = {path.name for path in named if path.parent == Path("src/poa")}
    folders = {path.parent.name for path in (ROOT / "src/poa").glob("*/__init__.py")}
    assert folders - package == set()


def test_links_and_commands_lead_somewhere() -> None:
    from poa.cli import COMMANDS

    targets = (ROOT / "Makefile").read_text()
    for page in (ROOT / "README.md", ROOT / "experiments/README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
        for command in re.findall(r"^poa (\w+)|`poa (\w+)", text, re.MULTILINE):
            assert "".join(command) in COMMANDS, page.name
        for target in re.findall(r"`make ([a-z-]+)`", text):
            assert re.search(rf"^{target}( [\w-]+)*:", targets, re.MULTILINE), f"{page.name}: make {target}"


def test_the_docs_name_every_method() -> None:
    from poa.methods import available

    named = re.findall(r"^\*\*`(\w+)`\*\*", (ROOT / "docs/methods.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(available())
    choosing = (ROOT / "docs/choosing.md").read_text(encoding="utf-8")
    assert [name for name in available() if f"`{name}`" not in choosing] == []


def test_the_method_that_the_docs_write_keeps_the_laws(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {"__name__": "extending"}
    exec(compile("\n".join(blocks("python", text)), "extending.md", "exec", dont_inherit=True), scope)
    assert "Length  text-bigram" in capsys.readouterr().out


def test_the_run_that_the_docs_advise_composes(capsys: pytest.CaptureFixture[str]) -> None:
    from poa.cli import main

    (advised,) = blocks("", (ROOT / "docs/choosing.md").read_text(encoding="utf-8"))
    assert main([*advised.split()[1:], "--show"]) == 0
    assert "- tracin" in capsys.readouterr().out

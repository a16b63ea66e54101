"""Running prose out of Python docstrings: what a person would read, without code, tables and lists of names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

SHORTEST, LONGEST = 200, 900

_UNDERLINE = re.compile(r"\s*([=\-~^*#\"'`+])\1{2,}\s*")
_TABLE = re.compile(r"\s*([+|].*[+|]|[=\-]{2,}(\s+[=\-]{2,})+)\s*")
_ENTRY = re.compile(r"[`*]{0,2}[A-Za-z_.][\w.`*\[\]]*(, ?[`*.\w\[\]]+)*( ?\(.*\))? ?:( .*|\Z)")
_SKIPPED_SECTION = re.compile(r"(references?|see also|examples? usage|methods|routines|contents|bibliography)\W*", re.I)
_SECTION = re.compile(r"[A-Z][A-Za-z ]{2,30}:")
_DIRECTIVE = re.compile(r"\s*\.\. ([\w:-]+)::(.*)")
_KEPT_DIRECTIVES = frozenset(("note", "warning", "tip", "important", "hint", "caution", "seealso", "admonition"))
_FOOTNOTE = re.compile(r"\s*\.\. (\[|_|\|)")
_BULLET = re.compile(r"\s*([-*+•]|\d{1,2}[.)]|\(\w\))\s+")
_MARKUP = (
    (re.compile(r":[a-zA-Z:+-]+:`~?!?([^`<]*?)\s*(<[^`>]*>)?`"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}"), r"\1"),
    (re.compile(r"``([^`]*)``"), r"\1"),
    (re.compile(r"`([^`]*)`_{0,2}"), r"\1"),
    (re.compile(r"\*\*([^*\s][^*]*)\*\*"), r"\1"),
    (re.compile(r"(?<!\w)\*([^*\s][^*]*)\*(?!\w)"), r"\1"),
    (re.compile(r"\s*\[#?[\w-]{1,12}\]_"), ""),
)
_PLACEHOLDER = re.compile(r"%\(\w+\)|\$\{|\{\{")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_WORD = re.compile(r"(?<![\w.\\])[A-Za-z][a-z'’]+(?![\w\\(=\[])")


def passages(docstring: str, longest: int = LONGEST) -> list[str]:
    """Prose of one docstring in passages of 200 to `longest` characters, white space folded, markup removed.

    Neighbouring paragraphs share a passage while they fit; a longer paragraph is split at sentence ends. Code,
    doctests, tables, display mathematics, headings, signature lines and reference lists are left out.
    """
    pieces = [piece for paragraph in _paragraphs(docstring) for piece in _split(_fold(paragraph), longest)]
    packed: list[str] = []
    for piece in filter(_is_sentence, pieces):
        if packed and len(packed[-1]) + 1 + len(piece) <= longest:
            packed[-1] += " " + piece
        else:
            packed.append(piece)
    return [passage for passage in packed if _is_prose(passage)]


def _paragraphs(docstring: str) -> Iterator[list[str]]:
    lines = inspect.cleandoc(docstring).splitlines()
    open_lines: list[str] = []
    hidden: int | None = None  # lines indented deeper than this belong to a hidden block
    section = False  # inside a section that is left out whole
    doctest = False
    for i, line in enumerate(lines):
        following = lines[i + 1] if i + 1 < len(lines) else ""
        bare = line.strip()
        indent = len(line) - len(line.lstrip())
        heading = bool(bare) and _UNDERLINE.fullmatch(following) is not None and not _UNDERLINE.fullmatch(line)
        if heading or (_SECTION.fullmatch(bare) and (not following.strip() or _indent(following) > indent)):
            yield open_lines
            open_lines, hidden, doctest = [], None, False
            section = _SKIPPED_SECTION.fullmatch(bare) is not None
            continue
        if hidden is not None and bare:
            if indent > hidden:
                continue
            hidden = None
        doctest = bool(bare) and (doctest or bare.startswith((">>>", "In [", "$ ", "%")))
        if section or doctest or not bare or _UNDERLINE.fullmatch(line) or _TABLE.fullmatch(line):
            yield open_lines
            open_lines = []
            continue
        if (directive := _DIRECTIVE.fullmatch(line)) or _FOOTNOTE.match(line):
            yield open_lines
            open_lines = []
            if directive is None or directive[1] not in _KEPT_DIRECTIVES:
                hidden = indent
            continue
        if bare.startswith("```"):
            yield open_lines
            open_lines, section = [], not section
            continue
        if _ENTRY.fullmatch(bare) and (len(bare) < 80 and _indent(following) > indent):
            yield open_lines
            open_lines = []
            continue
        if _BULLET.match(line):
            yield open_lines
            open_lines = [_BULLET.sub("", line, count=1)]
        else:
            open_lines.append(line)
        if bare.endswith("::"):
            hidden = indent
            open_lines[-1] = line.rstrip(": ") + ":"
            yield open_lines
            open_lines = []
    yield open_lines


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip()) if line.strip() else 0


def _fold(lines: list[str]) -> str:
    text = " ".join(" ".join(lines).split())
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def _split(text: str, longest: int) -> Iterator[str]:
    """Pieces of at most `longest` characters that end at sentence ends; a sentence longer than that is dropped."""
    if len(text) <= longest:
        yield text
        return
    open_piece = ""
    for sentence in _SENTENCE_END.split(text):
        if len(sentence) > longest:
            continue
        if open_piece and len(open_piece) + 1 + len(sentence) > longest:
            yield open_piece
            open_piece = sentence
        else:
            open_piece = f"{open_piece} {sentence}".strip()
    yield open_piece


def _is_sentence(text: str) -> bool:
    if _PLACEHOLDER.search(text):
        return False
    words = len(_WORD.findall(text))
    return words >= 4 and words >= 0.55 * len(text.split()) and text.isprintable()


def _is_prose(text: str) -> bool:
    letters = sum(character.isalpha() or character == " " for character in text)
    return len(text) >= SHORTEST and letters >= 0.86 * len(text) and any(mark in text for mark in ".!?")

"""What counts as prose in a docstring."""

from __future__ import annotations

import pytest

from poa.datanets.installed_docs import docstrings
from poa.datanets.prose import passages

SENTENCE = "The estimate is computed from every sample that the caller hands over, and it is unbiased."
DOC = f"""Summary of the function.

{SENTENCE} {SENTENCE} See :func:`scipy.stats.norm` and ``x_code``, or `the guide <http://a.b>`_.

Parameters
----------
x : array_like, shape (n,)
    {SENTENCE}
y : int, optional
    {SENTENCE}

Notes
-----
{SENTENCE} It is written as [1]_:

.. math::

    \\sum_i secret_formula_i

.. versionadded:: 1.2

.. note::
    A kept remark about the method that people should read before they use it.

=====  ======
table  secret
=====  ======

References
----------
.. [1] A. Secret, "A paper that is secret and listed here only as a reference", 1999.

Examples
--------
>>> secret = 1
>>> print(secret)
secret

Another sentence stands between the examples and explains what they show to the reader.

    $ secret command
"""


def test_prose_is_kept_and_the_rest_is_left_out() -> None:
    text = " ".join(passages(DOC))
    assert "secret" not in text
    assert "array_like" not in text
    assert "versionadded" not in text
    assert ">>>" not in text
    assert "Parameters" not in text
    assert text.count(SENTENCE) == 5
    assert "See scipy.stats.norm and x_code, or the guide." in text
    assert "A kept remark about the method" in text
    assert "Another sentence stands between" in text


def test_passages_have_the_promised_length_and_end_at_sentences() -> None:
    long = " ".join(f"{SENTENCE[:-1]}, round {number}." for number in range(40))
    found = passages(long)
    assert len(found) > 3
    assert all(200 <= len(passage) <= 900 and passage.endswith(".") for passage in found)
    assert " ".join(found) == long


def test_google_style_sections() -> None:
    text = " ".join(passages(f"{SENTENCE}\n\nArgs:\n    size (int): {SENTENCE}\n\n    {SENTENCE}\n"))
    assert text == f"{SENTENCE} size (int): {SENTENCE} {SENTENCE}"


@pytest.mark.parametrize(
    "text",
    ["", "Too short.", "a=1; b=2; c=f(a, b); " * 20, "| a | b |\n" * 50, "no_sentence_here " * 40, "x" * 400],
)
def test_what_is_not_prose(text: str) -> None:
    assert passages(text) == []


def test_literals_of_a_source_file() -> None:
    body = "word " * 60 + "\n" + "word " * 60
    source = f'"""{body}"""\nclass A:\n    def f(self):\n        """{body}"""\nadd_newdoc("x", (\n    """{body}"""))\n'
    source += "short = '''a\nb'''\nbad = '\\d'\n"
    assert [owner for owner, _ in docstrings(source.encode())] == ["", "A.f", ""]
    assert list(docstrings(b"def broken(:\n")) == []
    assert list(docstrings(b"\x00")) == []

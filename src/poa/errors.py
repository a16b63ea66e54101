"""What can go wrong because of an input, said once and clearly.

Every error a user can cause derives from `PoaError`; the command line prints its message on one line and
exits with code 2. Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations


class PoaError(Exception):
    """A wrong input: the message names the record, field, file or option and says what would be right."""


class CorpusError(PoaError):
    """Rows that cannot become a corpus: bad fields, duplicate ids, an empty file."""


class Unsupported(PoaError):
    """A method cannot serve this task or model; the reason is the message."""


class MissingExtra(PoaError):
    """An optional library is not installed; the message says what to install."""


class Mismatch(PoaError):
    """Two artefacts that do not belong together: an adapter and a base, an index and a run."""


class Corrupt(PoaError):
    """Stored bytes do not have the digest that their manifest promises."""

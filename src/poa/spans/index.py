"""SpanIndex: the text of a manifest, its suffix array, and who registered which document when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poa.digests import plain_digest, sha256
from poa.errors import Corrupt, PoaError
from poa.spans.documents import Document, encoded, laid_out, separator, token_type
from poa.spans.stored import MANIFEST, load_arrays, save_arrays
from poa.spans.strings import Strings

Array = npt.NDArray[Any]
SCHEMA = "poa.spans/1"
_IDENTITY = ("text", "offsets", "registered", "owner_of", "owners", "owner_ends", "record_ids", "record_id_ends")
_DERIVED = ("suffixes", "minima")
_NOTE = ("vocab_size", "tokenizer_digest", "run_digest")


@dataclass(frozen=True, eq=False, repr=False)
class SpanIndex:
    """One immutable shard. All arrays are read-only; n tokens with separators, D documents.

    text: uint16[n] or uint32[n], each document preceded by the separator (all bits one), in registration order, so
    that text position is time. suffixes: int32[n] text positions in the order of their suffixes. minima: block minima
    of `suffixes`. offsets: int64[D + 1] positions of the separators, then n. registered: int64[D], not falling.
    owner_of: int32[D] into `owners`. vocab_size, tokenizer_digest, run_digest: what the tokens and documents belong to.
    """

    text: Array
    suffixes: Array
    minima: Array
    offsets: Array
    registered: Array
    owner_of: Array
    owners: Strings
    record_ids: Strings
    vocab_size: int
    tokenizer_digest: str
    run_digest: str

    def __post_init__(self) -> None:
        # One kind of array only, memory-mapped or not: to numba a writable one is another type, compiled again.
        for name in ("text", "suffixes", "minima", "offsets", "registered", "owner_of"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    @staticmethod
    def build(
        documents: Iterable[Document | tuple[str, str, int, Sequence[int]]],
        vocab_size: int,
        tokenizer_digest: str,
        run_digest: str,
    ) -> SpanIndex:
        """Index `documents`, given in any order. `vocab_size` is the tokenizer's largest id + 1.

        Raises `PoaError`, naming the record, for a repeated id or a token outside the vocabulary (the separator is).
        """
        placed = laid_out(documents, vocab_size)
        text, offsets = _text(placed, vocab_size)
        owners = sorted({document.owner for document in placed})
        code = {owner: i for i, owner in enumerate(owners)}
        suffixes, minima = _sorted(text, vocab_size)
        return SpanIndex(
            text,
            suffixes,
            minima,
            offsets,
            np.array([document.registered for document in placed], np.int64),
            np.array([code[document.owner] for document in placed], np.int32),
            Strings.of(owners),
            Strings.of(document.record_id for document in placed),
            vocab_size,
            tokenizer_digest,
            run_digest,
        )

    def __len__(self) -> int:
        """Number of documents."""
        return int(self.owner_of.size)

    def __repr__(self) -> str:
        tokens = self.text.size - len(self)
        return f"SpanIndex({len(self)} documents, {len(self.owners)} owners, {tokens} tokens, {self.digest[:12]})"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over text, document table, vocabulary, tokenizer and run: what stands in every result.

        The suffix array follows from the text and takes no part.
        """
        arrays = self._arrays()
        contents = [[name, arrays[name].dtype.name, sha256(arrays[name].tobytes())] for name in _IDENTITY]
        return plain_digest([SCHEMA, contents, self._note()])

    @property
    def separator(self) -> int:
        return separator(self.vocab_size)

    def encode(self, tokens: Sequence[int] | Array, what: str) -> Array:
        """`tokens` as a query of this index; `PoaError`, naming `what`, for ids outside its vocabulary."""
        return encoded(tokens, self.vocab_size, what)

    def document_of(self, positions: Array) -> npt.NDArray[np.int64]:
        """int64[k] document numbers (registration order) of text positions int[k]."""
        return np.searchsorted(self.offsets, positions, side="right") - 1

    def owner(self, document: int) -> str:
        return self.owners[int(self.owner_of[document])]

    def tokens(self, document: int) -> Array:
        """The tokens of one document, without its separator."""
        return self.text[int(self.offsets[document]) + 1 : int(self.offsets[document + 1])]

    def save(self, folder: str | Path) -> None:
        """One .npy file per array and a manifest, in one step; replaces an index, refuses any other folder."""
        save_arrays(Path(folder), SCHEMA, self._arrays(), self._note())

    @staticmethod
    def load(folder: str | Path, check: bool = True) -> SpanIndex:
        """The index in `folder`, memory-mapped.

        `check` reads everything once: digests, document table, that the suffixes are a permutation and (sampled) in
        order. Skip it only for folders written on this machine: unchecked positions are followed without bounds.
        Raises `Corrupt`, naming the file.
        """
        arrays, note = load_arrays(Path(folder), SCHEMA, (*_IDENTITY, *_DERIVED), check)
        index = _assembled(arrays, note, Path(folder))
        if check:
            from poa.spans.verify import verify

            verify(index, Path(folder))
        return index

    def _arrays(self) -> dict[str, Array]:
        return {
            "text": self.text,
            "offsets": self.offsets,
            "registered": self.registered,
            "owner_of": self.owner_of,
            "owners": self.owners.data,
            "owner_ends": self.owners.ends,
            "record_ids": self.record_ids.data,
            "record_id_ends": self.record_ids.ends,
            "suffixes": self.suffixes,
            "minima": self.minima,
        }

    def _note(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _NOTE}


def _read_only(array: Array) -> Array:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _assembled(arrays: Mapping[str, Array], note: Mapping[str, Any], folder: Path) -> SpanIndex:
    vocab_size, tokenizer_digest, run_digest = (note.get(name) for name in _NOTE)
    if not isinstance(vocab_size, int) or not isinstance(tokenizer_digest, str) or not isinstance(run_digest, str):
        raise Corrupt(f"{folder / MANIFEST}: its note must give {', '.join(_NOTE)}")
    return SpanIndex(
        arrays["text"],
        arrays["suffixes"],
        arrays["minima"],
        arrays["offsets"],
        arrays["registered"],
        arrays["owner_of"],
        Strings(arrays["owners"], arrays["owner_ends"]),
        Strings(arrays["record_ids"], arrays["record_id_ends"]),
        vocab_size,
        tokenizer_digest,
        run_digest,
    )


def _text(placed: Sequence[Document], vocab_size: int) -> tuple[Array, npt.NDArray[np.int64]]:
    offsets = np.zeros(len(placed) + 1, np.int64)
    np.cumsum([len(document.tokens) + 1 for document in placed], out=offsets[1:])
    if offsets[-1] >= 2**31:
        raise PoaError(f"the documents have {offsets[-1]} tokens; one index holds fewer than {2**31}")
    text = np.full(int(offsets[-1]), separator(vocab_size), token_type(vocab_size))
    for start, stop, document in zip(offsets, offsets[1:], placed, strict=False):
        text[start + 1 : stop] = document.tokens
    return text, offsets


def _sorted(text: Array, vocab_size: int) -> tuple[Array, Array]:
    from poa.spans.minima import block_minima
    from poa.spans.suffix import suffix_array
    from poa.spans.verify import disorder

    text = _read_only(text)
    if text.dtype == np.uint16:
        suffixes = suffix_array(text, 1 << 16)
    else:
        # The separator would need a bucket table of 2^32 entries; ranked just above the vocabulary it sorts the same.
        ranks = text.astype(np.int32)
        ranks[text == separator(vocab_size)] = vocab_size
        suffixes = suffix_array(ranks, vocab_size + 1)
    suffixes = _read_only(suffixes)
    if disorder(text, suffixes) >= 0:
        raise AssertionError("the suffix array is out of order: a defect of its construction")
    return suffixes, block_minima(suffixes)

"""The responses of a job: held-out, generated, the user's own, and placebos, under ids that cannot collide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from poa.datanets.installed_docs import general_docs
from poa.errors import PoaError
from poa.factory.causal import CausalLM
from poa.factory.run import LoRARun
from poa.pipeline.placebo import placebo
from poa.pipeline.selection import Chosen
from poa.pipeline.settings import Answers
from poa.records import Corpus, Record


@dataclass(frozen=True)
class Responses:
    """queries: measured against retraining. paid: one epoch's responses. placebo: what nobody can have helped.

    own_words: random words of the manifest itself, which say nothing and which training does make likelier.
    """

    queries: Corpus
    paid: Corpus
    placebo: Corpus
    own_words: Corpus
    kinds: dict[str, str]

    @property
    def parts(self) -> tuple[Corpus, ...]:
        """What every method scores: the queries, the paid responses and one placebo to look at."""
        return self.queries, self.paid, self.placebo[:1]

    @property
    def all_parts(self) -> tuple[Corpus, ...]:
        """What a method that pays scores: the other controls too."""
        return *self.parts, self.placebo[1:], self.own_words


def gather(run: LoRARun, chosen: Chosen, answers: Answers, seed: int) -> Responses:
    """Collect all responses; `generated` continues the openings of held-out texts with the tuned model."""
    queries = _named(chosen.queries, "query")
    held = _named(chosen.responses, "response")
    openings = chosen.responses[: answers.generated]
    model = run.model() if openings else None
    generated = [_continued(run.task, model, record, i, answers, seed) for i, record in enumerate(openings)]
    given = user_texts(run.task, answers)
    none = placebo(general_docs(), answers.placebo, seed) if answers.placebo else Corpus([])
    own = placebo([record.text for record in chosen.train], answers.placebo, seed, "own-words")
    kinds = dict.fromkeys(held.ids, "held-out") | dict.fromkeys((r.id for r in generated), "generated")
    kinds |= dict.fromkeys((r.id for r in given), "user") | dict.fromkeys(none.ids, "placebo")
    return Responses(queries, Corpus((*held, *generated, *given)), none, own, kinds)


def user_texts(task: CausalLM, answers: Answers) -> Corpus:
    """The user's own responses; raises `PoaError` for one that is empty or longer than the context."""
    given = Corpus(Record(f"user-{i}", text) for i, text in enumerate(answers.texts))
    for record in given:
        task.sequence(record, whole=True)
    return given


def _named(corpus: Corpus, kind: str) -> Corpus:
    """Short ids: a receipt is logged under its response's id."""
    return Corpus(replace(record, id=f"{kind}-{i:03d}") for i, record in enumerate(corpus))


def _continued(task: CausalLM, model: Any, record: Record, number: int, answers: Answers, seed: int) -> Record:
    words = record.text.split()
    prompt = " ".join(words[:12]) + " "
    text = continuation(task, model, prompt, answers.tokens, seed + number)
    return Record(f"generated-{number}", text, prompt)


def continuation(task: CausalLM, model: Any, prompt: str, tokens: int, seed: int) -> str:
    """Sampled continuation of `prompt` (temperature 0.8, top-p 0.95), the same for the same seed."""
    bos, eos = task.edges
    ids = [bos, *task.encode(prompt)]
    if len(ids) + tokens > task.context:
        raise PoaError(f"prompt has {len(ids)} tokens; with {tokens} more it passes the context of {task.context}")
    given = torch.tensor([ids])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        out = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            do_sample=True,
            temperature=0.8,
            top_p=0.95,
            max_new_tokens=tokens,
            min_new_tokens=8,
            pad_token_id=eos,
        )
    text: str = task.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)
    return text

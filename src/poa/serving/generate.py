"""Generation: one continuation of a question, the same for the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.factory.causal import CausalLM

# Seeds are written into JSON, which keeps integers up to here exactly.
LARGEST_SEED = 2**53 - 1


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: temperature 0 is greedy; otherwise sampled from the top_p nucleus, by `seed`.

    Raises `PoaError` naming the setting that is out of range.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise PoaError(f"max_new_tokens is {self.max_new_tokens}, must be at least 1")
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 2):
            raise PoaError(f"temperature is {self.temperature}, must be between 0 and 2")
        if not 0 < self.top_p <= 1:
            raise PoaError(f"top_p is {self.top_p}, must be above 0 and at most 1")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise PoaError(f"seed is {self.seed}, must be between 0 and 2^53-1")


@dataclass(frozen=True)
class Generated:
    """What the model answered: text, the ids it chose, their log-probabilities (nats) and "stop" or "length"."""

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str


def require_room(task: CausalLM, question: str, answer_tokens: int, what: str) -> int:
    """The number of tokens of `question`; raises `PoaError` where it and the answer pass the context.

    bos and eos count: the answer is attributed as `[bos] question answer [eos]`.
    """
    tokens = len(task.encode(question))
    room = task.context - 2 - tokens
    if room < 1:
        raise PoaError(
            f"the question has {tokens} tokens; the model's context of {task.context} holds at most "
            f"{task.context - 3} and one of an answer: shorten it"
        )
    if answer_tokens > room:
        raise PoaError(
            f"the question has {tokens} tokens and {what} {answer_tokens}; the model's context of {task.context} "
            f"leaves {room} for the answer"
        )
    return tokens


def generate(task: CausalLM, model: Any, question: str, sampling: Sampling) -> Generated:
    """Continue `question` with `model`.

    The log-probabilities are those of the model itself, before temperature and top_p. Raises `PoaError` where question
    and `max_new_tokens` together pass the context; nothing is cut silently.
    """
    import torch
    from torch.nn import functional as F

    require_room(task, question, sampling.max_new_tokens, "max_new_tokens is")
    bos, eos = task.edges
    given = torch.tensor([[bos, *task.encode(question)]])
    # Everything that a model's own generation_config could set otherwise is said here.
    choice: dict[str, Any] = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    if sampling.temperature > 0:
        choice = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(sampling.seed)
        out = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=sampling.max_new_tokens,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=eos,
            pad_token_id=eos,
            return_dict_in_generate=True,
            output_logits=True,
            **choice,
        )
    chosen: list[int] = out.sequences[0, given.shape[1] :].tolist()
    logprobs = [float(F.log_softmax(row[0].double(), -1)[token]) for row, token in zip(out.logits, chosen, strict=True)]
    stopped = bool(chosen) and chosen[-1] == eos
    text: str = task.tokenizer.decode(chosen, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    # A record's text may not hold NUL; a byte-level vocabulary can produce it.
    return Generated(text.replace("\x00", "\ufffd"), tuple(chosen), tuple(logprobs), "stop" if stopped else "length")

"""How much less likely the candidate finds the live release's own answers, in nats per token.

Both are given the same text to score, each through its own chat template and tokenizer, so that this tells a damaged
model even while its greedy answers are still right, and says nothing against one that words them differently.  Only
the answer's part of the conversation counts.  Nats over a whole text do not depend on how a tokenizer cuts it; they
are divided by the live release's tokens.

vLLM gives the scores of a prompt (``prompt_logprobs``); where neither release does there is nothing to compare.

Tried with SmolLM2-135M-Instruct and the twelve prompts of ``chat``: the same weights lose nothing, 0.001 in bfloat16,
-0.03 after tuning; Gaussian noise of 2, 5, 10 and 20 % of each tensor's deviation costs 0.02, 0.1, 0.5 and 5.0 (with
12, 11, 9 and 0 facts held), no chat template or another model's 1.0, the rows of the embedding off by one 8.9.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from tasks._clients.posting import Pace, Reply, post_each

LEAST = -30.0
"""Nats below which a token is only impossible: an engine writes -9999 for no probability at all."""


class _Token(BaseModel):
    logprob: float
    decoded_token: str | None = None


class _Scored(BaseModel):
    prompt_logprobs: list[dict[str, _Token] | None]


@dataclass(frozen=True)
class Drift:
    """One text: the loss of log-probability of a token, in nats, or why it could not be told.

    ``known`` is false where neither release knows how to score a text.
    """

    nats: float = math.nan
    error: str = ""
    known: bool = True


def drifts(addresses: tuple[str, str], model: str, texts: Sequence[tuple[str, str]], pace: Pace) -> tuple[Drift, ...]:
    """Return the drift of each prompt's answer between the candidate and the live release at their ``addresses``.

    Both releases are asked in turn.
    """
    requests = [
        (f"{address.rstrip('/')}/v1/chat/completions", _body(model, prompt, text))
        for prompt, text in texts
        for address in addresses
    ]
    replies = post_each(requests, pace)
    return tuple(
        _drift(candidate, live, text)
        for (_, text), candidate, live in zip(texts, replies[::2], replies[1::2], strict=True)
    )


def _body(model: str, prompt: str, text: str) -> dict[str, object]:
    """Return a request that scores the conversation as it would have been generated, and generates one token more."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "prompt_logprobs": 0,
        "max_tokens": 1,
        "temperature": 0,
    }


def _drift(candidate: Reply, live: Reply, text: str) -> Drift:
    scores = [_scores(reply, text) for reply in (candidate, live)]
    unknown = [
        reply.declined or (not reply.error and "prompt_logprobs" not in reply.body) for reply in (candidate, live)
    ]
    for name, reply, score in zip(("candidate", "live release"), (candidate, live), scores, strict=True):
        if not score:
            reason = reply.error or "no log-probabilities in its answer"
            return Drift(error=f"the {name}: {reason}", known=not all(unknown))
    ours, theirs = scores
    return Drift((math.fsum(theirs) - math.fsum(ours)) / len(theirs))


def _scores(reply: Reply, text: str) -> list[float]:
    """Return the log-probabilities of the tokens at the end that spell ``text``; none where there are none."""
    try:
        tokens = _Scored.model_validate(reply.body).prompt_logprobs
    except ValidationError:
        return []
    found: list[float] = []
    left = len(text.strip())
    for entry in reversed(tokens):
        if left <= 0 or not entry:
            break
        # The token that was given comes first; others may follow it as more likely ones.
        token = next(iter(entry.values()))
        found.append(max(token.logprob, LEAST))
        left -= len(token.decoded_token or " ")
    return found if all(map(math.isfinite, found)) else []

"""What two differently worded answers have in common, as other models see it: embeddings, and a judge.

Both are asked for by the spec and reached at the address that it names.  Answers that are equal but for spelling are
not sent: they mean the same.  A judge sees each pair in both orders, and only an opinion that survives the exchange
counts, because models prefer what they read first.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from tasks._checks.agreement import normalised
from tasks._clients.posting import Pace, Reply, post_each

Texts = tuple[str, str, str]
"""A prompt, the candidate's answer and the live one."""

QUESTION = """A question was answered twice.

Question:
{prompt}

Answer A:
{first}

Answer B:
{second}

Which answer is more correct and more useful? Reply with one word: A, B, or SAME."""
REPLY = re.compile(r"\W*(A|B|SAME)\b", re.IGNORECASE)
REPLY_TOKENS = 8


class _Vector(BaseModel):
    embedding: list[float]
    index: int


class _Vectors(BaseModel):
    data: list[_Vector]


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message


class _Opinion(BaseModel):
    choices: list[_Choice]


def similarities(texts: Sequence[Texts], *, address: str, model: str, pace: Pace) -> tuple[float, ...]:
    """Return the cosine of the embeddings of each pair of answers, -1 to 1; NaN where it is unknown."""
    url = f"{address.rstrip('/')}/v1/embeddings"
    different = _different(texts)
    # Some servers refuse an empty input.
    bodies = [{"model": model, "input": [ours or " ", theirs or " "]} for _, ours, theirs in different]
    replies = post_each([(url, body) for body in bodies], pace)
    known = dict(zip(different, map(_cosine, replies), strict=True))
    return tuple(known.get(one, 1.0) for one in texts)


def opinions(texts: Sequence[Texts], *, address: str, model: str, pace: Pace) -> tuple[float, ...]:
    """Return 1 where the judge prefers the live answer, -1 the candidate's, 0 neither; NaN if it does not say."""
    url = f"{address.rstrip('/')}/v1/chat/completions"
    different = _different(texts)
    questions = [
        QUESTION.format(prompt=prompt, first=first, second=second)
        for prompt, ours, theirs in different
        for first, second in ((theirs, ours), (ours, theirs))
    ]
    replies = post_each([(url, _asked(model, question)) for question in questions], pace)
    said = [_said(reply) for reply in replies]
    both = zip(said[::2], said[1::2], strict=True)
    known = dict(zip(different, (_opinion(first, second) for first, second in both), strict=True))
    return tuple(known.get(one, 0.0) for one in texts)


def _different(texts: Sequence[Texts]) -> list[Texts]:
    return list(dict.fromkeys(one for one in texts if normalised(one[1]) != normalised(one[2])))


def _asked(model: str, question: str) -> dict[str, Any]:
    message = {"role": "user", "content": question}
    return {"model": model, "messages": [message], "max_tokens": REPLY_TOKENS, "temperature": 0}


def _cosine(reply: Reply) -> float:
    try:
        vectors = sorted(_Vectors.model_validate(reply.body).data, key=lambda vector: vector.index)
        ours, theirs = (vector.embedding for vector in vectors)
        lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
        return float(np.dot(ours, theirs)) / lengths if lengths else math.nan
    except (ValidationError, ValueError):
        return math.nan


def _said(reply: Reply) -> str:
    """Return A, B or SAME, or nothing."""
    try:
        choices = _Opinion.model_validate(reply.body).choices
    except ValidationError:
        return ""
    found = REPLY.match(choices[0].message.content) if choices else None
    return found[1].upper() if found else ""


def _opinion(live_first: str, live_second: str) -> float:
    """Return what both orders together say: a preference only where they agree on it."""
    if not live_first or not live_second:
        return math.nan
    return {("A", "B"): 1.0, ("B", "A"): -1.0}.get((live_first, live_second), 0.0)

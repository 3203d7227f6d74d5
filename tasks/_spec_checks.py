"""The ``checks`` section of a service spec: how a candidate is judged, by thresholds that a person set.

Shares are of the prompts in the prompt file; durations are seconds; ratios compare the candidate with the live
release, measured in the same window.
"""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from tasks.records import Value


def is_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return ``value`` if a record can hold it; raises ``ValueError``."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise ValueError("only what JSON can hold may be given") from error
    return value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
CheckName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}$")]


class Smoke(Value):
    """What the protocol of a candidate must be able to do, beside whole answers, plain and streamed."""

    tools: bool = Field(False, description="a tool that is offered must be called, with JSON arguments that fit")
    json_output: bool = Field(False, description="an answer asked for by a JSON schema must be JSON that fits it")
    long_prompt: Share = Field(0.5, description="a prompt of this share of the context is answered; 0: none")
    concurrent: Annotated[int, Field(ge=0)] = Field(4, description="prompts asked at once, all answered; 0: none")
    overflow: bool = Field(True, description="a prompt beyond the context must end in a clean 400")


class Paired(Value):
    """The same prompts to the live release and to the candidate, compared answer by answer."""

    enabled: bool = Field(True, description="compare with the live release, if there is one")
    margin: Share = Field(0.1, description="share of prompts that the candidate may do worse than the live release")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(0.95, description="of the interval around a difference")
    rounds: Count = Field(1, description="times that every prompt is asked")
    logprobs: bool = Field(True, description="compare token log-probabilities where the engine gives them")
    max_logprob_drift: Ratio = Field(0.5, description="mean loss of log-probability of a live token, in nats")
    max_length_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        3.0, description="answers longer or shorter than the live ones by this factor"
    )
    min_agreement: Share = Field(0, description="least share of answers equal after normalisation; 0: any")
    embeddings: str = Field("", description="base URL of an OpenAI embeddings server; none: skip")
    embeddings_model: str = Field("", description="name of the embedding model")
    min_similarity: Share = Field(0.7, description="least mean cosine similarity, with `embeddings`")
    judge: str = Field("", description="base URL of an OpenAI server whose model judges both answers; none: skip")
    judge_model: str = Field("", description="name of the judging model")


class Performance(Value):
    """Speed of the candidate against the live release, loaded alike in turns; see ``tasks._checks.performance``."""

    enabled: bool = Field(True, description="compare with the live release, if there is one")
    requests: Count = Field(8, description="streams asked of each; at least four rounds of `concurrency`")
    concurrency: Count = Field(2, description="streams open at once at each, as many as the live traffic has")
    tokens: Annotated[int, Field(ge=2)] = Field(32, description="tokens of each stream")
    max_first_token_ratio: Ratio = Field(2.0, description="median time to first token against the live one")
    max_token_time_ratio: Ratio = Field(2.0, description="median time per token against the live one")
    max_slowdown: Ratio = Field(2.0, description="the live release's tokens per second against the candidate's")
    max_error_rate: Share = Field(0, description="share of requests that may fail")


class Plugin(Value):
    """A check of the user's own; see ``tasks._checks.plugins``."""

    name: CheckName = Field(description="what its verdict is called")
    use: str = Field(min_length=1, description="entry point of the group slipway.checks, or module:function")
    parameters: Annotated[dict[str, Any], AfterValidator(is_json)] = Field(
        default_factory=dict, description="given to it as keywords"
    )
    timeout: Seconds = Field(300, description="longest that it may take; later is inconclusive")


def _differ(plugins: tuple[Plugin, ...]) -> tuple[Plugin, ...]:
    names = [plugin.name for plugin in plugins]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"{twice} is there twice")
    return plugins


class Checks(Value):
    """How a candidate is judged.  Shares are of the prompts in the prompt file."""

    prompts: str = Field("chat.prompts.yaml", description="prompt file, beside the spec")
    max_tokens: Count = Field(48, description="longest answer to a prompt, in tokens")
    concurrency: Count = Field(2, description="prompts asked at once")
    min_facts: Share = Field(0.7, description="least share of answers that hold their expected fact")
    min_stopped: Share = Field(0.5, description="least share that ended by themselves; fewer is a warning")
    max_repetition: Share = Field(0.5, description="an answer of which more than this repeats itself is broken")
    max_first_token: Seconds = Field(60, description="slowest time to first token")
    max_latency: Seconds = Field(120, description="slowest whole answer")
    smoke: Smoke = Smoke()
    paired: Paired = Paired()
    performance: Performance = Performance()
    plugins: Annotated[tuple[Plugin, ...], AfterValidator(_differ)] = Field((), description="checks of your own")

"""Asks Prometheus for one number, now.

A query that a spec names must come back as exactly one finite number.  No sample, several series and NaN, which is
what a rate over no requests gives, are errors: a check that went on with them would pass by absence.
"""

import math
from http import HTTPStatus
from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, Field, ValidationError

from tasks._clients.completions import tls
from tasks.errors import BadInput, NotFound, Unreachable

Sample = tuple[float, str]
"""A moment in seconds since 1970, and a number as Prometheus writes it."""


class _Series(BaseModel):
    value: Sample


class _Vector(BaseModel):
    kind: Literal["vector"] = Field(alias="resultType")
    result: list[_Series]

    @property
    def samples(self) -> list[Sample]:
        return [series.value for series in self.result]


class _Scalar(BaseModel):
    kind: Literal["scalar"] = Field(alias="resultType")
    result: Sample

    @property
    def samples(self) -> list[Sample]:
        return [self.result]


class _Reply(BaseModel):
    """What an instant query answers with, as far as it is one number or some."""

    status: Literal["success"]
    data: Annotated[_Vector | _Scalar, Field(discriminator="kind")]


def instant(address: str, query: str, *, timeout_s: float) -> float:
    """Return the value of the PromQL ``query`` now, from the Prometheus at the base URL ``address``.

    Raises ``Unreachable`` where there is no good answer, ``BadInput`` where the query is refused or gives anything
    but one number, ``NotFound`` where it gives none or NaN.  ``timeout_s`` bounds each wait for the server.
    """
    try:
        response = httpx.get(
            f"{address.rstrip('/')}/api/v1/query",
            params={"query": query},
            timeout=timeout_s,
            trust_env=False,
            verify=tls(),
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(
            f"Prometheus did not answer ({type(error).__name__}).", remedy="Look at `bake.prometheus`."
        ) from error
    if response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        raise BadInput("Prometheus refuses the query.", remedy="Mend `bake.error_query`.")
    if response.status_code != HTTPStatus.OK:
        raise Unreachable(f"Prometheus answered with status {response.status_code}.")
    return _value(response.content)


def _value(body: bytes) -> float:
    try:
        samples = _Reply.model_validate_json(body).data.samples
        values = [float(text) for _, text in samples]
    except (ValidationError, ValueError) as error:
        raise BadInput("What Prometheus answered is no number.", remedy="Mend `bake.error_query`.") from error
    if len(values) > 1:
        raise BadInput(
            f"The query gives {len(values)} series, not one number.", remedy="Put `sum()` into `bake.error_query`."
        )
    if not values or not math.isfinite(values[0]):
        raise NotFound(
            f"Prometheus has no value ({'NaN or infinite' if values else 'no sample'}).",
            remedy="Look whether it scrapes the live release.",
        )
    return values[0]

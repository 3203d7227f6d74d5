"""The suite of Great Expectations that judges a frame of answers, and what its result means.

The frame has one row per answer; its columns were computed by ``_quality``, because an expectation can only
compare.  Severity decides: a failed ``critical`` expectation is a fail, a failed ``warning`` is inconclusive, an
``info`` changes no verdict.  A value exactly at its threshold is good.

Importing this module takes two to three seconds, so it is imported where it is needed.  What is not obvious:

* severity is given to each expectation when it is built; in a subclass it is silently ignored;
* an expectation that raised keeps its severity in the result, so here it counts as critical whatever that is;
* expectations on a column skip nulls, and are true of no rows at all.  So each check also counts the rows and
  the nulls, at ``warning``: what was not measured is not good;
* results come in another order than the expectations, so ``meta`` says which check each belongs to.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.records import Verdict

with warnings.catch_warnings():
    # It imports modules that Python itself has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import great_expectations as gx

# Its names are exported in a way that a type checker does not follow.
gxe: Any = gx.expectations

ID = "prompt_id"


@dataclass(frozen=True)
class Limits:
    """The thresholds.  Counts are of answers, ``of`` which there must be so many; times are seconds."""

    of: int
    facts: int
    of_facts: int
    stopped: int
    repetition: float
    unreadable: float
    first_token_s: float
    latency_s: float


@dataclass(frozen=True)
class Finding:
    """What the expectations of one check found: the ids of the offending rows, nulls, and what raised."""

    verdict: Verdict
    offending: tuple[str, ...] = ()
    unmeasured: int = 0
    raised: tuple[str, ...] = ()


def judge(frame: pd.DataFrame, limits: Limits) -> dict[str, Finding]:
    """Return the finding of every check; raises nothing for what is in ``frame``, missing columns included."""
    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("quality").add_dataframe_asset("answers")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": frame})
    checks = _checks(limits)
    suite = gx.ExpectationSuite(
        "quality", expectations=[expectation for group in checks.values() for expectation in group]
    )
    result_format = {"result_format": "COMPLETE", "unexpected_index_column_names": [ID]}
    by_check: dict[str, list[dict[str, Any]]] = {name: [] for name in checks}
    for one in batch.validate(suite, result_format=result_format).results:
        result = one.to_json_dict()
        by_check[result["expectation_config"]["meta"]["check"]].append(result)
    return {name: _finding(results, len(checks[name])) for name, results in by_check.items()}


def _checks(limits: Limits) -> dict[str, list[Any]]:
    def every(column: str) -> list[Any]:
        """Each answer there, and measured; without it the check would be true of what is missing."""
        return [
            gxe.ExpectTableRowCountToEqual(value=limits.of, severity="warning"),
            gxe.ExpectColumnValuesToNotBeNull(column=column, severity="warning"),
        ]

    def at_most(column: str, value: float) -> list[Any]:
        expectation = gxe.ExpectColumnValuesToBeBetween(
            column=column, min_value=0, max_value=value, severity="critical"
        )
        return [*every(column), expectation]

    def one_of(column: str, values: list[Any], mostly: float = 1, severity: str = "critical") -> Any:  # noqa: ANN401 - as above
        return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=values, mostly=mostly, severity=severity)

    checks = {
        "answered": [
            gxe.ExpectTableRowCountToEqual(value=limits.of, severity="critical"),
            gxe.ExpectColumnValuesToNotBeNull(column="status", severity="critical"),
            one_of("status", [200]),
            gxe.ExpectColumnValuesToBeNull(column="error", severity="critical"),
            one_of("visible", [True]),
        ],
        "facts": [
            gxe.ExpectTableRowCountToEqual(value=limits.of, severity="warning"),
            one_of("holds_fact", [True], mostly=limits.facts / limits.of_facts),
            one_of("holds_golden_fact", [True]),
        ],
        "template_leakage": [*every("leaks_template"), one_of("leaks_template", [False])],
        "repetition": at_most("repetition", limits.repetition),
        "readable": at_most("unreadable", limits.unreadable),
        "finish_reason": [
            *every("finish_reason"),
            one_of("finish_reason", ["stop", "length"]),
            one_of("finish_reason", ["stop"], mostly=limits.stopped / limits.of, severity="warning"),
        ],
        "latency": [
            *at_most("first_token_s", limits.first_token_s),
            *at_most("latency_s", limits.latency_s),
        ],
    }
    for name, expectations in checks.items():
        unique = {repr(expectation): expectation for expectation in expectations}
        checks[name] = list(unique.values())
        for expectation in checks[name]:
            expectation.meta = {"check": name}
    return checks


def _finding(results: list[dict[str, Any]], wanted: int) -> Finding:
    raised = tuple(message for result in results for message in _raised(result))
    failed = [result for result in results if not result["success"]]
    severities = {result["expectation_config"]["severity"] for result in failed}
    if raised or "critical" in severities or len(results) != wanted:
        verdict = Verdict.FAIL
    else:
        verdict = Verdict.INCONCLUSIVE if "warning" in severities else Verdict.PASS
    rows = [row for result in failed for row in result["result"].get("unexpected_index_list") or ()]
    nulls = [
        int(result["result"].get("unexpected_count") or 0)
        for result in failed
        if result["expectation_config"]["type"] == "expect_column_values_to_not_be_null"
    ]
    offending = tuple(dict.fromkeys(str(row[ID]) for row in rows))
    return Finding(verdict, offending, max(nulls, default=0), raised)


def _raised(result: dict[str, Any]) -> tuple[str, ...]:
    """Return the messages of an expectation that raised: its information is flat, or one entry per metric."""
    information = result["exception_info"] or {}
    entries = [information] if "raised_exception" in information else list(information.values())
    name = result["expectation_config"]["type"]
    messages = [str(entry["exception_message"]) for entry in entries if entry["raised_exception"]]
    return tuple(dict.fromkeys(f"{name}: {message}" for message in messages))

"""Planted defects stay files that load, and verdicts become the figures of goal R4: no engine, no real model."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from tasks._checks.prompts import load_prompts
from tasks._spec_file import load_spec
from tasks.records import CheckResult, Verdict
from tests.bench.defects import DEFECTS, EMBEDDING, KINDS, NORM, TEMPLATE, TOKENIZER, WEIGHTS, Defect, tensors
from tests.bench.quality import SERVICE, SERVICES, varied
from tests.bench.verdicts import End, Judged, catches, figures

LAYERS, WIDTH, ROWS = 13, 32, 64
SPECIAL = "<|im_end|>"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder with the files that are changed, in their real shapes but small."""
    folder = tmp_path_factory.mktemp("model") / "good"
    folder.mkdir()
    chance = np.random.default_rng(0)
    shapes = {EMBEDDING: (ROWS, WIDTH)}
    for layer in range(LAYERS):
        shapes |= {f"model.layers.{layer}.self_attn.{which}_proj.weight": (WIDTH, WIDTH) for which in "qv"}
    header, bodies, offset = {}, [], 0
    for name, shape in (shapes | {NORM: (WIDTH,)}).items():
        body = chance.normal(size=shape).astype(np.float16).tobytes()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + len(body)]}
        bodies.append(body)
        offset += len(body)
    head = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(head)) + head + b"".join(bodies))
    vocabulary = {SPECIAL: 0, "a": 1, "b": 2, "ab": 3}
    model = {"vocab": vocabulary, "merges": [["a", "b"]]}
    tokenizer = {"added_tokens": [{"content": SPECIAL}], "normalizer": None, "decoder": {}, "model": model}
    (folder / TOKENIZER).write_text(json.dumps(tokenizer))
    (folder / TEMPLATE).write_text("{{ messages }}")
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": LAYERS, "eos_token_id": 2}))
    for name in ("generation_config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_changes_the_copy_and_keeps_it_loadable(good: Path, tmp_path: Path, defect: Defect) -> None:
    """Something differs, names and size of the weights do not, and JSON stays JSON; the original is whole."""
    before = {path.name: path.read_bytes() for path in good.iterdir()}
    folder = tmp_path / "bad"
    defect.make(good, folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}

    assert before == {path.name: path.read_bytes() for path in good.iterdir()}
    assert before != after
    assert before.keys() == after.keys()
    assert len(before[WEIGHTS]) == len(after[WEIGHTS])
    assert all(np.isfinite(tensor).all() for tensor in tensors(folder).values())
    assert tensors(good).keys() == tensors(folder).keys()
    for name, content in after.items():
        if name.endswith(".json"):
            json.loads(content)


def test_every_kind_of_the_goal_has_defects_of_its_own() -> None:
    """Names are unique, and no kind is represented by one case alone."""
    assert len(DEFECTS) == len({defect.name for defect in DEFECTS})
    for kind in KINDS:
        assert sum(defect.kind == kind for defect in DEFECTS) >= 3


def test_only_the_tail_is_zeroed(good: Path, tmp_path: Path) -> None:
    """Truncated weights lose what is last, and nothing before it."""
    planted = {defect.name: defect for defect in DEFECTS}
    planted["last 4 layers zero"].make(good, tmp_path / "tail")
    planted["half of the vocabulary zero"].make(good, tmp_path / "half")
    zero = {name for name, tensor in tensors(tmp_path / "tail").items() if not tensor.any()}
    rows = tensors(tmp_path / "half")[EMBEDDING].any(axis=1)

    assert {f"model.layers.{n}.self_attn.{w}_proj.weight" for n in range(LAYERS - 4, LAYERS) for w in "qv"} == zero
    assert [True] * (ROWS // 2) + [False] * (ROWS // 2) == list(rows)


@pytest.mark.parametrize(("name", "levels"), [("2 bits in groups of 32", 3), ("3 bits in groups of 32", 7)])
def test_rounded_weights_have_as_many_levels_as_their_bits(
    good: Path, tmp_path: Path, name: str, levels: int
) -> None:
    """Each group of 32 holds no more values than symmetric rounding to so many bits leaves, and close ones."""
    next(defect for defect in DEFECTS if defect.name == name).make(good, tmp_path / "bad")
    matrix = "model.layers.0.self_attn.q_proj.weight"
    exact, rounded = (np.array(tensors(folder)[matrix]).reshape(-1, 32) for folder in (good, tmp_path / "bad"))

    assert all(len(np.unique(group)) <= levels for group in rounded)
    assert (np.abs(exact - rounded).max(axis=1) <= np.abs(exact).max(axis=1) / (levels - 1) * 1.01).all()


def test_the_same_model_is_asked_otherwise_by_each_seed() -> None:
    """The order and how many at once differ between seeds, and are the same for one; no prompt is lost."""
    prompts, spec = load_prompts(SERVICES / "chat.prompts.yaml"), load_spec(SERVICES, SERVICE)
    asked = [varied(prompts, spec, seed) for seed in range(20)]

    assert varied(prompts, spec, 7) == asked[7]
    assert 4 == len({spec.checks.concurrency for _, spec in asked})
    assert 20 == len({order.root for order, _ in asked})
    assert all(set(prompts.root) == set(order.root) for order, _ in asked)


def judged(name: str, *, error: str = "", same: int = 1, **verdicts: Verdict) -> Judged:
    """Return a candidate with these verdicts."""
    checks = tuple(CheckResult(name=check, verdict=verdict, summary="why") for check, verdict in verdicts.items())
    return Judged(name, name[0], checks, {"q": "a"}, same, error=error)


PASS, FAIL, UNSURE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("one", "end"),
    [
        (judged("a", x=PASS, y=FAIL, z=UNSURE), End.REFUSED),
        (judged("a", x=PASS, z=UNSURE), End.HELD),
        (judged("a", x=PASS), End.PASSED),
        (judged("a", error="died"), End.BROKEN),
    ],
    ids=lambda value: value.value if isinstance(value, End) else "",
)
def test_the_worst_verdict_decides_the_end(one: Judged, end: End) -> None:
    """One failure refuses, one that could not judge holds, and neither hides a candidate that was not judged."""
    assert end is one.end
    assert end.value == one.to_json()["end"]


def test_refused_and_held_defects_are_caught_and_counted_apart() -> None:
    """The share is of all defects; what passed is named, by kind and by check."""
    defects = [
        judged("a1", x=FAIL, y=FAIL),
        judged("a2", x=PASS, y=UNSURE),
        judged("b1", x=FAIL),
        judged("b2", x=PASS),
    ]
    (figure,) = figures(defects, [])
    told = figure.to_json()

    assert (0.75, False, ["b2"]) == (told["value"], told["met"], told["missed"])
    assert {"of": 4, "refused": 2, "held": 1, "passed": 1, "broken": 0} == {
        key: told[key] for key in ("of", "refused", "held", "passed", "broken")
    }
    assert (1, 1) == (told["by_kind"]["a"]["held"], told["by_kind"]["b"]["passed"])
    assert {"x": {"failed": ["a1", "b1"], "alone": ["b1"]}, "y": {"failed": ["a1"], "held": ["a2"]}} == catches(
        defects
    )


def test_any_verdict_but_pass_is_a_false_alarm_on_the_same_model() -> None:
    """A good release that is held is as late as one that is refused; other answers alone are none."""
    alike = [judged(f"s{n}", x=PASS, same=n % 2) for n in range(98)] + [
        judged("s98", x=FAIL),
        judged("s99", x=UNSURE),
    ]
    (figure,) = figures([], alike)
    told = figure.to_json()

    assert (0.02, True) == (told["value"], told["met"])
    assert (1, 1, 49) == (told["refused"], told["held"], told["runs_with_other_answers"])


def test_no_figure_rests_on_a_candidate_that_was_not_judged() -> None:
    """An engine that died is neither caught nor missed: the figure is gone, and says why."""
    caught, alarms = figures([judged("a1", x=FAIL), judged("a2", error="died")], [judged("s", error="gone")])

    assert (None, False, "a2: died") == (caught.value, caught.met, caught.why)
    assert (None, "s: gone") == (alarms.value, alarms.why)

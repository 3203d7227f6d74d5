"""One service that lives through all tests of a module, as a real one does, with clients at its live address.

Its releases go on counting from test to test.  A test that leaves it in disorder fails, and the next one gets a new
one.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tasks.settings import StoreSettings
from tests.fakes.hubs import RunningHub, running_hub
from tests.faults.releases.clusters import Cluster, ray_cluster
from tests.faults.releases.kube_cluster import kube_cluster
from tests.faults.releases.stage import GOOD, Stage, were_live, write_prompts
from tests.faults.releases.traffic import flowing


@dataclass
class Theatre:
    """What all stages stand on, and the last one, if it is in order; each gets a cluster of its own from ``open``."""

    store: StoreSettings
    hub: RunningHub
    open: Callable[[], AbstractContextManager[Cluster]]
    clusters: ExitStack = field(default_factory=ExitStack)
    stage: Stage | None = None


@pytest.fixture(scope="module", params=["ray", "kuberay"])
def theatre(
    request: pytest.FixtureRequest, s3: StoreSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Theatre]:
    """Run a Hub and what clusters need."""
    on_ray = request.param == "ray"
    opens = ray_cluster if on_ray else partial(kube_cluster, request.getfixturevalue("kube"))
    with running_hub(tmp_path_factory.mktemp("hub")) as hub, ExitStack() as clusters:
        yield Theatre(s3, hub, opens, clusters)


@pytest.fixture
def stage(theatre: Theatre, tmp_path: Path) -> Iterator[Stage]:
    """Give a service with two good releases and clients; in the end all is in order, and nobody lost a request."""
    stage, theatre.stage = theatre.stage, None
    if stage is None:
        stage = opened(theatre, tmp_path)
    stage.start_slowly(0)
    stage.answer(lambda _release: GOOD)
    before = stage.record()
    try:
        with flowing(stage.address) as stage.traffic:
            yield stage
    finally:
        stage.stop()
    stage.rest()
    stage.assert_that_nobody_lost(were_live(before, stage.record()))
    stage.runs.clear()
    stage.bad.clear()
    if not stage.dark:
        theatre.stage = stage


def opened(theatre: Theatre, folder: Path) -> Stage:
    """Return a service with two releases: the live one, and the one before."""
    theatre.clusters.close()
    store = theatre.store.model_copy(update={"url": f"{theatre.store.url}/{folder.name}"})
    stage = Stage(store, theatre.hub, theatre.clusters.enter_context(theatre.open()), folder)
    write_prompts(folder)
    stage.answer(lambda _release: GOOD)
    try:
        for _ in range(2):
            stage.carry(stage.wanted())
    finally:
        stage.stop()
    stage.runs.clear()
    return stage

"""The embedded stack of real parts, a browser in front of its Prefect UI, and a folder of pictures.

Left out of ``make test``, with the reason shown: a browser is several hundred megabytes, and the story takes ten
minutes of two cores.  ``make test-ui`` asks for it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import sync_playwright

from tasks._release.journal import Journal
from tasks._stores.store import open_store
from tasks.local.environments import ROOT, environment_python
from tasks.local.hub.publishing import publish
from tasks.local.stack import Stack, read_stack
from tasks.records import ServiceRecord
from tasks.settings import Settings
from tests.ui.browser import chromium
from tests.ui.person import SCREEN, Person

SERVICE = "chat"
UP_S, MODEL_S = 600, 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the story unless it was asked for, and where there is no browser."""
    why = ""
    if os.environ.get("SLIPWAY_TEST_UI") != "1":
        why = "`make test-ui` runs this: it needs a browser, and ten minutes"
    elif chromium() is None:
        why = "no chromium is installed: see `make test-ui`"
    for item in items:
        if why and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=why))


@dataclass(frozen=True)
class Stage:
    """The stack, the folder of service specs that it reads, and the sample model's files by name."""

    stack: Stack
    services: Path
    models: Path

    def publish(self, files: str) -> str:
        """Make ``files`` the head of the service's branch and return the commit."""
        return publish(self.stack.home / "hub", self.spec()["model"], self.models / files, message=files)

    def spec(self) -> dict[str, Any]:
        """Return the service's spec."""
        document: dict[str, Any] = yaml.safe_load(self._file.read_text())
        return document

    def ask_people(self) -> None:
        """Have every further release wait for a person."""
        self._file.write_text(yaml.safe_dump({**self.spec(), "policy": "approve"}))

    def record(self) -> ServiceRecord:
        """Return the service's record."""
        with closing(open_store(Settings(**self.stack.settings()).store)) as store:
            return Journal(store, SERVICE).record

    @property
    def _file(self) -> Path:
        return self.services / f"{SERVICE}.yaml"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Bring a stack up in a folder of its own, and leave nothing running whatever happens."""
    folder = tmp_path_factory.mktemp("ui")
    home, services = folder / "home", folder / "services"
    shutil.copytree(ROOT / "serve" / "services", services)
    file = services / f"{SERVICE}.yaml"
    changed = {"schedules": {"refresh": "0 4 * * *"}, "bake": {"seconds": 5}}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changed))
    seen = {**os.environ, "SLIPWAY_HOME": str(home), "SLIPWAY_SERVICES": str(services)}
    slipway = [sys.executable, "-c", "from flows.cli import main; main()"]
    log = folder / "up.log"
    try:
        with log.open("wb") as output:
            for command, limit_s in (
                ([str(environment_python("payload")), "-m", "serve.sample_model", str(folder / "models")], MODEL_S),
                ([*slipway, "up"], UP_S),
            ):
                done = subprocess.run(
                    command, cwd=ROOT, env=seen, stdout=output, stderr=output, timeout=limit_s, check=False
                )
                assert 0 == done.returncode, log.read_text()[-4000:]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLIPWAY_SERVICES", str(services))
            stack = read_stack(home)
            assert stack is not None
            yield Stage(stack, services, folder / "models")
    finally:
        subprocess.run([*slipway, "down", "--wipe"], cwd=ROOT, env=seen, timeout=120, check=False)


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Return the folder that the screenshots are kept in, empty, and say where it is."""
    folder = Path(os.environ.get("SLIPWAY_UI_PICTURES", ROOT / ".slipway" / "ui-pictures"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"\nScreenshots: {folder}")  # noqa: T201 - for whoever runs it
    return folder


@pytest.fixture(scope="module")
def person(stage: Stage, pictures: Path) -> Iterator[Person]:
    """Sit a person down in front of the Prefect UI."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that a container may not give; the pages are this machine's own.
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            context = browser.new_context(viewport=SCREEN, reduced_motion="reduce")
            yield Person(context.new_page(), stage.stack.prefect, pictures)
        finally:
            browser.close()

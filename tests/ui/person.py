"""A person in front of the Prefect UI (its first generation, 3.8.8): what they click, read and keep pictures of.

Things are found by what a person sees of them, their role and text; only a form's field, whose label Prefect does not
tie to its input, is found by the box around both.  Every wait has a deadline.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, Response, ViewportSize, expect

PAGE_MS = 60_000
RELEASE_S = 900.0
"""How long a page and a release may take; a candidate starts in a minute on two quiet cores."""
LOOK_EVERY_MS = 5_000
ENDED = "Crashed|Cancelled|Completed|Failed"
NOT_OURS = ("/ico/", "favicon")
"""Parts of the addresses of pictures that Prefect's pages ask for and its server does not have."""
SCREEN: ViewportSize = {"width": 1280, "height": 800}
ATTEMPTS = 10
BUSY = 503
"""What Prefect's server answers while its SQLite file is locked; its pages ask again."""


class Person:
    """One browser page at ``base``, with its pictures in ``folder`` and what went wrong in ``faults``."""

    def __init__(self, page: Page, base: str, folder: Path) -> None:
        self.page, self._base, self._folder = page, base, folder
        self.faults: list[str] = []
        self.abroad: set[str] = set()
        self._taken = 0
        page.set_default_timeout(PAGE_MS)
        expect.set_options(timeout=PAGE_MS)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._hear)
        page.on("request", self._watch)
        page.on("response", self._judge)

    def open(self, path: str) -> None:
        """Go to an address."""
        self.page.goto(f"{self._base}{path}")

    def picture(self, name: str, *, high: int = SCREEN["height"]) -> None:
        """Keep what is on a screen so many pixels ``high``, once nothing moves any more; pages scroll inside."""
        self.page.set_viewport_size({**SCREEN, "height": high})
        self.page.wait_for_load_state("networkidle")
        self._taken += 1
        self.page.screenshot(path=self._folder / f"{self._taken:02}-{name}.png", animations="disabled")
        self.page.set_viewport_size(SCREEN)

    def sees(self, text: str | re.Pattern[str], *, within_ms: float = PAGE_MS) -> Locator:
        """Wait until a text is on the page, and return where."""
        found = self.page.get_by_text(text).filter(visible=True).first
        expect(found).to_be_visible(timeout=within_ms)
        return found

    def finds(self, deployment: str) -> None:
        """Search the list of deployments, of which a page shows ten, and open one."""
        self.open("/deployments")
        self.page.get_by_role("searchbox").first.fill(deployment)
        self.page.wait_for_url(f"**{deployment}")  # it follows the search, and takes back who left before
        self.page.locator("a[href*='/deployments/deployment/']").get_by_text(deployment, exact=True).first.click()
        self.page.wait_for_url("**/deployments/deployment/**")

    def opens_form(self, deployment: str) -> None:
        """Go from the list of deployments to the form of a custom run."""
        self.finds(deployment)
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_text("Custom run").click()
        self.sees("Parameters")

    def fills(self, fields: Mapping[str, str]) -> None:
        """Fill in fields by their titles: a text is typed, of a list the entry is picked."""
        for title, text in fields.items():
            field = self._field(title)
            expect(field).to_be_visible()
            if field.get_by_role("textbox").count():
                field.get_by_role("textbox").fill(text)
            else:
                field.locator(".p-select-button__icon").click()  # a click beside the arrow opens no list
                self.page.get_by_role("option", name=text, exact=True).click()

    def submits(self) -> None:
        """Send the form of a custom run, and go to the page of the run: the button for it goes away by itself."""
        self.open(f"/runs/flow-run/{self._sends('/create_flow_run').json()['id']}")

    def _sends(self, path: str) -> Response:
        """Press Submit, again where the server was busy, and return what it answered."""
        for _ in range(ATTEMPTS):
            with self.page.expect_response(lambda response: response.url.endswith(path)) as answered:
                self.page.get_by_role("button", name="Submit").click()
            if answered.value.status != BUSY:
                break
        return answered.value

    def runs(self, deployment: str, fields: Mapping[str, str]) -> None:
        """Start a run of ``deployment`` from its form."""
        self.opens_form(deployment)
        self.fills(fields)
        self.submits()

    def awaits(self, state: str) -> None:
        """Look in until the run on the screen is in ``state``: its timeline, left open, costs half a core to draw."""
        run, badge = self.page.url, self.page.locator(".state-badge").filter(visible=True).first
        deadline = monotonic() + RELEASE_S
        expect(badge).to_be_visible()
        while not re.search(f"{state}|{ENDED}", badge.inner_text()) and monotonic() < deadline:
            self.page.goto("about:blank")
            self.page.wait_for_timeout(LOOK_EVERY_MS)
            self.page.goto(run)
            expect(badge).to_be_visible()
        expect(badge).to_have_text(re.compile(state))

    def turns_to(self, tab: str) -> None:
        """Open a tab of the run on the screen."""
        self.page.get_by_role("tablist").get_by_text(tab, exact=True).click()

    def reads(self, artifact: str) -> str:
        """Open the newest artifact of this key and return its text."""
        self.open(f"/artifacts/key/{artifact}")
        self.page.locator("a[href*='/artifacts/artifact/']").first.click()
        self.page.wait_for_url("**/artifacts/artifact/**")
        self.sees("State Message")
        return self.page.locator("body").inner_text()

    def asks_to_answer(self) -> None:
        """Open the form of the paused run on the screen."""
        self.page.get_by_role("button", name="Resume").click()

    def answers(self) -> None:
        """Send that form."""
        self._sends("/resume")

    def _field(self, title: str) -> Locator:
        named = self.page.locator("label", has_text=re.compile(rf"^\s*{re.escape(title)}( \(Optional\))?\s*$"))
        return self.page.locator(".schema-form-property").filter(has=named)

    def _hear(self, message: ConsoleMessage) -> None:
        where = message.location.get("url", "")
        told_already = message.text.startswith("Failed to load resource")
        if message.type == "error" and not told_already and not any(part in where for part in NOT_OURS):
            self.faults.append(f"console: {message.text} ({where})")

    def _watch(self, request: Request) -> None:
        if urlsplit(request.url).scheme in {"http", "https"} and not request.url.startswith(self._base):
            self.abroad.add(request.url)

    def _judge(self, response: Response) -> None:
        if response.status >= 400 and response.status != BUSY and not any(part in response.url for part in NOT_OURS):
            self.faults.append(f"{response.status} {response.url}")

"""Tells people what becomes of a release, through the notification blocks that its service's spec names.

Each block is loaded from Prefect when there is something to tell, so its address and its keys are Prefect's alone.
A receiver that is away, slow or refuses costs a release ``WITHIN_S`` at most, all receivers together, and a warning
in the log.  The spec of the moment says who is told, not that of the release: whoever is on call now.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import copy_context
from inspect import isawaitable
from threading import Thread

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.utilities.urls import url_for

from tasks._clock import Clock
from tasks._notices import Notice, notice_of
from tasks._release.world import World
from tasks._spec_file import load_spec
from tasks.errors import SlipwayError
from tasks.records import Progress

WITHIN_S = 5.0
"""The longest that telling holds a release up, in seconds; what is still on its way then may arrive later."""
CLOCK = Clock()

log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes addresses, and a chat's is its key


def teller(world: World) -> Callable[[Progress], None]:
    """Return what tells of a release that asks a person or has ended; it never raises."""

    def tell(progress: Progress) -> None:
        run_page = url_for("flow-run", progress.run) or ""
        notice = notice_of(progress, run_page=run_page, store=world.store.url)
        if notice is None:
            return
        try:
            receivers = load_spec(world.services, progress.release.service).notify
        except SlipwayError as error:
            log.warning("Nobody is told that %s: %s", notice.subject, error)
            return
        send(notice, [receiver.block for receiver in receivers if notice.event in receiver.events])

    return tell


def send(notice: Notice, blocks: Sequence[str]) -> None:
    """Send a message through each of ``blocks``, all at once; return after ``WITHIN_S`` whatever became of it."""
    until = CLOCK.monotonic() + WITHIN_S
    sending = [
        Thread(target=copy_context().run, args=[_send, block, notice], name=block, daemon=True) for block in blocks
    ]
    for thread in sending:
        thread.start()
    for thread in sending:
        thread.join(max(0.0, until - CLOCK.monotonic()))
        if thread.is_alive():
            log.warning("%s has not taken within %.0f s that %s", thread.name, WITHIN_S, notice.subject)


def _send(slug: str, notice: Notice) -> None:
    try:
        block = Block.load(slug)
        if not isinstance(block, NotificationBlock):
            log.warning("%s is no notification block: nobody is told through it", slug)
            return
        with block.raise_on_failure():
            sent = block.notify(notice.body, notice.subject)
            if isawaitable(sent):  # Prefect's own blocks see that nobody awaits; another's may not
                asyncio.run(sent)
    except Exception as error:  # noqa: BLE001 - any block may be named, and its error may quote its address
        log.warning("%s was not told that %s: %s", slug, notice.subject, type(error).__name__)

"""A ref, followed: the commit it means now is brought into the store, and its pointer moves there.

Where the pointer says that the commit is there already, two requests are all: one to the Hub, one to the store.  A
pointer only ever moves to a published commit, and keeps garbage collection from it; ``repair`` and a list of
licences look closer.
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tasks._stores.store import Store
from tasks._weights.carrying import Progress
from tasks._weights.channels import move_channel, read_channel
from tasks._weights.hub import Hub
from tasks._weights.layout import manifest_key
from tasks._weights.mirror import mirror
from tasks._weights.planning import Plan
from tasks.records import Commit, Manifest, Value
from tasks.spec import Limits


class Followed(Value):
    """What following a ref came to; sizes in bytes, ``seconds`` and ``requests`` (Hub and store) of this call alone.

    ``manifest`` is the URL of the commit's manifest; ``unchanged`` says that it was there before.
    """

    model: str
    ref: str
    commit: Commit
    unchanged: bool
    bytes: int
    from_hub: int
    copied: int
    requests: int
    seconds: float
    manifest: str

    @property
    def sentence(self) -> str:
        """Return what a person reads of it."""
        name = f"{self.model}@{self.commit[:12]}"
        if self.unchanged:
            return f"{name} is there already: {self.bytes / 1e6:,.0f} MB at {self.manifest}"
        return (
            f"{name}: {self.bytes / 1e6:,.0f} MB in {self.seconds:.1f} s, {self.from_hub / 1e6:,.0f} MB from the "
            f"Hub, {self.copied / 1e6:,.0f} MB copied in the store, {self.requests} requests; {self.manifest}"
        )


def follow(
    hub: Hub,
    store: Store,
    model: str,
    ref: str,
    limits: Limits,
    *,
    repair: bool = False,
    progress: Progress = lambda *_: None,
    announce: Callable[[Plan], None] = lambda _: None,
    sign: Callable[[Manifest], bytes] | None = None,
) -> Followed:
    """Mirror what branch, tag or commit ``ref`` of ``model`` means now; see ``mirror`` for the rest."""
    begun, asked, requests = time.monotonic(), datetime.now(UTC), hub.requests + store.requests
    is_commit = re.fullmatch(r"[0-9a-f]{40}", ref) is not None
    commit = ref if is_commit else hub.resolve(model, ref).commit
    channel = None if is_commit or repair or limits.licences else read_channel(store, model, ref)
    if channel is not None and channel.commit == commit:
        size, mirrored = channel.bytes, None
    else:
        mirrored = mirror(
            hub, store, model, commit, limits, repair=repair, progress=progress, announce=announce, sign=sign
        )
        size = mirrored.manifest.total_bytes
        if not is_commit:
            move_channel(store, ref, mirrored.manifest, resolved_at=asked)
    moved = (mirrored.from_hub, mirrored.copied) if mirrored else (0, 0)
    return Followed(
        model=model,
        ref=ref,
        commit=commit,
        unchanged=mirrored is None or mirrored.unchanged,
        bytes=size,
        from_hub=moved[0],
        copied=moved[1],
        requests=hub.requests + store.requests - requests,
        seconds=round(time.monotonic() - begun, 3),
        manifest=f"{store.url}/{manifest_key(model, commit)}",
    )

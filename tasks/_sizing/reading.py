"""What a Hub tells of a model without its weights: the configuration, the files' sizes, the headers of safetensors.

A commit that Slipway would refuse is sized all the same, and the refusal is said.
"""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tasks._plans.memory_fit import Model
from tasks._weights.headers import Header, header_bytes, read_header
from tasks._weights.hub import Hub, HubFile
from tasks._weights.inspection import LOOKS_AT_ONCE, START_BYTES
from tasks._weights.names import LARGEST, Kind, kind_of
from tasks._weights.safety import admit
from tasks._weights.source import read_start
from tasks.errors import IntegrityError, NotFound, Refused
from tasks.spec import Limits

CONFIG = "config.json"
UNSHARDED = "consolidated"
"""How Mistral AI calls a second copy of the same weights."""


@dataclass(frozen=True)
class Published:
    """A model as its Hub shows it.  ``doubts`` say what of it could not be read, or would be refused."""

    name: str
    ref: str
    commit: str
    licence: str | None
    model: Model
    doubts: tuple[str, ...]


def read_published(hub: Hub, name: str, ref: str) -> Published:
    """Read what the Hub tells of ``ref`` of the model called ``name``.

    Raises ``NotFound`` for a commit without safetensors, and whatever ``Hub`` raises.
    """
    commit = hub.resolve(name, ref).commit
    listing = hub.listing(name, commit)
    weights = _weights(name, listing.files)
    config, no_config = _config(hub, name, commit, listing.files)
    dtypes, unread = _dtypes(hub, name, commit, weights)
    stored = sum(file.size for file in weights)
    said = (no_config, unread, _refusal(listing.files))
    return Published(
        name=name,
        ref=ref,
        commit=commit,
        licence=listing.facts.license,
        model=Model(config, stored, dtypes),
        doubts=tuple(one for one in said if one),
    )


def _weights(name: str, files: tuple[HubFile, ...]) -> list[HubFile]:
    """Return the files that an engine loads; of two copies, the one that is in shards."""
    weights = [file for file in files if kind_of(file.path) is Kind.WEIGHTS]
    shards = [file for file in weights if not file.path.startswith(UNSHARDED)]
    if not weights:
        raise NotFound(f"{name} has no safetensors weights.", remedy="Choose a repository that has.")
    return shards or weights


def _config(hub: Hub, name: str, commit: str, files: tuple[HubFile, ...]) -> tuple[dict[str, Any], str]:
    file = next((file for file in files if file.path == CONFIG), None)
    if file is None or file.size > LARGEST[Kind.CONFIG]:
        return {}, f"The commit has no {CONFIG} that can be read."
    try:
        tree = json.loads(read_start(hub, name, commit, file, file.size))
    except (ValueError, RecursionError):
        tree = None
    return (tree, "") if isinstance(tree, dict) else ({}, f"{CONFIG} is not JSON.")


def _dtypes(hub: Hub, name: str, commit: str, weights: list[HubFile]) -> tuple[dict[str, int], str]:
    """Return the elements of all tensors by dtype, by the headers alone."""
    found: Counter[str] = Counter()
    with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="size") as pool:
        try:
            for header in pool.map(lambda file: _header(hub, name, commit, file), weights):
                found.update(header.parameters)
        except (Refused, IntegrityError) as error:
            pool.shutdown(wait=False, cancel_futures=True)
            return {}, f"A header cannot be read, so the weights count as they are stored: {error.args[0]}"
    return dict(found), ""


def _header(hub: Hub, name: str, commit: str, file: HubFile) -> Header:
    start = read_start(hub, name, commit, file, min(START_BYTES, file.size))
    size = header_bytes(file.path, file.size, start)
    if size > len(start):
        start = read_start(hub, name, commit, file, size)
    return read_header(file.path, file.size, start[:size])


def _refusal(files: tuple[HubFile, ...]) -> str:
    try:
        admit(files, Limits())
    except Refused as error:
        return f"Slipway would refuse this commit: {error.args[0]}"
    return ""

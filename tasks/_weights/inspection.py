"""A look into a commit before its first large byte: small files whole, of weights the header.

What is read here is judged by ``tasks._weights.safety`` and its neighbours, and small files are kept, so that they
are asked for once.  A Hub that shows another header now than it sends later is found out by the file's hash.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from tasks._retry import retried
from tasks._stores.store import Store
from tasks._weights.contents import is_index, is_small_judged, judge_index, judge_small
from tasks._weights.digest import Digest
from tasks._weights.headers import Header, header_bytes, read_header
from tasks._weights.hub import Hub, HubFile
from tasks._weights.source import Source, read_start
from tasks.errors import IntegrityError, Refused

T = TypeVar("T")

LOOKS_AT_ONCE = 8
START_BYTES = 2**17
"""Bytes of a shard that are asked for first; most headers are shorter."""

KEPT_BYTES = 2**22
"""Small files up to this size are kept in memory until they are stored; larger ones are asked for again."""


@dataclass(frozen=True)
class Inspection:
    """What was found: small files by path, and the elements of all tensors by dtype."""

    read: dict[str, bytes] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Return the elements of all tensors together."""
        return sum(self.dtypes.values())


@dataclass(frozen=True)
class Commit:
    """A commit to look into: at the Hub, or at the keys in ``stored`` for files that the store has somewhere.

    Files that the store has were hashed when they came, so no byte of them is asked of the Hub again.
    """

    hub: Hub
    store: Store
    model: str
    commit: str
    stored: Mapping[str, str] = field(default_factory=dict)

    def start(self, file: HubFile, size: int) -> bytes:
        """Return the first ``size`` bytes of a file."""
        if (key := self.stored.get(file.path)) is not None:
            return retried(lambda: self._from_store(key, size))
        return read_start(self.hub, self.model, self.commit, file, size)

    def whole(self, file: HubFile) -> bytes:
        """Return a small file, verified."""
        if file.path in self.stored:
            digest, data = Digest(file), self.start(file, file.size)
            digest.update(data)
            digest.check()
            return data
        return twice(lambda: self._from_hub(file))

    def _from_store(self, key: str, size: int) -> bytes:
        with self.store.open(key, size=size) as stream:
            return stream.read(size)

    def _from_hub(self, file: HubFile) -> bytes:
        digest, view = Digest(file), memoryview(bytearray(file.size))
        with Source(self.hub, self.model, self.commit, file) as source:
            while digest.size < file.size:
                taken = source.read_into(view[digest.size :])
                digest.update(view[digest.size : digest.size + taken])
            source.end()
        digest.check()
        return bytes(view)


def inspect(commit: Commit, files: tuple[HubFile, ...]) -> Inspection:
    """Look into ``files``; raises ``Refused`` for one that breaks a rule, ``IntegrityError`` for wrong bytes."""
    weights = [file for file in files if file.path.endswith(".safetensors")]
    small = [file for file in files if is_small_judged(file)]
    with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="inspect") as pool:
        try:
            read = _judged(small, pool.map(commit.whole, small))
            headers = pool.map(lambda file: _header(commit, file), weights)
            found = dict(zip((file.path for file in weights), headers, strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for path, data in read.items():
        if is_index(path):
            judge_index(path, data, found)
    kept = {path: data for path, data in read.items() if len(data) <= KEPT_BYTES}
    return Inspection(kept, _dtypes(found.values()))


def twice(fetch: Callable[[], T]) -> T:
    """Return what ``fetch`` returns, trying once more after wrong bytes: copies of a Hub's servers may differ."""
    try:
        return fetch()
    except IntegrityError:
        return fetch()


def _judged(small: Iterable[HubFile], contents: Iterable[bytes]) -> dict[str, bytes]:
    read = {}
    for file, data in zip(small, contents, strict=True):
        judge_small(file.path, data)
        read[file.path] = data
    return read


def _header(commit: Commit, file: HubFile) -> Header:
    """Return a shard's header; nothing vouches for what came, so it is asked for once more before it is refused."""
    start = _start(commit, file)
    try:
        return _read_header(commit, file, start)
    except Refused:
        again = _start(commit, file)
        if again == start:
            raise
        return _read_header(commit, file, again)


def _start(commit: Commit, file: HubFile) -> bytes:
    return commit.start(file, min(START_BYTES, file.size))


def _read_header(commit: Commit, file: HubFile, start: bytes) -> Header:
    size = header_bytes(file.path, file.size, start)
    if size > len(start):
        start = commit.start(file, size)
    return read_header(file.path, file.size, start[:size])


def _dtypes(headers: Iterable[Header]) -> dict[str, int]:
    dtypes: dict[str, int] = {}
    for header in headers:
        for dtype, elements in header.parameters.items():
            dtypes[dtype] = dtypes.get(dtype, 0) + elements
    return dict(sorted(dtypes.items()))

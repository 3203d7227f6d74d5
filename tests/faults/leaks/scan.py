"""Looks for secrets where none may be: in files, in rows of a database, in a store, in the arguments of processes.

A secret is looked for as it is and in the forms in which it is usually written down: in a URL, in JSON, in hex and
in base64, alone or amid other bytes.
"""

import base64
import gzip
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from urllib.parse import quote, quote_plus

import psutil

from tasks._stores.store import Store

GZIP = b"\x1f\x8b"
SAMPLED_EVERY_S = 0.1
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, order=True)
class Leak:
    """A secret, by its name, the form it has, and where it is."""

    secret: str
    form: str
    where: str


@dataclass
class Scan:
    """Looks for ``secrets``, by their names, and keeps what it found in ``leaks``; ``seen`` counts what it saw."""

    secrets: Mapping[str, str]
    leaks: set[Leak] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)
    _forms: list[tuple[str, str, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._forms = [(name, form, data) for name, text in self.secrets.items() for form, data in forms(text)]

    def look(self, kind: str, where: str, data: bytes) -> None:
        """Look at bytes of that ``kind``, and at what they are called."""
        self.seen[kind] = self.seen.get(kind, 0) + 1
        data = where.encode() + (gzip.decompress(data) if data.startswith(GZIP) else data)
        self.leaks.update(Leak(name, form, f"{kind} {where}") for name, form, text in self._forms if text in data)

    def files(self, kind: str, folder: Path, *, but: Iterable[Path] = ()) -> None:
        """Look at every file below ``folder``, its name too, but for what lies in ``but``."""
        left_out = set(but)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and not left_out & {path, *path.parents}:
                self.look(kind, str(path), path.read_bytes()[:MOST_BYTES])

    def database(self, path: Path) -> None:
        """Look at every value of every row: what spans two pages of the file is whole there."""
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - the database's own names
                    for value in row:
                        data = value if isinstance(value, bytes) else str(value).encode()
                        self.look("row", f"of {table}", data)

    def store(self, store: Store) -> None:
        """Look at every object of a store."""
        for item in store.list(""):
            if found := store.get(item.key):
                self.look("object", item.key, found[0])

    @contextmanager
    def arguments(self) -> Iterator[None]:
        """Look again and again, until the block is left, at the arguments of this process's children and theirs."""
        over, told = Event(), set[tuple[str, ...]]()

        def sample() -> None:
            while not over.wait(SAMPLED_EVERY_S):
                for process in psutil.Process().children(recursive=True):
                    try:
                        arguments = tuple(process.cmdline())
                    except psutil.Error:
                        continue
                    if arguments not in told:
                        told.add(arguments)
                        self.look("arguments", " ".join(arguments), "\0".join(arguments).encode())

        sampler = Thread(target=sample, name="arguments", daemon=True)
        sampler.start()
        try:
            yield
        finally:
            over.set()
            sampler.join()


def forms(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield each way in which ``text`` may be written, by its name; none twice."""
    data, known = text.encode(), set[bytes]()
    ways = {
        "plain": [data],
        "in a URL": [quote(text, safe="").encode(), quote_plus(text).encode()],
        "in JSON": [json.dumps(text)[1:-1].encode()],
        "in hex": [data.hex().encode(), data.hex().upper().encode()],
        "in base64": [encoded(data, shift, way) for shift in range(3) for way in ALPHABETS],
    }
    for form, found in ways.items():
        for one in found:
            if one not in known:
                known.add(one)
                yield form, one


ALPHABETS = (base64.b64encode, base64.urlsafe_b64encode)


def encoded(data: bytes, shift: int, way: object) -> bytes:
    """Return the characters that ``data`` alone decides when it begins ``shift`` bytes into what is encoded."""
    assert callable(way)
    text: bytes = way(b"\0" * shift + data)
    whole = (shift + len(data)) // 3 * 4
    return text[(0, 2, 3)[shift] : whole]

"""Which services follow a ref: the receiver's allow-list, read from their specs again whenever those change.

A spec that is broken for a moment must not keep the others from being followed, so each service keeps its last good
one.  A spec that is removed is a service that is not followed any more.
"""

import logging
from pathlib import Path

from tasks._spec_file import load_spec, service_names
from tasks.errors import SlipwayError
from tasks.spec import ServiceSpec

Mark = tuple[int, int, int]

log = logging.getLogger(__name__)


class Services:
    """The services described in a folder.  ``look`` reads what changed, and is called by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marks: dict[str, Mark | None] = {}
        self._specs: dict[str, ServiceSpec] = {}
        self.trouble: dict[str, str] = {}
        self.look()

    @property
    def count(self) -> int:
        """Return how many services are followed."""
        return len(self._specs)

    def knows(self, model: str) -> bool:
        """Return whether any service serves ``model``."""
        return any(spec.model == model for spec in self._specs.values())

    def following(self, model: str, ref: str) -> tuple[str, ...]:
        """Return the services that follow ``ref`` of ``model``; a ref may be written in full, refs/heads/main."""
        specs = self._specs.items()
        return tuple(name for name, spec in specs if spec.model == model and is_ref(spec.ref, ref))

    def ref(self, service: str) -> tuple[str, str]:
        """Return model and ref that the service follows."""
        spec = self._specs[service]
        return spec.model, spec.ref

    def look(self) -> None:
        """Read the specs that changed since the last look; a folder that is away changes nothing."""
        if not self._folder.is_dir():
            self._tell({str(self._folder): "The folder of specs is not there."})
            return
        marks = {name: _mark(self._folder / f"{name}.yaml") for name in service_names(self._folder)}
        specs = {name: spec for name, spec in self._specs.items() if name in marks}
        trouble = {name: why for name, why in self.trouble.items() if name in marks}
        for name in (name for name, mark in marks.items() if mark != self._marks.get(name)):
            trouble.pop(name, None)
            try:
                specs[name] = load_spec(self._folder, name)
            except SlipwayError as error:
                trouble[name] = str(error)
        self._marks, self._specs = marks, specs
        self._tell(trouble)

    def _tell(self, trouble: dict[str, str]) -> None:
        for name, why in trouble.items():
            if self.trouble.get(name) != why:
                log.error("keeps the last good spec of %s, if there was one: %s", name, why)
        self.trouble = trouble


def is_ref(followed: str, told: str) -> bool:
    """Return whether ``told`` is the ref that a spec follows by its short name or in full."""
    return told in (followed, f"refs/heads/{followed}", f"refs/tags/{followed}")


def _mark(path: Path) -> Mark | None:
    """Return what changes with the content of a file; None when it is away, which reading it will tell."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

"""What is known of the objects of one kind, from lists, events and own writes in any order.

Resource versions of one kind are compared as numbers, which Kubernetes has promised from 1.35 on and etcd has always
given: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions.
"""

from dataclasses import dataclass

from k8s.kinds import Object


@dataclass(frozen=True)
class Listing:
    """Objects as they were together at ``resource_version``, from which a watch goes on."""

    items: tuple[Object, ...]
    resource_version: str


class Store:
    """The newest known state of each object, from lists and events in any order; not thread-safe."""

    def __init__(self) -> None:
        self._listed = 0
        self._versions: dict[str, int] = {}
        self._objects: dict[str, Object] = {}

    @property
    def objects(self) -> dict[str, Object]:
        """Return the objects that exist, by name."""
        return dict(self._objects)

    def replace(self, listing: Listing) -> None:
        """Take a consistent list; what is known to be newer than it stays.

        A list that is older than the one before comes from another history (a restored etcd): nothing stays.
        """
        listed = int(listing.resource_version)
        newer = {name for name, at in self._versions.items() if at > listed >= self._listed}
        objects = {_name(item): item for item in listing.items}
        self._objects = {
            **{name: item for name, item in objects.items() if name not in newer},
            **{name: item for name, item in self._objects.items() if name in newer},
        }
        kept = {name: self._versions[name] for name in newer}
        self._versions = {**{name: version(item) for name, item in objects.items()}, **kept}
        self._listed = listed

    def take(self, item: Object, *, deleted: bool = False) -> None:
        """Take one object as it was at its resourceVersion, unless something newer is known."""
        name, at = _name(item), version(item)
        if at <= max(self._listed, self._versions.get(name, 0)):
            return
        self._versions[name] = at
        if deleted:
            self._objects.pop(name, None)
        else:
            self._objects[name] = item


def version(item: Object) -> int:
    """Return the resourceVersion of an object or of a bookmark."""
    return int(item["metadata"]["resourceVersion"])


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])

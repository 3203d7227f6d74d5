"""Objects as the YAML that ``kubectl apply`` takes: block style, long texts as written, no anchors."""

from collections.abc import Iterable

import yaml

from k8s.kinds import Object


def to_yaml(objects: Iterable[Object]) -> str:
    """Return one document for each object."""
    return yaml.dump_all(
        objects, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=10**6, explicit_start=True
    )


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice, and a text of several lines as lines."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - yaml's own signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if text.endswith("\n") else None)


_Plain.add_representer(str, _text)

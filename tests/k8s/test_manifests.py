"""Objects as YAML: what is read back is what was written, and a person can read it."""

import yaml

from k8s.manifests import to_yaml


def test_what_is_printed_is_read_back_as_it_was() -> None:
    """Texts that look like something else stay texts, and each object is a document."""
    objects = [{"yes": "no", "number": "1", "empty": "", "lines": "a: 1\nb: 2\n"}, {"list": [{"a": []}]}]

    assert objects == list(yaml.safe_load_all(to_yaml(objects)))


def test_nothing_is_hidden_behind_an_anchor() -> None:
    """What occurs twice is written twice, and a text of several lines as these lines."""
    probe = {"path": "/x"}

    assert "---\na:\n  path: /x\nb:\n  path: /x\nc: |\n  d: 1\n  e: 2\n" == to_yaml(
        [{"a": probe, "b": probe, "c": "d: 1\ne: 2\n"}]
    )

"""The small files of a commit, judged before the first large byte: what only their content can tell.

A configuration that asks for code is refused, wherever in it the request stands.  These are the ways that
transformers 5 and vLLM 0.29 know:

``auto_map``               classes from a Python file of this repository, or of another one
``custom_pipelines``       the same for pipelines
``custom_generate``        a function for generation from a repository
``trust_remote_code``      true: the configuration consents in the user's place
``attn_implementation``    with a slash: kernels, which are native code, from a repository of that name

Serving needs none of them.  That the engine would refuse most by itself is no sufficient wall: some versions ran
them unasked.  A key with a number, as in a table of tokens, asks for nothing.

A file listed as an ordinary one may be the text of a symbolic link, or a git-lfs pointer to nowhere: either is
known by its content.  A tokenizer's large tables are data and are not parsed: an engine that cannot read one
never becomes healthy.
"""

import re
from collections.abc import Iterator, Mapping

from tasks._weights.headers import Header
from tasks._weights.hub import HubFile
from tasks._weights.json_text import Pairs, parse, parse_unique, read_text
from tasks._weights.names import INDEX_SUFFIX, Kind, kind_of, refusal, shown

SMALLEST_TABLE = 1024
"""Bytes from which on a tokenizer's table is neither a git-lfs pointer (130 bytes) nor likely a link."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LINK = re.compile(rb"[\w@.~ -]*/[\w@.~/ -]*|[\w@~ -]+\.[\w]+")
_REQUESTS = frozenset({"auto_map", "custom_pipelines", "custom_generate"})
_KERNELS = frozenset({"attn_implementation", "_attn_implementation", "_attn_implementation_internal"})
_CHAT_TEMPLATE = "chat_template"


def is_small_judged(file: HubFile) -> bool:
    """Say whether ``judge_small`` is to see the whole of this mirrored file before anything large is fetched."""
    kind = kind_of(file.path)
    small_table = kind is Kind.VOCABULARY and file.size <= SMALLEST_TABLE
    return small_table or kind in {Kind.CONFIG, Kind.TEMPLATE, Kind.INDEX}


def is_index(path: str) -> bool:
    """Say whether this is an index, which is for ``judge_index`` as well once the headers of all weights are read."""
    return kind_of(path) is Kind.INDEX


def judge_small(path: str, data: bytes) -> None:
    """Raise ``Refused`` when the file ``path``, whose whole content is ``data``, asks for code or is no such file."""
    _refuse_stand_in(path, data)
    match kind_of(path):
        case Kind.CONFIG:
            for template in _templates_of(path, data):
                _judge_template(path, template)
        case Kind.TEMPLATE:
            _judge_template(path, read_text(path, data))


def judge_index(path: str, data: bytes, headers: Mapping[str, Header]) -> None:
    """Raise ``Refused`` when the index ``path`` does not match ``headers``, those of all weights by path.

    Every tensor that it names must be in the shard that it names, and every shard of its series
    (``model-00001-of-00002.safetensors`` of ``model.safetensors.index.json``) must be named.  A shard may hold
    tensors that the index leaves out: engines read whole shards.
    """
    _refuse_stand_in(path, data)
    tree = parse_unique(path, data)
    shards = tree.get("weight_map") if isinstance(tree, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise refusal(path, "has no `weight_map` from names of tensors to names of files")
    for shard in sorted(set(shards.values()) - set(headers)):
        where = "lies outside of its folder" if "/" in shard or "\\" in shard else "is no weights file of the commit"
        raise refusal(path, f"points to {shown(shard)}, which {where}")
    for tensor, shard in shards.items():
        if tensor not in headers[shard].tensors:
            raise refusal(path, f"names a tensor {shown(tensor)} that {shown(shard)} does not hold")
    series = re.compile(re.escape(path.removesuffix(INDEX_SUFFIX)) + r"(\.safetensors)?-\d+-of-\d+\.safetensors")
    left_out = sorted(name for name in set(headers) - set(shards.values()) if series.fullmatch(name))
    if left_out:
        raise refusal(path, f"leaves out {', '.join(map(shown, left_out[:5]))} of its series")


def _refuse_stand_in(path: str, data: bytes) -> None:
    """Raise ``Refused`` for what git holds in place of a file."""
    if data.startswith(_LFS_POINTER):
        raise refusal(path, "is a git-lfs pointer in place of the file")
    if len(data) <= SMALLEST_TABLE and _LINK.fullmatch(data):
        raise refusal(path, "holds a path alone, as a symbolic link does")


def _templates_of(path: str, data: bytes) -> list[str]:
    """Return the chat templates of a configuration; raises ``Refused`` where it asks for code."""
    templates: list[str] = []

    def look(pairs: Pairs) -> dict[str, object]:
        for key, value in pairs:
            if _asks_for_code(key, value):
                raise refusal(path, f"asks for code by `{key}`, and code from a Hub is never run")
            if key == _CHAT_TEMPLATE:
                templates.extend(_templates(value))
        return dict(pairs)

    parse(path, data, look)
    return templates


def _asks_for_code(key: str, value: object) -> bool:
    if key == "trust_remote_code":
        return bool(value)
    if key in _KERNELS:
        names = value.values() if isinstance(value, dict) else (value,)
        return any("/" in name for name in names if isinstance(name, str))
    return key in _REQUESTS and isinstance(value, str | list | dict)


def _templates(value: object) -> Iterator[str]:
    """Yield the templates under the key: one, named ones, or a list of names with templates."""
    match value:
        case str(template):
            yield template
        case dict():
            yield from (template for template in value.values() if isinstance(template, str))
        case list():
            for item in value:
                yield from _templates(item)


def _judge_template(path: str, template: str) -> None:
    from tasks._weights.templates import judge_template  # noqa: PLC0415 - Jinja, which few commands need

    judge_template(path, template)

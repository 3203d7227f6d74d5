"""Small files: configurations that ask for code, stand-ins for files, and indexes that do not match."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._weights.contents import is_index, is_small_judged, judge_index, judge_small
from tasks._weights.headers import Header
from tasks._weights.hub import HubFile
from tasks.errors import Refused

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 123\n"
INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
HEADERS = {
    FIRST: Header(tensors=frozenset({"a", "b"}), parameters={"BF16": 2}),
    SECOND: Header(tensors=frozenset({"c"}), parameters={"BF16": 1}),
    "consolidated.safetensors": Header(tensors=frozenset({"a"}), parameters={"BF16": 1}),
}


def written(tree: object) -> bytes:
    """Return the JSON of a tree."""
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"auto_map": {}}', "auto_map"),
        ('{"a": [{"auto_map": {"AutoModel": "x--y.Z"}}]}', "auto_map"),
        ('{"auto_map": ["tokenization_x.X", null]}', "auto_map"),
        ('{"auto\\u005fmap": {"AutoConfig": "x.Y"}}', "auto_map"),
        ('{"a": {"auto_map": {"AutoConfig": "x.Y"}}, "a": {}}', "auto_map"),
        ('{"custom_pipelines": {"pair": {"impl": "x.Y"}}}', "custom_pipelines"),
        ('{"custom_generate": "org/name"}', "custom_generate"),
        ('{"text_config": {"trust_remote_code": true}}', "trust_remote_code"),
        ('{"attn_implementation": "org/kernel@main:attend"}', "attn_implementation"),
        ('{"_attn_implementation": {"vision_config": "org/kernel"}}', "_attn_implementation"),
    ],
)
def test_refuses_a_configuration_that_asks_for_code(text: str, key: str) -> None:
    """Wherever the request stands, even where a second key of that name hides it."""
    with pytest.raises(Refused, match=rf"'config.json' asks for code by `{key}`"):
        judge_small("config.json", text.encode())


def test_reads_a_configuration_that_asks_for_nothing() -> None:
    """Tokens may be called anything, numbers need not be finite, and a kernel of the engine's own is no request."""
    judge_small(
        "config.json",
        b'{"architectures": ["LlamaForCausalLM"], "time_step_limit": [0, Infinity], "added": {"auto_map": 7},'
        b' "attn_implementation": "flash_attention_2", "trust_remote_code": false, "auto_map": null}',
    )


@pytest.mark.parametrize(
    ("path", "data", "rule"),
    [
        pytest.param("config.json", b"{", "not JSON", id="cut"),
        pytest.param("config.json", b"", "not JSON", id="empty"),
        pytest.param("config.json", b"[" * 100_000, "nested too deeply", id="bomb"),
        pytest.param("config.json", b'{"a": ' + b"9" * 5_000 + b"}", "not JSON", id="endless number"),
        pytest.param("config.json", b'{"a": "\xff"}', "no UTF-8 from byte 7 on", id="latin"),
        pytest.param("config.json", "{}".encode("utf-16"), "UTF-8|NUL", id="utf-16"),
        pytest.param("config.json", b'{"a": 1}\0', "NUL", id="nul"),
        pytest.param("config.json", POINTER, "git-lfs pointer", id="pointer"),
        pytest.param("tokenizer.json", POINTER, "git-lfs pointer", id="pointer for a table"),
        pytest.param("tokenizer.model", POINTER, "git-lfs pointer", id="pointer for a binary"),
        pytest.param("config.json", b"../other/config.json", "symbolic link", id="link"),
        pytest.param("chat_template.jinja", b"/etc/passwd", "symbolic link", id="link for a template"),
        pytest.param("merges.txt", b"vocab.txt", "symbolic link", id="link to a neighbour"),
        pytest.param("chat_template.jinja", b"{{ a \xff }}", "no UTF-8", id="template"),
        pytest.param(INDEX, POINTER, "git-lfs pointer", id="pointer for an index"),
    ],
)
def test_refuses_a_file_that_is_not_what_it_is_called(path: str, data: bytes, rule: str) -> None:
    """What cannot be judged is refused, as is what git holds in place of a file."""
    with pytest.raises(Refused, match=rule) as caught:
        judge_small(path, data)

    assert repr(path) in str(caught.value)


def test_a_table_of_tokens_is_not_searched_for_requests() -> None:
    """A tokenizer may know any word."""
    judge_small("tokenizer.json", b'{"model": {"vocab": {"auto_map": 1}}, "auto_map": {}}')
    judge_small("merges.txt", b"#version: 0.2\ni n\n")


@pytest.mark.parametrize(
    "value",
    [
        "{% include 'x' %}",
        {"default": "{{ messages }}", "tools": "{% include 'x' %}"},
        [{"name": "default", "template": "{{ messages }}"}, {"name": "tools", "template": "{% include 'x' %}"}],
    ],
    ids=["one", "by name", "listed"],
)
def test_judges_every_chat_template_of_a_configuration(value: Any) -> None:
    """One text, a map and a list are three ways to write the same key."""
    with pytest.raises(Refused, match="another file"):
        judge_small("tokenizer_config.json", written({"chat_template": value}))
    with pytest.raises(Refused, match="another file"):
        judge_small("chat_template.json", written({"deep": {"chat_template": value}}))


def test_judges_a_template_in_a_file_of_its_own() -> None:
    """The newer way to write a template is a file."""
    judge_small("chat_template.jinja", b"{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(Refused, match="another file"):
        judge_small("additional_chat_templates/tools.jinja", b"{% include 'x' %}")


def test_says_which_files_to_read_whole() -> None:
    """Everything that can ask for code, and tables so small that they may be stand-ins."""
    sizes = {
        "config.json": 10_000,
        "chat_template.jinja": 10_000,
        INDEX: 10_000_000,
        "tokenizer.json": 1_024,
        "merges.txt": 1_025,
        "README.md": 10,
        "model.safetensors": 10,
        "picture.png": 10,
    }
    judged = {path for path, size in sizes.items() if is_small_judged(HubFile(path=path, size=size))}

    assert {"config.json", "chat_template.jinja", INDEX, "tokenizer.json"} == judged
    assert [INDEX] == [path for path in sizes if is_index(path)]


def test_an_index_matches_its_shards() -> None:
    """Weights of another series may lie beside, and a shard may hold more than the index names."""
    judge_index(INDEX, written({"metadata": {"total_size": 6}, "weight_map": {"a": FIRST, "c": SECOND}}), HEADERS)


@pytest.mark.parametrize(
    ("tree", "rule"),
    [
        pytest.param([], "has no `weight_map`", id="list"),
        pytest.param({"weight_map": {}}, "has no `weight_map`", id="empty"),
        pytest.param({"weight_map": {"a": 1}}, "has no `weight_map`", id="numbers"),
        pytest.param({"weight_map": {"a": "../../other/m.safetensors"}}, "lies outside", id="traversal"),
        pytest.param({"weight_map": {"a": "/m.safetensors"}}, "lies outside", id="absolute"),
        pytest.param({"weight_map": {"a": "m.bin"}}, "'m.bin', which is no weights file", id="pickle"),
        pytest.param({"weight_map": {"a": FIRST, "c": "gone.safetensors"}}, "is no weights file", id="missing"),
        pytest.param({"weight_map": {"a": FIRST, "b": SECOND}}, f"tensor 'b' that '{SECOND}'", id="wrong shard"),
        pytest.param({"weight_map": {"a": FIRST, "z": SECOND}}, "tensor 'z'", id="unknown tensor"),
        pytest.param({"weight_map": {"a": FIRST}}, f"leaves out '{SECOND}'", id="shard left out"),
    ],
)
def test_refuses_an_index_that_does_not_match(tree: object, rule: str) -> None:
    """It may point nowhere but to the weights of its commit, and must know all of its series."""
    with pytest.raises(Refused, match=rule) as caught:
        judge_index(INDEX, written(tree), HEADERS)

    assert repr(INDEX) in str(caught.value)


def test_refuses_an_index_that_two_readers_read_in_two_ways() -> None:
    """Of two equal keys one reader takes the first and another the last."""
    with pytest.raises(Refused, match="key occurs twice"):
        judge_index(INDEX, f'{{"weight_map": {{"a": "{FIRST}", "a": "{SECOND}"}}}}'.encode(), HEADERS)


@settings(max_examples=40)
@given(
    st.sampled_from(["config.json", "chat_template.jinja", INDEX]),
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({"chat_template": text}).encode()),
)
def test_any_bytes_are_read_or_refused(path: str, data: bytes) -> None:
    """Nothing that a Hub may send raises anything but a refusal."""
    with suppress(Refused):
        judge_small(path, data)
    with suppress(Refused):
        judge_index(INDEX, data, HEADERS)

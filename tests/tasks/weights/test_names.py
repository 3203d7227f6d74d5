"""Rules for paths: what is unsafe on any system is refused, and each name has one kind."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._weights.names import LONGEST_NAME, LONGEST_PATH, Kind, kind_of, refuse_paths, shown
from tasks.errors import Refused

CYRILLIC_O = "\u043e"


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("../../etc/passwd", "leads out"),
        ("folder/../../../etc/passwd", "leads out"),
        ("..", "leads out"),
        ("/etc/passwd", "absolute"),
        ("//host/share/file", "absolute"),
        ("..\\..\\Windows\\evil", "backslash"),
        ("C:\\Windows\\evil", "backslash"),
        ("\\\\host\\share\\evil", "backslash"),
        ("folder/\\evil", "backslash"),
        ("C:/Windows/evil", "drive"),
        ("D:relative", "drive"),
        ("folder/c:evil", "drive"),
        ("a//b.json", "empty segment"),
        ("./a.json", "empty segment"),
        ("a/", "empty segment"),
        ("", "empty segment"),
        ("nul\0.json", "cannot be printed"),
        ("line\nbreak.json", "cannot be printed"),
        ("bell\a.png", "cannot be printed"),
        ("escape\x1b[2J.json", "cannot be printed"),
        ("right\u202eleft.json", "cannot be printed"),
        ("lone\ud800surrogate", "cannot be printed"),
        ("CON", "device"),
        ("nul.json", "device"),
        ("a/Com1.tar.gz", "device"),
        ("lpt¹.png", "device"),
        ("aux .png", "device"),
        ("ends.", "ends in a dot"),
        ("ends ", "ends in a dot or a space"),
        ("folder./a.png", "ends in a dot"),
        ("x" * 5_000, f"more than {LONGEST_PATH} bytes"),
        ("é" * 128 + ".png", f"more than {LONGEST_NAME} bytes"),
        ("/".join("x" * 200 for _ in range(3)), f"more than {LONGEST_PATH} bytes"),
        (".manifest.json", "store keeps"),
        (".MANIFEST.SIG", "store keeps"),
        ("hash", "store keeps"),
        ("Hash/x.json", "store keeps"),
        (f"m{CYRILLIC_O}del.safetensors", "plain ASCII"),
        ("\uff43onfig.json", "plain ASCII"),
        (f"{CYRILLIC_O}/config.json", "plain ASCII"),
        ("what?.json", "plain ASCII"),
    ],
)
def test_refuses_an_unsafe_path(path: str, rule: str) -> None:
    """The refusal names the rule and shows the path so that nothing in it acts on a terminal."""
    with pytest.raises(Refused, match=rule) as caught:
        refuse_paths(["model.safetensors", path])

    assert str(caught.value).replace("…", "").isascii()
    assert shown(path)[1:61] in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("paths", "rule"),
    [
        (("a.png", "a.png"), "listed twice"),
        (("model.safetensors", "MODEL.safetensors"), "upper and lower case"),
        (("straße.png", "STRASSE.png"), "upper and lower case"),
        (("\u00e9.png", "e\u0301.png"), "form of a character"),
        (("fi.png", "\ufb01.png"), "form of a character"),
        (("a", "a/b.json"), "lies within 'a', which is a file"),
        (("x/y/z.json", "X"), "lies within 'X'"),
    ],
)
def test_refuses_two_paths_that_some_system_takes_for_one(paths: tuple[str, str], rule: str) -> None:
    """Of two such files one would silently replace the other."""
    for listing in (paths, paths[::-1]):
        with pytest.raises(Refused, match=rule.partition(" 'a'")[0]):
            refuse_paths(listing)


def test_what_stays_at_the_hub_may_be_called_anything_that_can_be_printed() -> None:
    """Pictures and translations of a README harm nobody, nor do names that only resemble a device's."""
    refuse_paths(
        [
            "图片.png",
            "README_中文.md",
            "weird but valid/name.txt",
            "console.png",
            "10:30.log",
            "com/x.md",
            ".gitattributes",
        ]
    )


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model-00001-of-00002.safetensors", Kind.WEIGHTS),
        ("deep/model.safetensors", None),
        ("model.safetensors.index.json", Kind.INDEX),
        ("deep/model.safetensors.index.json", None),
        ("pytorch_model.bin.index.json", None),
        ("config.json", Kind.CONFIG),
        ("1_Pooling/config.json", Kind.CONFIG),
        ("onnx/config.json", None),
        ("onnx/deep/config.json", None),
        ("trainer_state.json", None),
        ("chat_template.jinja", Kind.TEMPLATE),
        ("additional_chat_templates/tools.jinja", Kind.TEMPLATE),
        ("tokenizer.json", Kind.VOCABULARY),
        ("tokenizer.model.v3", Kind.VOCABULARY),
        ("tekken.json", Kind.VOCABULARY),
        ("merges.txt", Kind.VOCABULARY),
        ("tokenizer_config.json", Kind.CONFIG),
        ("LICENSE.txt", Kind.PAPER),
        ("README.md", Kind.PAPER),
        ("requirements.txt", None),
        ("model.gguf", None),
        ("pytorch_model.bin", None),
        (".gitattributes", None),
    ],
)
def test_a_path_has_one_kind(path: str, kind: Kind | None) -> None:
    """The kind decides whether a file is mirrored and how it is judged."""
    assert kind is kind_of(path)


@settings(max_examples=50)
@given(st.text(max_size=40), st.text(max_size=40))
def test_paths_that_are_let_pass_are_safe(first: str, second: str) -> None:
    """Whatever a Hub lists, what passes is relative, printable, and two different files on every system."""
    try:
        refuse_paths([first, second])
    except Refused:
        return
    for path in (first, second):
        assert path.isprintable()
        assert not {"", ".", ".."} & set(path.split("/"))
        assert path.isascii() or kind_of(path) is None
    assert unicodedata.normalize("NFC", first).lower() != unicodedata.normalize("NFC", second).lower()


def test_a_long_name_is_shortened() -> None:
    """A message stays a sentence, whatever a Hub calls its files."""
    assert f"'{'x' * 60}…'" == shown("x" * 5_000)
    assert "'\\u043e'" == shown(CYRILLIC_O)

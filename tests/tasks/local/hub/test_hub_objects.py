"""Identities agree with git's: the expected ids were printed by git 2 itself for the same content."""

import hashlib
from pathlib import Path

from tasks.local.hub import objects

_BLOBS = {
    "a-x/z": "975fbec8256d3e8a3797e7a3611380f27c49f4ac",
    "a.txt": "587be6b4c3f93f93c489c0111bba5596147a26cb",
    "a/b/c.txt": "45b983be36b73c0788dc9cbcb76cbb80fc7bb057",
    "config.json": "0967ef424bce6791893e9a57bb952f80fd536e93",
}


def test_blob_ids_are_gits() -> None:
    """``git hash-object`` gives the same ids."""
    assert objects.git_id("blob", b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert objects.git_id("blob", b"{}\n") == _BLOBS["config.json"]


def test_tree_ids_are_gits_for_names_that_sort_around_a_slash() -> None:
    """``git write-tree`` gives the same ids, though ``a-x``, ``a.txt`` and ``a/`` sort by git's own rule."""
    assert objects.tree_ids(_BLOBS) == {
        "": "d9649ed78cf91d325cb4be8e9dada623537e407a",
        "a": "69c8a3a4454e996caff192fc33c25aeb34f4cd6f",
        "a/b": "25896496f6b0554bb044f093c679297b6edf5eb2",
        "a-x": "533d93e7f0076246366dd840eb9da8b6c845d961",
    }


def test_folders_that_hold_only_folders_are_in_their_parents() -> None:
    """A file three folders deep gives every folder above it an id, and changes the root's."""
    deep = objects.tree_ids({"a/b/c/d": _BLOBS["a.txt"]})
    other = objects.tree_ids({"a/b/c/d": _BLOBS["config.json"]})
    assert set(deep) == {"", "a", "a/b", "a/b/c"}
    assert all(deep[folder] != other[folder] for folder in deep)


def test_commit_ids_are_gits_and_hash_tree_parent_and_message() -> None:
    """``git commit-tree`` gives the same id, and each part of a commit changes it."""
    tree = "d9649ed78cf91d325cb4be8e9dada623537e407a"
    first = objects.commit_id(tree, None, "first")
    assert first == "132ac1fe387dc3249ccf7f30986d9676bdad3ba9"
    others = {
        objects.commit_id(tree, first, "first"),
        objects.commit_id(tree, None, "second"),
        objects.commit_id(_BLOBS["a.txt"], None, "first"),
    }
    assert len(others | {first}) == 4


def test_weights_are_large_whatever_their_size_and_other_files_from_the_limit_on() -> None:
    """The suffix or the size alone decides."""
    assert objects.is_large("a/model.safetensors", 1)
    assert objects.is_large("x.gguf", 0)
    assert objects.is_large("tokenizer.json", objects.LARGE_FILE_BYTES)
    assert not objects.is_large("tokenizer.json", objects.LARGE_FILE_BYTES - 1)


def test_sha256_of_reads_the_whole_file(tmp_path: Path) -> None:
    """The digest is that of all bytes, beyond one buffer."""
    body = bytes(range(251)) * 9000
    (tmp_path / "f").write_bytes(body)
    assert objects.sha256_of(tmp_path / "f") == hashlib.sha256(body).hexdigest()

"""Publishing: what becomes visible, when, and what a killed or bad publish leaves."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.errors import BadInput, Conflict, MachineError, NotFound
from tasks.local.hub.objects import sha256_of
from tasks.local.hub.publishing import publish, set_ref
from tasks.local.hub.repositories import (
    CommitRecord,
    blob_path,
    history,
    read_commit,
    read_repository,
    resolve_revision,
)
from tests.tasks.local.hub.conftest import MODEL, WEIGHTS, write_model


def _head(root: Path, revision: str = "main") -> CommitRecord:
    return resolve_revision(root, read_repository(root, MODEL), revision)


def test_a_commit_holds_the_folder_byte_for_byte(tmp_path: Path) -> None:
    """Every file is listed with its size, its bytes are kept, and only weights are LFS."""
    folder, root = write_model(tmp_path / "m"), tmp_path / "hub"
    commit = read_commit(root, MODEL, publish(root, MODEL, folder, message="one"))
    assert [file.path for file in commit.files] == ["config.json", "model.safetensors", "tokenizer/vocab.txt"]
    for file in commit.files:
        assert blob_path(root, file).read_bytes() == (folder / file.path).read_bytes()
        assert file.size == (folder / file.path).stat().st_size
    large = commit.file("model.safetensors")
    assert large is not None
    assert large.lfs is not None
    assert large.lfs.sha256 == sha256_of(folder / "model.safetensors")
    assert [file.path for file in commit.files if file.lfs] == ["model.safetensors"]


def test_the_same_folder_again_is_the_same_commit(tmp_path: Path) -> None:
    """Unchanged content adds no commit, and another root gives the same ids."""
    folder = write_model(tmp_path / "m")
    first = publish(tmp_path / "hub", MODEL, folder, message="one")
    assert publish(tmp_path / "hub", MODEL, folder, message="another message") == first
    assert publish(tmp_path / "elsewhere", MODEL, folder, message="one") == first


def test_a_change_is_a_new_commit_on_the_old_one(tmp_path: Path) -> None:
    """The branch moves, the parent is recorded, the old commit stays, and unchanged bytes are kept once."""
    root, folder = tmp_path / "hub", write_model(tmp_path / "m")
    first = publish(root, MODEL, folder, message="one")
    second = publish(root, MODEL, write_model(folder, greeting="changed"), message="two")
    assert [record.id for record in history(root, MODEL, _head(root))] == [second, first]
    assert _head(root, first).file("config.json") == _head(root, second).file("config.json")
    assert len(list((root / "blobs" / "sha256").rglob("*/*"))) == 1


def test_editing_the_folder_in_place_does_not_change_a_commit(tmp_path: Path) -> None:
    """Bytes are copied: a flipped byte in the source later is not in the published file."""
    root, folder = tmp_path / "hub", write_model(tmp_path / "m")
    file = read_commit(root, MODEL, publish(root, MODEL, folder, message="one")).file("model.safetensors")
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.write(b"\xff")
    assert file is not None
    assert blob_path(root, file).read_bytes() == WEIGHTS


def test_visibility_is_kept_unless_given(tmp_path: Path) -> None:
    """A later publish that says nothing of the gate does not open it."""
    root, folder = tmp_path / "hub", write_model(tmp_path / "m")
    publish(root, MODEL, folder, message="one", gated=True, private=True)
    publish(root, MODEL, write_model(folder, greeting="x"), message="two", private=False)
    repository = read_repository(root, MODEL)
    assert (repository.gated, repository.private) == (True, False)


def test_git_and_cache_folders_and_link_targets(tmp_path: Path) -> None:
    """What huggingface_hub leaves out stays out; a link to a file is published as that file."""
    root, folder = tmp_path / "hub", write_model(tmp_path / "m")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "x.lock").write_text("")
    (folder / "alias.txt").symlink_to(folder / "tokenizer" / "vocab.txt")
    publish(root, MODEL, folder, message="one")
    paths = [file.path for file in _head(root).files]
    assert paths == ["alias.txt", "config.json", "model.safetensors", "tokenizer/vocab.txt"]


@pytest.mark.parametrize(
    "repo", ["parrot", "a/b/c", "../x", "a/..", "/a/b", "a/b\n", "a/.hidden", "a/b..c", "", "a/", "a/b\0"]
)
def test_unsafe_repository_names_are_refused(tmp_path: Path, repo: str) -> None:
    """Nothing is written for a name that is not org/name."""
    with pytest.raises(BadInput):
        publish(tmp_path / "hub", repo, write_model(tmp_path / "m"), message="one")
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    "ref", ["", "../x", "a//b", "a/", "/a", "a..b", "a b", "refs/other/x", "refs/heads/", "x.lock", "0" * 40]
)
def test_unsafe_refs_are_refused(tmp_path: Path, ref: str) -> None:
    """A ref that could be mistaken for a path or a commit is refused."""
    with pytest.raises(BadInput):
        publish(tmp_path / "hub", MODEL, write_model(tmp_path / "m"), message="one", ref=ref)


def test_folders_that_cannot_be_published_are_refused(tmp_path: Path) -> None:
    """A missing or empty folder, a dangling link, a linked folder and a pipe are each named as the reason."""
    with pytest.raises(BadInput, match="not a folder"):
        publish(tmp_path / "hub", MODEL, tmp_path / "missing", message="one")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match="no file"):
        publish(tmp_path / "hub", MODEL, empty, message="one")
    folder = write_model(tmp_path / "m")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "pipe")
    (folder / "line\nbreak").write_text("x")
    for name in ("dangling", "linked", "pipe", "break"):
        bad = tmp_path / f"only {name}"
        bad.mkdir()
        next(folder.glob(f"*{name}")).rename(bad / next(folder.glob(f"*{name}")).name)
        with pytest.raises(BadInput, match=name):
            publish(tmp_path / "hub", MODEL, bad, message="one")


def test_a_file_that_changes_meanwhile_is_a_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that differ from those hashed first are never kept under that hash."""
    folder, root = write_model(tmp_path / "m"), tmp_path / "hub"

    def copy_after_a_change(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[::-1])

    monkeypatch.setattr(shutil, "copyfile", copy_after_a_change)
    with pytest.raises(Conflict):
        publish(root, MODEL, folder, message="one")
    with pytest.raises(NotFound):
        read_repository(root, MODEL)


def test_a_root_that_is_a_file_is_a_machine_error(tmp_path: Path) -> None:
    """A root that cannot hold anything is named in one sentence."""
    (tmp_path / "hub").write_text("")
    with pytest.raises(MachineError, match="hub"):
        publish(tmp_path / "hub", MODEL, write_model(tmp_path / "m"), message="one")


def test_set_ref_names_only_what_exists(tmp_path: Path) -> None:
    """A tag points at a published commit; a missing repository or commit is an error."""
    root, folder = tmp_path / "hub", write_model(tmp_path / "m")
    with pytest.raises(NotFound):
        set_ref(root, MODEL, "refs/tags/v1", "0" * 40)
    first = publish(root, MODEL, folder, message="one")
    second = publish(root, MODEL, write_model(folder, greeting="x"), message="two")
    set_ref(root, MODEL, "main", first)
    set_ref(root, MODEL, "refs/tags/v2", second)
    assert (_head(root).id, _head(root, "v2").id) == (first, second)
    with pytest.raises(NotFound):
        set_ref(root, MODEL, "main", "0" * 40)


def test_concurrent_publishers_of_one_branch_make_one_line(tmp_path: Path) -> None:
    """Each of four publishers finds the one before it as its parent; none is lost."""
    root = tmp_path / "hub"
    folders = [write_model(tmp_path / str(n), greeting=f"publisher {n}") for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(lambda folder: publish(root, MODEL, folder, message=folder.name), folders))
    assert sorted(record.id for record in history(root, MODEL, _head(root))) == sorted(published)
    assert len(set(published)) == 4


_KILLED_AT_RENAME = """
import os, signal, sys
from pathlib import Path
from tasks.local.hub.publishing import publish

left, rename = [int(sys.argv[1])], Path.replace

def replace(self, target):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

Path.replace = replace
publish(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), message="two")
"""


def test_a_publish_killed_before_any_rename_leaves_the_old_state(tmp_path: Path) -> None:
    """Whichever step is the last, main is the old commit, all its bytes are there, and the next publish ends well."""
    before, folder = tmp_path / "before", tmp_path / "m"
    first = publish(before, MODEL, write_model(folder), message="one")
    write_model(folder, greeting="second", weights=WEIGHTS[::-1])
    kills = 0
    while True:
        root = tmp_path / f"hub{kills}"
        shutil.copytree(before, root)
        command = [sys.executable, "-c", _KILLED_AT_RENAME, str(kills), str(root), MODEL, str(folder)]
        ended = subprocess.run(command, timeout=30, check=False).returncode
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        assert _head(root).id == first
        assert all(blob_path(root, file).stat().st_size == file.size for file in _head(root).files)
        second = publish(root, MODEL, folder, message="two")
        assert [record.id for record in history(root, MODEL, _head(root))] == [second, first]
        assert list((root / "incoming").iterdir()) == []
        kills += 1
    assert kills == 4  # two changed files, the commit, the refs

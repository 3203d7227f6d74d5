"""The real huggingface_hub, unchanged, against the embedded Hub."""

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tasks.local.hub.publishing import publish
from tests.tasks.local.hub.conftest import (
    GATED,
    MODEL,
    PRIVATE,
    READER,
    STRANGER,
    WEIGHTS,
    Stage,
    write_model,
)

_SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def _read(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("revision", "greeting"),
    [(None, b"good day\n"), ("main", b"good day\n"), ("feature/x", b"hello\n"), ("v1", b"hello\n")],
)
def test_snapshot_by_branch_and_tag(stage: Stage, tmp_path: Path, revision: str | None, greeting: bytes) -> None:
    """A whole download by default branch, branch, quoted branch and tag holds every byte."""
    got = stage.api().snapshot_download(MODEL, revision=revision, cache_dir=tmp_path)
    assert _read(got) == {
        "config.json": b'{"architectures": ["Parrot"]}\n',
        "tokenizer/vocab.txt": greeting,
        "model.safetensors": WEIGHTS,
    }


def test_snapshot_by_commit_and_its_checksums(stage: Stage, tmp_path: Path) -> None:
    """The old commit is readable by id, and the client's own verification agrees with every hash."""
    got = snapshot_download(
        MODEL, revision=stage.old, endpoint=stage.server.endpoint, local_dir=tmp_path / "m", token=False
    )
    assert _read(got)["tokenizer/vocab.txt"] == b"hello\n"
    report = stage.api().verify_repo_checksums(MODEL, revision=stage.old, local_dir=tmp_path / "m")
    assert (report.checked_count, report.mismatches, report.missing_paths) == (3, [], [])
    (tmp_path / "m" / "model.safetensors").write_bytes(WEIGHTS[::-1])
    report = stage.api().verify_repo_checksums(MODEL, revision=stage.old, local_dir=tmp_path / "m")
    assert [mismatch["path"] for mismatch in report.mismatches] == ["model.safetensors"]


def test_one_file(stage: Stage, tmp_path: Path) -> None:
    """A small and a large file come one by one, under a folder named by the commit."""
    small = stage.api().hf_hub_download(MODEL, "tokenizer/vocab.txt", cache_dir=tmp_path)
    large = stage.api().hf_hub_download(MODEL, "model.safetensors", cache_dir=tmp_path)
    assert Path(small).read_bytes() == b"good day\n"
    assert Path(large).read_bytes() == WEIGHTS
    assert Path(small).parts[-3] == stage.new


def test_repo_info_names_the_commit_and_the_files(stage: Stage) -> None:
    """``repo_info`` resolves a ref and, asked for blobs, gives sizes and both kinds of hash."""
    info = stage.api().model_info(MODEL, revision="feature/x", files_metadata=True)
    assert (info.id, info.author, info.sha, info.gated, info.private) == (MODEL, "acme", stage.old, False, False)
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    large = files["model.safetensors"].lfs
    assert large is not None
    assert (large.size, large.sha256) == (len(WEIGHTS), _SHA256)
    assert files["config.json"].lfs is None
    assert files["config.json"].size == 30
    plain = stage.api().model_info(MODEL).siblings or []
    assert [sibling.size for sibling in plain] == [None, None, None]
    assert stage.api().model_info(MODEL, expand=["sha"]).siblings is None


def test_the_tree_flat_deep_and_below_a_folder(stage: Stage) -> None:
    """Listings hold files and folders at the asked depth, with the hashes a mirror compares."""
    flat = list(stage.api().list_repo_tree(MODEL))
    assert [(type(entry), entry.path) for entry in flat] == [
        (RepoFile, "config.json"),
        (RepoFile, "model.safetensors"),
        (RepoFolder, "tokenizer"),
    ]
    assert isinstance(flat[1], RepoFile)
    assert flat[1].lfs is not None
    assert flat[1].lfs.sha256 == _SHA256
    deep = [entry.path for entry in stage.api().list_repo_tree(MODEL, recursive=True)]
    assert deep == ["config.json", "model.safetensors", "tokenizer", "tokenizer/vocab.txt"]
    below = [entry.path for entry in stage.api().list_repo_tree(MODEL, "tokenizer")]
    assert below == ["tokenizer/vocab.txt"]


def test_refs_and_commits(stage: Stage) -> None:
    """Branches and tags are listed with their commits, and the history newest first."""
    refs = stage.api().list_repo_refs(MODEL)
    assert {ref.ref: ref.target_commit for ref in refs.branches + refs.tags} == {
        "refs/heads/main": stage.new,
        "refs/heads/feature/x": stage.old,
        "refs/tags/v1": stage.old,
    }
    commits = stage.api().list_repo_commits(MODEL)
    assert [(commit.commit_id, commit.title, commit.message) for commit in commits] == [
        (stage.new, "Better words", "Politer."),
        (stage.old, "First words", ""),
    ]


def test_what_does_not_exist_is_told_apart(stage: Stage, tmp_path: Path) -> None:
    """Repository, revision, folder and file each raise the client's own error, with a token and without."""
    api = stage.api()
    for token, status in ((False, 401), (STRANGER, 404)):
        with pytest.raises(RepositoryNotFoundError) as missing:
            stage.api(token).model_info("acme/none")
        assert missing.value.response.status_code == status
    for revision in ("none", "0" * 40, "../main", "refs/heads/none"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info(MODEL, revision=revision)
        with pytest.raises(RevisionNotFoundError):
            api.hf_hub_download(MODEL, "config.json", revision=revision, cache_dir=tmp_path)
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(MODEL, "none.json", cache_dir=tmp_path)
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(MODEL, "none"))


def test_a_gate_keeps_the_bytes_back_but_not_the_listing(stage: Stage, tmp_path: Path) -> None:
    """Anonymous 401, unauthorised or unknown 403, and a token with the right reads it."""
    anyone = stage.api()
    assert anyone.model_info(GATED).gated == "manual"
    assert len(list(anyone.list_repo_tree(GATED))) == 3
    for token, status in ((False, 401), (STRANGER, 403), ("hf_unknown", 403)):
        with pytest.raises(GatedRepoError) as small:
            stage.api(token).hf_hub_download(GATED, "config.json", cache_dir=tmp_path)
        with pytest.raises(GatedRepoError) as large:
            stage.api(token).hf_hub_download(GATED, "model.safetensors", cache_dir=tmp_path)
        with pytest.raises(GatedRepoError) as checked:
            stage.api(token).auth_check(GATED)
        assert {caught.value.response.status_code for caught in (small, large, checked)} == {status}
    stage.api(READER).auth_check(GATED)
    got = stage.api(READER).snapshot_download(GATED, cache_dir=tmp_path)
    assert _read(got)["model.safetensors"] == WEIGHTS


def test_a_private_repository_shows_nothing(stage: Stage, tmp_path: Path) -> None:
    """Not even the listing: anonymous 401, unauthorised 403, and a token with the right reads it."""
    for token, status in ((False, 401), (STRANGER, 403), ("hf_unknown", 403)):
        api = stage.api(token)
        for ask in (api.model_info, lambda repo, api=api: list(api.list_repo_tree(repo)), api.list_repo_refs):
            with pytest.raises(RepositoryNotFoundError) as refused:
                ask(PRIVATE)
            assert refused.value.response.status_code == status
    got = stage.api(READER).snapshot_download(PRIVATE, cache_dir=tmp_path)
    assert _read(got)["model.safetensors"] == WEIGHTS


def test_a_publish_shows_at_once_and_leaves_the_old_commit(stage: Stage, tmp_path: Path) -> None:
    """The running server moves main with the publish, and serves the old commit by id as before."""
    repo, folder, api = "acme/moving", write_model(tmp_path / "m"), stage.api()
    first = publish(stage.root, repo, folder, message="one")
    assert api.model_info(repo).sha == first
    second = publish(stage.root, repo, write_model(folder, weights=WEIGHTS[::-1]), message="two")
    assert api.model_info(repo).sha == second
    got = api.snapshot_download(repo, revision=first, cache_dir=tmp_path / "cache")
    assert _read(got)["model.safetensors"] == WEIGHTS
    got = api.snapshot_download(repo, cache_dir=tmp_path / "cache")
    assert _read(got)["model.safetensors"] == WEIGHTS[::-1]


def test_a_tree_of_many_files_comes_in_pages(stage: Stage, tmp_path: Path) -> None:
    """1,100 files are all listed, once each, though a page holds 1,000."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1100):
        (folder / f"{number:04}.txt").write_bytes(b"%d" % (number % 7))
    publish(stage.root, "acme/many", folder, message="many")
    listed = [entry.path for entry in stage.api().list_repo_tree("acme/many", recursive=True)]
    assert listed == [f"{number:04}.txt" for number in range(1100)]

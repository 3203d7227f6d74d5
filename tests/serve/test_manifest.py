"""What a node takes for a manifest."""

import pytest

from serve.manifest import File, WeightsError, read_manifest
from tests.serve.nodes import COMMIT, FILES, entry, manifest


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_are_read(version: int) -> None:
    """Images are older and younger than what the controller wrote."""
    found = read_manifest(manifest(version=version), COMMIT)

    assert [entry(path, data) for path, data in FILES.items()] == found


def test_what_the_store_says_of_a_file_is_read_where_it_is_known() -> None:
    """Version 2 added it; fields of no concern to a node are passed over."""
    data = manifest().replace(b'"crc64nvme": null', b'"crc64nvme": "AAAAAAAAAAA=", "more": []')
    found = read_manifest(data.replace(b'"etag": null', b'"etag": "\\"e\\""'), COMMIT)[0]

    plain = entry("config.json", b"{}")
    assert File(plain.path, plain.size, plain.sha256, "AAAAAAAAAAA=", '"e"') == found


def test_a_version_of_the_future_asks_for_a_newer_image() -> None:
    """Nothing is guessed about a manifest that an old image cannot know."""
    with pytest.raises(
        WeightsError, match=rf"{COMMIT} is of version 3, and this image reads up to 2: update"
    ) as caught:
        read_manifest(manifest().replace(b'"version": 2', b'"version": 3'), COMMIT)

    assert str(caught.value).endswith("update the payload image.")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../../x", "a//b", "./a", "", ".", ".manifest.json", "a.part", "a\0b"]
)
def test_paths_that_leave_the_folder_are_refused(path: str) -> None:
    """A manifest cannot write elsewhere, nor over what the cache itself uses."""
    with pytest.raises(WeightsError, match="never stores"):
        read_manifest(manifest({path: b"x"}), COMMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version": 2, "commit": "' + COMMIT.encode() + b'", "files": ["a"]}',
        manifest({}),
        manifest(commit="f" * 40),
        manifest().replace(b'"size": 2,', b'"size": -2,'),
        manifest().replace(b'"sha256": "', b'"sha256": "x'),
        manifest().replace(b"tokenizer.json", b"config.json"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(data: bytes) -> None:
    """Another commit, no files, one twice, no hash: nothing is guessed."""
    with pytest.raises(WeightsError, match="manifest"):
        read_manifest(data, COMMIT)

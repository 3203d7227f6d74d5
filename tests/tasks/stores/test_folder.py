"""The store in a folder: the contract of every store, and what only a folder can do wrong."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina
from awscrt.checksums import crc64nvme

from tasks._stores import folder_turns as turns
from tasks._stores.folder import FolderStore
from tasks._stores.folder_errors import Place
from tasks._stores.folder_files import INCOMING, Files, ObjectFile
from tasks._stores.folder_upload import FolderUpload
from tasks._stores.store import Store
from tasks.errors import (
    AccessDenied,
    BadInput,
    Conflict,
    IntegrityError,
    MachineError,
    NotFound,
    Refused,
    SlipwayError,
    TerminalError,
    Unreachable,
)
from tasks.settings import StoreSettings
from tests.tasks.stores.contract import Contract, bring, content, send, some_bytes

PART = 4096
"""Bytes of a part in these tests: what is true of two parts does not depend on their size."""


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait for no disk: a kernel that runs on forgets nothing, so these tests would see no difference."""
    monkeypatch.setattr(FolderUpload, "part_size", PART)
    monkeypatch.setattr(turns, "PATIENCE_S", 0.05)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _: None)
    with stamina.set_testing(testing=True, attempts=2):
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder of the store, which exists and is empty."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    """Return a store of this test alone."""
    opened = FolderStore(StoreSettings(url=root.as_uri()))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def files(root: Path) -> Files:
    """Return the files under the root."""
    return Files(Place(root.as_uri(), str(root)))


def unfinished(root: Path) -> list[str]:
    """Return all that lies in the folder for what is not finished."""
    return sorted(str(path.relative_to(root)) for path in (root / INCOMING).rglob("*"))


class TestFolder(Contract):
    """The contract of every store, and that nothing unfinished stays."""

    @pytest.fixture(autouse=True)
    def _tidy(self, root: Path, store: Store) -> Iterator[None]:  # noqa: ARG002 - the store is used until then
        yield
        assert [] == unfinished(root)


@pytest.mark.slow
class TestLostReplies(Contract):
    """The contract where a server gets each request twice, and answers only the second."""

    @pytest.fixture(autouse=True)
    def _twice(self, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:  # noqa: ARG002 - opened before
        for name in ("link", "rename", "unlink", "mkdir", "rmdir"):
            monkeypatch.setattr(os, name, twice(getattr(os, name)))


def twice(request: Callable[..., None]) -> Callable[..., None]:
    """Return ``request`` as one that is sent again after its first reply was lost."""

    def sent(*args: Any, **named: Any) -> None:
        request(*args, **named)
        request(*args, **named)

    return sent


# Where it is


def test_a_path_may_hold_anything_that_is_escaped(tmp_path: Path) -> None:
    """The URL's path is decoded, and the store says its URL without a slash at the end."""
    folder = tmp_path / "a b#c?%é"
    folder.mkdir()
    store = FolderStore(StoreSettings(url=f"{folder.as_uri()}/"))
    store.put_if("x", b"1", expect=None)
    store.close()

    assert b"1" == (folder / "x").read_bytes()
    assert folder.as_uri() == store.url


@pytest.mark.parametrize(
    "url",
    [
        *("file://models", "file://host/models", "file:models", "s3:///models", "/models"),
        *("file:///", "file:////", "file:///a/../b", "file:///a/%2e%2e/b"),
        *("file:///a%00b", "file:///a?b", "file:///a#b"),
    ],
)
def test_a_url_that_names_no_folder_is_bad_input(url: str) -> None:
    """Only an absolute path on this machine's file system will do."""
    with pytest.raises(BadInput, match="file:///folder"):
        FolderStore(StoreSettings(url=url))


def calls(store: Store) -> tuple[Callable[[], object], ...]:
    """Return each thing that can be asked of a store."""
    return (
        lambda: store.get("a"),
        lambda: content(store, "a"),
        lambda: store.put_if("a", b"", expect=None),
        lambda: store.head("a"),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
        lambda: store.remove("a"),
        lambda: store.open_upload("a", 1, metadata={}).complete(0),
        lambda: list(store.open_uploads("")),
    )


def test_a_root_that_is_missing_is_never_made(root: Path, store: Store) -> None:
    """It may be a mount that is missing, and what is written below it would be lost when it comes."""
    root.rmdir()

    for call in calls(store):
        with pytest.raises(NotFound, match=f"{root}.*Create it or mount it first"):
            call()

    assert not root.exists()


def test_a_root_that_is_a_file_is_bad_input(root: Path, store: Store) -> None:
    """Nothing can be in a file."""
    root.rmdir()
    root.touch()

    for call in calls(store)[:4]:
        with pytest.raises(BadInput, match="no folder"):
            call()


# Keys


@pytest.mark.parametrize("key", ["", ".", "..", "../x", "/x", "a//b", "a/", "a/../../x", "a\0b", f"{INCOMING}/x"])
def test_a_key_that_leads_elsewhere_is_bad_input(store: Store, key: str) -> None:
    """Neither out of the root nor to what is hidden in it, whatever is asked."""
    for call in (
        lambda: store.get(key),
        lambda: content(store, key),
        lambda: store.put_if(key, b"", expect=None),
        lambda: store.remove(key),
        lambda: store.open_upload(key, 0, metadata={}),
    ):
        with pytest.raises(BadInput, match="key"):
            call()


def test_a_name_that_the_file_system_cannot_hold_is_bad_input(store: Store) -> None:
    """A name that is too long, and one within another object."""
    store.put_if("a", b"", expect=None)

    for key in ("x" * 256, "a/b"):
        with pytest.raises(BadInput, match="name"):
            store.put_if(key, b"", expect=None)
        with pytest.raises(BadInput, match="name"):
            bring(store, key, b"12")


def test_no_symbolic_link_is_followed(tmp_path: Path, root: Path, store: Store) -> None:
    """Neither to a folder nor to a file, and neither is listed: both may lead out of the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"1")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")

    for key in ("folder/secret", "file"):
        for call in (lambda: store.get(key), lambda: store.head(key), lambda: store.remove(key)):  # noqa: B023
            with pytest.raises(Refused, match="symbolic link"):
                call()
    with pytest.raises(Refused):
        store.put_if("folder/new", b"", expect=None)
    assert [] == list(store.list(""))
    assert ["secret"] == [path.name for path in outside.iterdir()]


def test_what_is_not_an_object_is_not_listed(root: Path, store: Store) -> None:
    """Nor is what an NFS client keeps of a file that was removed while open, or anything unfinished."""
    store.put_if("a/b", b"1", expect=None)
    (root / "a" / ".nfs000000000a1b2c3d00000042").touch()
    os.mkfifo(root / "a" / "pipe")
    upload = store.open_upload("a/c", 2, metadata={})
    upload.write(bytearray(b"12"), 0, lambda: None)

    assert ["a/b"] == [item.key for item in store.list("")]
    assert store.get("a/pipe") is None
    upload.abort()


# Objects


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o444), (0o027, 0o440), (0o077, 0o400)])
def test_objects_are_read_only_for_whom_the_umask_lets_read(root: Path, store: Store, umask: int, mode: int) -> None:
    """They are never written to again, whichever way they came."""
    before = os.umask(umask)
    try:
        store.put_if("small", b"1", expect=None)
        bring(store, "large", b"12")
    finally:
        os.umask(before)

    assert [mode, mode] == [(root / name).stat().st_mode & 0o777 for name in ("small", "large")]


def test_no_version_returns(monkeypatch: pytest.MonkeyPatch, root: Path, store: Store) -> None:
    """Not while a clock stands still, not after one that was years ahead, not for an object made anew."""
    seen = set()
    version = store.put_if("a", b"0", expect=None)
    future = time.time() + 10**9
    os.utime(root / "a", (future, future))
    found = store.head("a")
    assert found
    version = found.version
    stands = time.time_ns()
    monkeypatch.setattr("tasks._stores.folder_files.time_ns", lambda: stands)
    for number in range(40):
        if number == 20:
            store.remove("a")
            version = store.put_if("a", b"0", expect=None)
        seen.add(version)
        version = store.put_if("a", b"%d" % (number % 2), expect=version)

    assert 40 == len(seen - {version})
    found = store.head("a")
    assert found
    assert found.modified.timestamp() - stands / 1e9 < 1, "times stay close to the clock"


def test_no_version_returns_where_times_are_whole_seconds(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Some file systems keep no more of a time."""
    utime = os.utime

    def coarse(file: int, ns: tuple[int, int]) -> None:
        utime(file, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9))

    monkeypatch.setattr(os, "utime", coarse)
    times = []
    version = store.put_if("a", b"0", expect=None)
    for number in range(5):
        found = store.head("a")
        assert found
        times.append(found.modified)
        version = store.put_if("a", b"%d" % (number % 2), expect=version)

    assert 5 == len(set(times))
    assert sorted(times) == times


def test_a_copy_shares_its_bytes(root: Path, store: Store) -> None:
    """It is a second link, and the time and version stay."""
    bring(store, "a/1", some_bytes(PART))
    source = store.head("a/1")
    assert source

    copied = store.copy(source, "b/2")

    assert copied
    assert (source.version, source.modified) == (copied.version, copied.modified)
    assert (root / "a/1").samefile(root / "b/2")


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_where_no_link_can_be_made_bytes_are_copied(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: Store, reason: int
) -> None:
    """Another object with the same bytes, and its checksum."""
    data = some_bytes(2 * PART + 1)
    bring(store, "a", data)
    source = store.head("a")
    assert source
    link = os.link

    def refused(src: str, dst: str, **named: Any) -> None:
        if src.startswith("/proc/"):
            raise OSError(reason, os.strerror(reason))
        link(src, dst, **named)

    monkeypatch.setattr(os, "link", refused)
    copied = store.copy(source, "b")

    assert copied
    assert copied.crc64nvme
    assert data == content(store, "b")
    assert not (root / "a").samefile(root / "b")
    assert [] == unfinished(root)


# Turns


class Writer:
    """A writer that has the turn to replace an object and stops there, as a process does that is put to sleep."""

    def __init__(self, files: Files, key: str, data: bytes, expect: str | None) -> None:
        self.files, self.key = files, key
        with ExitStack() as stack:
            self.draft = stack.enter_context(turns._draft(files, key, data))
            stack.enter_context(turns._turn(files, key, expect, self.draft))
            self.end = stack.pop_all()

    def wake(self) -> None:
        """Replace the object, as it was about to."""
        with self.end:
            turns._replace(self.files, self.key, self.draft)


def test_a_writer_that_sleeps_is_not_waited_for_and_cannot_write_when_it_wakes(files: Files, store: Store) -> None:
    """Its turn is ended after a while, and whatever was written meanwhile stays."""
    first = store.put_if("a", b"1", expect=None)
    sleeper = Writer(files, "a", b"late", first)

    second = store.put_if("a", b"2", expect=first)
    third = store.put_if("a", b"1", expect=second)
    with pytest.raises(Unreachable, match="turn"):
        sleeper.wake()

    assert (b"1", third) == store.get("a")


def test_a_writer_that_wakes_in_time_has_won(files: Files, store: Store) -> None:
    """Others that want to replace the same version wait for its turn, and lose."""
    first = store.put_if("a", b"1", expect=None)
    early = Writer(files, "a", b"early", first)
    early.wake()

    with pytest.raises(Conflict):
        store.put_if("a", b"2", expect=first)

    assert b"early" == content(store, "a")


def test_a_turn_for_a_version_that_is_gone_ends_at_once(files: Files, store: Store) -> None:
    """A writer that slept before its turn sees that the object is another, however free the turn is."""
    first = store.put_if("a", b"1", expect=None)
    store.put_if("a", b"2", expect=first)

    with pytest.raises(Conflict):
        Writer(files, "a", b"late", first)

    assert b"2" == content(store, "a")


def test_a_remover_that_sleeps_cannot_remove_what_came_later(files: Files, root: Path, store: Store) -> None:
    """The folder that the object would go to is gone with its turn."""
    first = store.put_if("a", b"1", expect=None)
    sleeper = Writer(files, "a", b"", first)
    store.put_if("a", b"2", expect=first)

    with sleeper.end, files.folder("") as folder, pytest.raises(FileNotFoundError):
        os.rename("a", turns._NEW, src_dir_fd=folder, dst_dir_fd=sleeper.draft.folder)

    assert b"2" == content(store, "a")
    assert [] == unfinished(root)


def test_an_object_that_is_missing_during_a_turn_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, files: Files, root: Path, store: Store
) -> None:
    """An NFS client may put an object aside for a moment while it renames another over it."""
    monkeypatch.setattr(turns, "PATIENCE_S", 60)
    writer = Writer(files, "a", b"2", store.put_if("a", b"1", expect=None))
    (root / "a").unlink()
    found: list[tuple[bytes, str] | None] = []
    reader = threading.Thread(target=lambda: found.append(store.get("a")))
    reader.start()
    try:
        writer.wake()
    finally:
        reader.join()

    assert b"2" == (found[0] or (None,))[0]


def test_an_object_that_was_put_aside_for_good_is_put_back(
    monkeypatch: pytest.MonkeyPatch, files: Files, root: Path, store: Store
) -> None:
    """Its writer stopped in the middle of the last step: the object is there again, as the version that it was."""
    first = store.put_if("a", b"1", expect=None)
    writer = Writer(files, "a", b"2", first)

    def put_aside(_old: str, _new: str, **_: object) -> None:
        (root / "a").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", put_aside)
        with pytest.raises(KeyboardInterrupt):
            turns._replace(files, "a", writer.draft)
    assert not (root / "a").exists()

    assert (b"1", first) == store.get("a")

    with pytest.raises(Unreachable, match="turn"):
        writer.wake()
    assert (b"1", first) == store.get("a")
    assert [] == unfinished(root)


def test_a_turn_of_the_dead_hides_nothing_for_long(files: Files, root: Path, store: Store) -> None:
    """An object that is gone for good is told to be, and one can be made in its place."""
    sleeper = Writer(files, "a", b"late", store.put_if("a", b"1", expect=None))
    (root / "a").unlink()

    assert store.get("a") is None
    store.put_if("a", b"3", expect=None)

    with pytest.raises(Unreachable):
        sleeper.wake()
    assert b"3" == content(store, "a")


def test_a_creator_that_sleeps_cannot_create_when_it_wakes(files: Files, store: Store) -> None:
    """Another one made the object and removed it again."""
    sleeper = Writer(files, "a", b"late", None)
    store.put_if("a", b"1", expect=None)
    store.remove("a")

    with sleeper.end, pytest.raises(Unreachable, match="turn"):
        turns._create(files, "a", sleeper.draft)

    assert store.get("a") is None


@pytest.mark.parametrize("how", ["create", "replace", "remove"])
def test_what_killed_writers_left_goes_with_the_next_write(files: Files, root: Path, store: Store, how: str) -> None:
    """Drafts that never had their turn, and turns that ended in death; those of other objects stay."""
    version = None if how == "create" else store.put_if("a", b"1", expect=None)
    others = store.put_if("b", b"1", expect=None)
    with ExitStack() as killed:
        killed.enter_context(turns._draft(files, "a", b"killed"))
        left = killed.enter_context(turns._draft(files, "b", b"left"))
        killed.callback(Writer(files, "b", b"left", others).end.close)
        if version:
            killed.callback(Writer(files, "a", b"killed", version).end.close)

        if how == "remove":
            store.remove("a")
        else:
            store.put_if("a", b"2", expect=version)

        names = {path.name for path in (root / INCOMING).iterdir()}
        assert 2 == len(names)
        assert left.name in names


def test_a_write_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, root: Path, store: Store) -> None:
    """Neither an object nor a draft, and the sizes are told."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match=r"3 bytes are needed and [\d,]+ are free"):
        store.put_if("a", b"123", expect=None)

    assert [] == unfinished(root)
    assert [] == list(store.list(""))


# Uploads


def test_an_upload_that_will_not_fit_is_refused_before_its_first_byte(store: Store) -> None:
    """What is needed and what is free is told; of an upload that goes on only the rest is needed."""
    with pytest.raises(MachineError, match=r"4,611,686,018,427,387,904 bytes are needed and [\d,]+ are free"):
        store.open_upload("a", 2**62, metadata={})

    with pytest.raises(NotFound):
        store.open_upload("a", 2**62, metadata={}, resume=("0" * 32, 2**62 - 1))


def test_only_what_is_on_disk_counts_as_stored(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """A journal may name the rest only after the disk has it."""
    go = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _: go.wait(60))
    data = some_bytes(3 * PART)
    upload = store.open_upload("a", len(data), metadata={})
    try:
        send(upload, data)
        assert 0 == upload.stored
        go.set()
        upload.suspend()
        assert len(data) == upload.stored
    finally:
        go.set()
        upload.abort()


def test_a_disk_that_fails_ends_the_upload(monkeypatch: pytest.MonkeyPatch, root: Path, store: Store) -> None:
    """The error of a sync beside the writing is that of the upload; nothing is published."""

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fdatasync", broken)
    upload = store.open_upload("a", PART, metadata={})
    send(upload, bytes(PART))

    with pytest.raises(Unreachable, match="EIO"):
        upload.complete(crc64nvme(bytes(PART)))
    upload.suspend()
    assert 0 == upload.stored
    upload.abort()

    assert [] == unfinished(root)
    assert store.head("a") is None


def test_a_stopped_process_cannot_publish_or_drop_what_was_taken_over(store: Store) -> None:
    """It had sent all, and wakes while another, which kept one part, is still sending the rest."""
    data = some_bytes(3 * PART)
    stopped = store.open_upload("a", len(data), metadata={})
    send(stopped, data)
    other = store.open_upload("a", len(data), metadata={}, resume=(stopped.id, PART))

    with pytest.raises(Conflict, match="took the upload"):
        stopped.complete(crc64nvme(data))
    stopped.abort()
    assert store.head("a") is None

    send(other, data, start=PART)
    other.complete(crc64nvme(data))
    assert data == content(store, "a")


def test_nobody_takes_over_what_is_being_published(store: Store) -> None:
    """Who completes an upload has it for good, even where it fails: its bytes may be visible already."""
    data = some_bytes(2 * PART)
    upload = store.open_upload("a", len(data), metadata={})
    send(upload, data)
    store.put_if("a", b"first", expect=None)
    with pytest.raises(Conflict):
        upload.complete(crc64nvme(data))

    with pytest.raises(NotFound):
        store.open_upload("a", len(data), metadata={}, resume=(upload.id, PART))

    upload.abort()


def test_what_was_taken_over_is_read_again(store: Store) -> None:
    """A stopped process that writes damaged bytes after it was replaced is found out before they are seen."""
    data = some_bytes(3 * PART)
    stopped = store.open_upload("a", len(data), metadata={})
    send(stopped, data[:PART])
    other = store.open_upload("a", len(data), metadata={}, resume=(stopped.id, PART))
    send(other, data, start=PART)
    send(stopped, bytes(PART))

    with pytest.raises(IntegrityError, match="12,288 bytes"):
        other.complete(crc64nvme(data))
    for upload in (stopped, other):
        upload.abort()

    assert store.head("a") is None


@pytest.mark.parametrize("upload", ["", "..", "../a", "x" * 32])
def test_an_upload_by_any_other_name_is_not_found(store: Store, upload: str) -> None:
    """Whatever a journal may name leads nowhere else."""
    store.put_if("a/b", b"1", expect=None)

    with pytest.raises(NotFound):
        store.open_upload("b", 1, metadata={}, resume=(upload, 0))


def test_empty_folders_of_killed_uploads_go_after_a_while(root: Path, store: Store) -> None:
    """Not at once: their process may be about to make its file."""
    young, old = (root / INCOMING / (digit * 32) / "a" / "b" for digit in "01")
    for folder in (young, old):
        folder.mkdir(parents=True)
    then = (datetime.now(UTC) - timedelta(hours=2)).timestamp()
    os.utime(old.parents[1], (then, then))

    assert [] == list(store.open_uploads(""))

    assert young.exists()
    assert ["0" * 32] == [path.name for path in (root / INCOMING).iterdir()]


# Errors


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, MachineError),
        (errno.EDQUOT, MachineError),
        (errno.EACCES, AccessDenied),
        (errno.EPERM, AccessDenied),
        (errno.EROFS, AccessDenied),
        (errno.ESTALE, Unreachable),
        (errno.EIO, Unreachable),
        (errno.ETIMEDOUT, Unreachable),
        (errno.ENAMETOOLONG, BadInput),
        (errno.ELOOP, Refused),
        (errno.ENOEXEC, TerminalError),
    ],
)
def test_every_error_of_the_system_is_one_of_ours(tmp_path: Path, number: int, kind: type[SlipwayError]) -> None:
    """The message names the store, and the cause is kept."""
    with (
        pytest.raises(SlipwayError, match="file:///models") as caught,
        Place("file:///models", str(tmp_path)).translated(5),
    ):
        raise OSError(number, os.strerror(number))

    assert kind is type(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    "read", [lambda file: file.read(), lambda file: file.read(8), lambda file: file.readinto(bytearray(8))]
)
def test_reading_breaks_off_as_unreachable(read: Callable[[ObjectFile], object]) -> None:
    """A real error of the system while a file is read: nothing is mapped where a process's memory begins."""
    descriptor = os.open("/proc/self/mem", os.O_RDONLY)

    with ObjectFile(descriptor, Place("file:///models", "/")) as file, pytest.raises(Unreachable, match="EIO"):
        read(file)


def test_a_passing_error_is_tried_again(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """The second try of each answer that a file server owes is as good as the first."""
    version = store.put_if("a", b"1", expect=None)
    failed = []
    fstat = os.fstat

    def stale(file: int) -> os.stat_result:
        if not failed:
            failed.append(file)
            raise OSError(errno.ESTALE, "stale")
        return fstat(file)

    monkeypatch.setattr(os, "fstat", stale)
    for call in (lambda: store.get("a"), lambda: store.head("a"), lambda: store.put_if("a", b"2", expect=version)):
        failed.clear()
        assert call()
        assert failed


def test_closing_ends_the_threads(root: Path) -> None:
    """No thread that waits for a disk outlives the store."""
    store = FolderStore(StoreSettings(url=root.as_uri()))
    bring(store, "a", some_bytes(PART))

    store.close()

    with suppress(RuntimeError):
        assert [] == [thread.name for thread in threading.enumerate() if thread.name.startswith("folder-sync")]

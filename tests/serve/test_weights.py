"""From the store to a local folder that an engine may trust."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serve import download, lease, sources, weights
from serve.manifest import WeightsError
from serve.weights import Progress, fetch
from tasks._stores.store import Store
from tasks._weights.layout import weights_key
from tests.fakes.commits import MODEL, put_commit, put_object
from tests.fakes.s3_faults import Answer, Damage, Reset, S3Faults, Shorten, Stall
from tests.serve.nodes import COMMIT, FILES, ROOT, left_over, local, manifest, publish

LARGE = {"config.json": b"{}", "a.safetensors": bytes(range(250)) * 12_000, "b.safetensors": b"b" * 1_000_000}
FETCH = ("-m", "serve.weights")
Start = Callable[..., "subprocess.Popen[str]"]
TERMINATED = 128 + signal.SIGTERM


def until(true: Callable[[], object], deadline_s: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def await_waiting(child: "subprocess.Popen[str]") -> None:
    """Read what a fetcher says until it waits for another."""
    assert child.stderr
    assert f"Another process fetches {COMMIT}: waiting for it.\n" in iter(child.stderr.readline, "")


def foreign_lease(cache: Path) -> Path:
    """Return the lease of a fetcher on another machine that shares the cache."""
    cache.mkdir(parents=True)
    path = cache / f"{COMMIT}.lease"
    path.write_text('{"owner": "other", "boot": "another"}')
    return path


def test_a_commit_is_fetched_whole_and_then_found(stored: Path, cache: Path) -> None:
    """The second start hashes what is there; what the manifest does not list stays in the store."""
    first, second = Progress(), Progress()
    folder = fetch(stored.as_uri(), cache, first)
    before = {path: path.stat().st_ino for path in folder.rglob("*")}

    assert cache / COMMIT == folder
    assert FILES == local(folder)
    assert folder == fetch(f"{stored.as_uri()}/", cache, second)
    assert before == {path: path.stat().st_ino for path in folder.rglob("*")}
    size = sum(map(len, FILES.values()))
    assert [(size, size, 0), (size, 0, size)] == [(p.total, p.fetched, p.hashed) for p in (first, second)]
    assert not left_over(cache)


def test_two_revisions_share_nothing(stored: Path, cache: Path) -> None:
    """Each has a folder of its own, and fetching one leaves the other alone."""
    other = publish(stored.with_name("f" * 40), {"config.json": b"{ }"})

    assert FILES == local(fetch(stored.as_uri(), cache))
    (other / ".manifest.json").write_bytes(manifest({"config.json": b"{ }"}, "f" * 40))
    assert {"config.json": b"{ }"} == local(fetch(other.as_uri(), cache))
    assert FILES == local(cache / COMMIT)


def test_what_is_not_in_the_manifest_is_removed(stored: Path, cache: Path) -> None:
    """Parts of a killed download, and files that nobody vouches for, do not reach an engine."""
    folder = fetch(stored.as_uri(), cache)
    (folder / "0123.part").write_bytes(b"half")
    (folder / "sub" / "modeling.py").write_text("import os")
    (folder / "link.json").symlink_to(folder / "config.json")

    fetch(stored.as_uri(), cache)

    assert FILES == local(folder)


@pytest.mark.parametrize("hashing", ["every-start", "once-a-boot"])
@pytest.mark.parametrize("damage", [b"W" + b"w" * 199_999, b"w"])
def test_a_damaged_copy_is_fetched_again(
    stored: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, hashing: str, damage: bytes
) -> None:
    """Whoever wrote to it after it was hashed changed its times, if nothing else; only that file is fetched."""
    monkeypatch.setenv("SLIPWAY_CACHE_HASH", hashing)
    folder, progress = fetch(stored.as_uri(), cache), Progress()
    (folder / "model-1.safetensors").write_bytes(damage)

    fetch(stored.as_uri(), cache, progress)

    assert FILES == local(folder)
    assert 200_000 == progress.fetched


@pytest.mark.parametrize(("hashing", "hashed"), [("", 200_005), ("every-start", 200_005), ("once-a-boot", 0)])
def test_a_node_says_whether_each_start_hashes(
    stored: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, hashing: str, hashed: int
) -> None:
    """It does unless told otherwise: 140 GB from a slow disk may be too much for every replica's start."""
    monkeypatch.setenv("SLIPWAY_CACHE_HASH", hashing)
    fetch(stored.as_uri(), cache)
    progress = Progress()

    fetch(stored.as_uri(), cache, progress)

    assert hashed == progress.hashed


def test_a_misspelt_choice_is_no_choice(stored: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody means to hash less by accident, or more."""
    monkeypatch.setenv("SLIPWAY_CACHE_HASH", "once")

    with pytest.raises(WeightsError, match="SLIPWAY_CACHE_HASH is every-start or once-a-boot, not 'once'"):
        fetch(stored.as_uri(), cache)


def test_wrong_bytes_leave_nothing_behind(stored: Path, cache: Path) -> None:
    """The error names the file; what was whole may stay, and no lease keeps the next start away."""
    (stored / "model-1.safetensors").write_bytes(b"v" * 200_000)

    with pytest.raises(WeightsError, match=r"model-1\.safetensors is not what the manifest declares"):
        fetch(stored.as_uri(), cache)

    assert "model-1.safetensors" not in local(cache / COMMIT)
    assert not left_over(cache)


def test_no_manifest_means_not_there(stored: Path, cache: Path) -> None:
    """Files without a manifest were never mirrored whole."""
    (stored / ".manifest.json").unlink()

    with pytest.raises(WeightsError, match=r"has no manifest at .*: the commit was never mirrored whole"):
        fetch(stored.as_uri(), cache)
    assert not cache.exists()


def test_a_listed_file_that_is_missing_is_an_error(stored: Path, cache: Path) -> None:
    """The store lost a file after the manifest was written."""
    (stored / "config.json").unlink()

    with pytest.raises(WeightsError, match=r"config\.json cannot be read from the store: "):
        fetch(stored.as_uri(), cache)


def test_a_disk_too_small_is_said_before_the_first_byte(stored: Path, cache: Path) -> None:
    """An exabyte does not fit anywhere."""
    (stored / ".manifest.json").write_bytes(manifest(declared={"model-1.safetensors": 10**18}))

    with pytest.raises(WeightsError, match=r"bytes free, and 1,000,000,000,000,000,\d{3} are still to be fetched"):
        fetch(stored.as_uri(), cache)

    assert {} == local(cache / COMMIT)


def test_a_cache_that_cannot_be_is_named(stored: Path, tmp_path: Path) -> None:
    """Instead of a traceback."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(WeightsError, match=rf"The cache {tmp_path / 'file'} cannot be used: "):
        fetch(stored.as_uri(), tmp_path / "file")


@pytest.fixture
def url(store: Store, faults: S3Faults, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a commit in SeaweedFS, read through faults, in ranges of a megabyte."""
    del faults
    monkeypatch.setattr(download, "RANGE_BYTES", 2**20)
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    put_commit(store, COMMIT, LARGE)
    return f"{store.url}/{weights_key(MODEL, COMMIT)}"


@pytest.mark.slow
class TestAStoreInS3:
    """SeaweedFS, with faults in front of it, and fetchers that are processes."""

    def test_ranges_of_a_commit_are_asked_for_once(self, url: str, cache: Path, faults: S3Faults) -> None:
        """The object by which Ray's own mirror knows the commit is not one of its files."""
        assert LARGE == local(fetch(url, cache))
        assert 1 + 1 + 3 + 1 == len(faults.asked("GET")) == len(faults.requests)

    @pytest.mark.parametrize(
        "fault",
        [Answer(503, "SlowDown"), Answer(500, "InternalError"), Reset(reply=100_000), Shorten(700_000)],
        ids=["busy", "broken", "reset", "short"],
    )
    def test_what_passes_is_survived(self, url: str, cache: Path, faults: S3Faults, fault: Answer | Reset) -> None:
        """Twice in a row; the hash is right in the end."""
        faults.add(fault, "GET", "a.safetensors", times=2)

        assert LARGE == local(fetch(url, cache))

    def test_a_stall_is_survived(
        self, url: str, cache: Path, faults: S3Faults, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that falls silent is given up for a new one."""
        monkeypatch.setattr("serve.sources.SILENCE_S", 0.5)
        faults.add(Stall(reply=300_000), "GET", "a.safetensors")

        assert LARGE == local(fetch(url, cache))

    def test_a_bit_that_flips_on_the_way_never_gets_a_name(self, url: str, cache: Path, faults: S3Faults) -> None:
        """One of 24 million."""
        faults.add(Damage(reply=123_456), "GET", "a.safetensors", skip=1)

        with pytest.raises(
            WeightsError, match=r"a\.safetensors is not what the manifest declares: 3,000,000 bytes w"
        ):
            fetch(url, cache)
        assert "a.safetensors" not in local(cache / COMMIT)
        assert not left_over(cache)

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda data: data[:-1], "999,999 bytes in the store instead of 1,000,000"),
            (lambda data: data + b"b", "1,000,001 bytes in the store instead of 1,000,000"),
            (lambda data: b"B" + data[1:], "1,000,000 bytes with sha256"),
        ],
        ids=["shorter", "longer", "other"],
    )
    def test_an_object_that_was_replaced_is_refused(
        self, url: str, store: Store, cache: Path, damage: Callable[[bytes], bytes], said: str
    ) -> None:
        """Whatever its size."""
        put_object(store, f"{weights_key(MODEL, COMMIT)}/b.safetensors", damage(LARGE["b.safetensors"]))

        with pytest.raises(WeightsError, match=rf"b\.safetensors is not what the manifest declares: {said}"):
            fetch(url, cache)
        assert not left_over(cache)

    def test_an_object_that_is_gone_is_refused(self, url: str, store: Store, cache: Path) -> None:
        """Without trying again."""
        store.remove(f"{weights_key(MODEL, COMMIT)}/b.safetensors")

        with pytest.raises(WeightsError, match=r"b\.safetensors cannot be read from the store: .* answered 404"):
            fetch(url, cache)

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (Answer(403, "AccessDenied"), r"The manifest at .* cannot be read: .* answered 403 \(AccessDenied\)"),
            (Answer(404, "NoSuchKey"), "The store has no manifest at "),
        ],
    )
    def test_a_store_that_refuses_is_not_asked_again(
        self, url: str, cache: Path, faults: S3Faults, fault: Answer, said: str
    ) -> None:
        """A missing right and a missing commit are told apart, and neither passes by itself."""
        faults.add(fault, "GET", times=None)

        with pytest.raises(WeightsError, match=said):
            fetch(url, cache)
        assert 1 == len(faults.requests)

    def test_fetchers_that_start_together_cost_one(
        self, url: str, cache: Path, faults: S3Faults, python: Start
    ) -> None:
        """Each object once; those that waited hash nothing, because the one they waited for did.

        All have begun before any may begin: another machine's lease grows old while they wait.
        """
        old = foreign_lease(cache)
        running = [python(*FETCH, url, cache) for _ in range(4)]
        for child in running:
            await_waiting(child)
        os.utime(old, (0, 0))
        told = [(child.communicate(timeout=60), child.returncode) for child in running]

        assert [0] * 4 == [status for _, status in told], told
        results = [json.loads(out) for (out, _), _ in told]
        size = sum(map(len, LARGE.values()))
        assert [0, 0, 0, size] == sorted(result["fetched"] for result in results)
        assert {(size, 0, True)} == {(result["bytes"], result["hashed"], result["verified"]) for result in results}
        assert len(LARGE) == len(faults.asked("GET")) - len(faults.asked("GET", ".manifest.json"))
        assert LARGE == local(cache / COMMIT)
        assert not left_over(cache)

    def test_a_killed_fetcher_is_replaced_at_once(
        self, url: str, cache: Path, faults: S3Faults, python: Start
    ) -> None:
        """What was whole is kept, its parts and its lease go, and a waiter needs no start of its own."""
        faults.add(Stall(reply=300_000), "GET", "a.safetensors")
        victim = python(*FETCH, url, cache)
        until(lambda: (cache / COMMIT / "b.safetensors").exists() and list(cache.rglob("*.part")))
        waiter = python(*FETCH, url, cache)
        await_waiting(waiter)
        begun = time.monotonic()
        victim.kill()
        victim.communicate()

        out, err = waiter.communicate(timeout=60)

        assert 0 == waiter.returncode, err
        assert lease.LIFETIME_S > time.monotonic() - begun
        assert 3_000_000 == json.loads(out)["fetched"]
        assert LARGE == local(cache / COMMIT)
        assert not left_over(cache)

    def test_a_stopped_fetcher_that_wakes_leaves_the_work_to_its_successor(
        self, url: str, cache: Path, faults: S3Faults, python: Start
    ) -> None:
        """Its lease had grown old; it finds what the other proved, and both end well."""
        faults.add(Stall(reply=300_000), "GET", "a.safetensors")
        program = f"from serve import lease, weights as w; lease.RENEW_S = 0.1; w.main([{url!r}, {str(cache)!r}])"
        stopped = python("-c", program)
        until(lambda: (cache / COMMIT / "b.safetensors").exists() and list(cache.rglob("*.part")))
        stopped.send_signal(signal.SIGSTOP)
        os.utime(cache / f"{COMMIT}.lease", (0, 0))
        successor = python(*FETCH, url, cache)
        out, err = successor.communicate(timeout=60)
        assert (0, 3_000_000) == (successor.returncode, json.loads(out)["fetched"]), err
        stopped.send_signal(signal.SIGCONT)
        _, err = stopped.communicate(timeout=60)

        assert 0 == stopped.returncode, err
        assert LARGE == local(cache / COMMIT)
        assert not left_over(cache)

    @pytest.mark.parametrize("how", ["signal", "parent"])
    def test_a_fetcher_that_is_ended_leaves_nothing_half_done(
        self, url: str, cache: Path, faults: S3Faults, python: Start, how: str
    ) -> None:
        """By SIGTERM, or because its replica is gone; without waiting for a store that fell silent."""
        faults.add(Stall(reply=300_000), "GET", "a.safetensors", times=None)
        child = python(*FETCH, "--with-parent", url, cache, stdin=subprocess.PIPE)
        until(lambda: (cache / COMMIT / "b.safetensors").exists() and list(cache.rglob("*.part")))
        begun = time.monotonic()
        if how == "signal":
            child.terminate()
        out, err = child.communicate(timeout=60)  # which ends its standard input

        assert TERMINATED == child.returncode, err
        assert sources.SILENCE_S > time.monotonic() - begun
        assert "The fetch of the weights was ended by SIGTERM; what is whole stays." == json.loads(out)["error"]
        assert {"config.json", "b.safetensors"} >= set(local(cache / COMMIT))
        assert not left_over(cache)

    def test_a_large_commit_needs_little_memory(self, store: Store, faults: S3Faults, cache: Path) -> None:
        """One file over all connections: ranges wait for their hash on the disk, not in memory."""
        del faults
        put_commit(store, COMMIT, {"model.safetensors": bytes(200 * 2**20)})
        program = (
            "import resource, sys, pathlib, boto3\nfrom serve import weights as w\n"
            "boto3.client('s3'); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "w.fetch(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        )
        url = f"{store.url}/{weights_key(MODEL, COMMIT)}"
        done = subprocess.run([sys.executable, "-c", program, url, cache], cwd=ROOT, capture_output=True, check=True)

        assert 64 * 1024 > int(done.stdout)  # KiB


FULL_DISK = """
import pathlib, shutil, sys
from serve import copies, weights
url, cache = sys.argv[1], pathlib.Path(sys.argv[2])
other = cache / "other"
other.mkdir()
(other / "file").write_bytes(b"x" * 1000)
copies.shutil.disk_usage = lambda _: shutil._ntuple_diskusage(10**12, 0, 10**12)
try:
    weights.fetch(url, cache)
except weights.WeightsError as error:
    print(error)
print(sorted(path.name for path in cache.rglob("*") if path.is_file()))
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_on_the_way_is_one_clear_error(tmp_path: Path) -> None:
    """A real file system of 16 MB, of which the look before said otherwise: no part stays, nothing else is lost."""
    stored = publish(tmp_path / "store" / COMMIT, {"config.json": b"{}", "model.safetensors": bytes(40_000_000)})
    (tmp_path / "cache").mkdir()
    mount = 'mount -t tmpfs -o size=16m none "$1" && exec "$2" -c "$3" "$4" "$1"'
    inner = ["sh", "-c", mount, "sh", tmp_path / "cache", sys.executable, FULL_DISK, stored.as_uri()]
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no namespace of one's own to mount a file system in")
    done = subprocess.run(["unshare", "-rm", *inner], cwd=ROOT, capture_output=True, text=True, check=True)

    said, left = done.stdout.splitlines()
    assert said.startswith(f"The disk of the cache {tmp_path / 'cache'} is full (")
    assert "although the 40,000,002 bytes to be fetched would have fitted at first" in said
    assert left in ("['config.json', 'file']", "['file']")


@pytest.mark.slow
class TestTheCommand:
    """``python -m serve.weights``."""

    def test_it_says_what_it_did(self, stored: Path, cache: Path, python: Start) -> None:
        """On standard output as JSON alone."""
        child = python(*FETCH, stored.as_uri(), cache)
        out, err = child.communicate(timeout=60)

        assert 0 == child.returncode
        result = json.loads(out)
        assert 0 <= result.pop("seconds") < 60
        assert result == {
            "folder": str(cache / COMMIT),
            "bytes": 200_005,
            "fetched": 200_005,
            "hashed": 0,
            "verified": True,
        }
        assert f"{COMMIT}: 4 of 4 files to fetch\n" == err

    def test_an_error_is_one_sentence(self, stored: Path, cache: Path, python: Start) -> None:
        """For a person on standard error, and for a program on standard output."""
        shutil.rmtree(stored)
        child = python(*FETCH, stored.as_uri(), cache)
        out, err = child.communicate(timeout=60)

        assert 1 == child.returncode
        assert f"The store has no manifest at {stored.as_uri()}: the commit was never mirrored whole.\n" == err
        assert {"error": err.strip()} == json.loads(out)

    def test_wrong_arguments_are_told_apart(self, cache: Path, python: Start) -> None:
        """By the exit status that all commands have for it."""
        child = python(*FETCH, "", cache, "--no-such-flag")
        out, err = child.communicate(timeout=60)

        assert (2, "") == (child.returncode, out)
        assert err.startswith("usage: python -m serve.weights")

    def test_progress_is_told(self, stored: Path, cache: Path, python: Start) -> None:
        """While it waits for another, too."""
        old = foreign_lease(cache)
        program = f"from serve import weights as w; w.TELL_S = 0.05; w.main([{stored.as_uri()!r}, {str(cache)!r}])"
        child = python("-c", program)
        assert child.stderr
        await_waiting(child)
        told = child.stderr.readline()
        os.utime(old, (0, 0))
        child.communicate(timeout=60)

        assert told.startswith("0.0 GB fetched and 0.0 GB hashed of 0.0 GB")
        assert 0 == child.returncode


def test_its_numbers_make_sense() -> None:
    """A waiter looks more often than anybody wants to wait, and a lease outlives several renewals."""
    assert weights.POLL_S <= 1
    assert lease.RENEW_S * 3 < lease.LIFETIME_S

"""The store in a folder under real processes: many writers, killed ones, a full disk, and two file systems."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme

from tasks._stores.folder import FolderStore
from tasks._stores.folder_files import INCOMING
from tasks.settings import StoreSettings
from tests.tasks.stores.contract import content, send, some_bytes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
DEADLINE_S = 120

COUNTING = """
import json, os, random, signal, sys, time
from tasks._stores import folder_turns
from tasks._stores.folder import FolderStore
from tasks.errors import Conflict
from tasks.settings import StoreSettings

url, writers, times, seed, kills = sys.argv[1], *map(int, sys.argv[2:])
folder_turns.PATIENCE_S = 0.2
chance = random.Random(seed)

def count(name, times):
    store = FolderStore(StoreSettings(url=url))
    while times:
        data, version = store.get("counts.json")
        counts = json.loads(data)
        counts[name] = counts.get(name, 0) + 1
        try:
            store.put_if("counts.json", json.dumps(counts).encode(), expect=version)
        except Conflict:
            continue
        times -= 1
        if name == "killed":
            os.write(1, b"+")

def begun(name, times):
    child = os.fork()
    if not child:
        try:
            count(name, times)
        except BaseException as error:
            os.write(2, f"{error!r}\\n".encode())
            os._exit(1)
        os._exit(0)
    return child

FolderStore(StoreSettings(url=url)).put_if("counts.json", b"{}", expect=None)
children = [begun(str(number), times) for number in range(writers)]
for _ in range(kills):
    victim = begun("killed", 10**9)
    time.sleep(chance.uniform(0.002, 0.06))
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""

SENDING = """
import sys, time
from awscrt.checksums import crc64nvme
from tasks._stores.folder import FolderStore
from tasks.settings import StoreSettings
from tests.tasks.stores.contract import some_bytes

store = FolderStore(StoreSettings(url=sys.argv[1]))
data = some_bytes(40 * 2**20)
upload = store.open_upload("a/b.bin", len(data), metadata={})
for at in range(0, len(data), upload.part_size):
    part = bytearray(data[at : at + upload.part_size])
    upload.write(part, crc64nvme(part), lambda: None)
    time.sleep(0.05)
    print(upload.id, upload.stored, flush=True)
time.sleep(600)
"""

MOUNTED = """
import os, sys
from pathlib import Path
import pytest
from awscrt.checksums import crc64nvme
from tasks._stores.folder import FolderStore
from tasks.errors import MachineError
from tasks.settings import StoreSettings
from tests.tasks.stores.contract import bring, content, send, some_bytes

root = Path(sys.argv[1])
store = FolderStore(StoreSettings(url=root.as_uri()))
sizes = r"[\\d,]+ bytes are needed and [\\d,]+ are free"
"""

FULL = (
    MOUNTED
    + """
data = some_bytes(20 * 2**20)
bring(store, "a.bin", data)
version = store.put_if("record.json", b"{}", expect=None)
uploads = [store.open_upload(key, 30 * 2**20, metadata={}) for key in ("b.bin", "c.bin")]
send(uploads[0], bytes(30 * 2**20))
with pytest.raises(MachineError, match=sizes):
    send(uploads[1], bytes(30 * 2**20))
    uploads[1].complete(crc64nvme(bytes(30 * 2**20)))
with pytest.raises(MachineError, match=sizes):
    store.put_if("record.json", bytes(20 * 2**20), expect=version)
with pytest.raises(MachineError, match=sizes):
    store.open_upload("d.bin", 64 * 2**20, metadata={})
for upload in uploads:
    upload.abort()
assert [] == os.listdir(root / ".incoming")
assert {"a.bin", "record.json"} == {item.key for item in store.list("")}
assert data == content(store, "a.bin")
assert (b"{}", version) == store.get("record.json")
"""
)

TWO_FILE_SYSTEMS = (
    MOUNTED
    + """
data = some_bytes(20 * 2**20)
(root / "elsewhere").mkdir()
assert 0 == os.system(f"mount -t tmpfs none {root}/elsewhere")
(root / "elsewhere" / "a.bin").write_bytes(data)
copied = store.copy(store.head("elsewhere/a.bin"), "b.bin")
assert data == content(store, "b.bin")
assert copied.version == store.head("b.bin").version
assert [] == os.listdir(root / ".incoming")
"""
)


def run(script: str, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Return how a script ended that ran as a process of its own."""
    command = [*before, sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def mounted(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a world where ``folder`` is a file system of 64 MB; skip where the kernel forbids it."""
    mount = f"mount -t tmpfs -o size=64m none {folder}"
    space = ("unshare", "-rm", "sh", "-c")
    trial = subprocess.run([*space, mount], capture_output=True, text=True, check=False)
    if trial.returncode:
        pytest.skip(f"this machine lets nobody mount a file system of his own: {trial.stderr.strip()}")
    return run(script, folder, before=(*space, f'{mount} && exec "$@"', "sh"))


def test_no_update_of_many_writers_is_lost(tmp_path: Path) -> None:
    """Six processes count to a hundred each in one object."""
    ended = run(COUNTING, tmp_path.as_uri(), 6, 100, 0, 0)

    assert (0, "") == (ended.returncode, ended.stderr)
    counts = json.loads((tmp_path / "counts.json").read_bytes())
    assert {str(number): 100 for number in range(6)} == counts
    assert [] == list((tmp_path / INCOMING).iterdir())


def test_killed_writers_lose_nothing_and_hinder_nobody(tmp_path: Path) -> None:
    """Three processes count to a hundred while a fourth is killed over and over, wherever it is."""
    seed, kills = random.SystemRandom().randrange(2**32), 60
    print(f"seed {seed}")  # noqa: T201 - to repeat it
    ended = run(COUNTING, tmp_path.as_uri(), 3, 100, seed, kills)

    assert (0, "") == (ended.returncode, ended.stderr)
    counts = json.loads((tmp_path / "counts.json").read_bytes())
    known = ended.stdout.count("+")
    assert known <= counts.pop("killed", 0) <= known + kills
    assert {str(number): 100 for number in range(3)} == counts

    store = FolderStore(StoreSettings(url=tmp_path.as_uri()))
    store.remove("counts.json")
    store.close()
    assert [] == list((tmp_path / INCOMING).iterdir())


def test_what_a_killed_process_had_stored_is_not_sent_again(tmp_path: Path) -> None:
    """An upload is killed in the middle; another process goes on with it from what its journal said."""
    url = tmp_path.as_uri()
    data = some_bytes(40 * 2**20)
    command = [sys.executable, "-c", SENDING, url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as sender:
        try:
            assert sender.stdout
            journal = next((line.split() for line in sender.stdout if int(line.split()[1]) >= 16 * 2**20), None)
        finally:
            sender.send_signal(signal.SIGKILL)
    assert journal

    store = FolderStore(StoreSettings(url=url))
    stored = int(journal[1])
    upload = store.open_upload("a/b.bin", len(data), metadata={}, resume=(journal[0], stored))
    send(upload, data, start=stored)
    upload.complete(crc64nvme(data))

    assert data == content(store, "a/b.bin")
    store.close()
    assert [] == list((tmp_path / INCOMING).iterdir())


def test_a_full_disk_is_told_with_sizes_and_harms_nothing(tmp_path: Path) -> None:
    """A real file system of 64 MB: neither a large nor a small object that does not fit leaves anything."""
    ended = mounted(FULL, tmp_path)

    assert (0, "") == (ended.returncode, ended.stderr)


def test_an_object_on_another_file_system_is_copied(tmp_path: Path) -> None:
    """A real mount within the root, where the kernel refuses a link."""
    ended = mounted(TWO_FILE_SYSTEMS, tmp_path)

    assert (0, "") == (ended.returncode, ended.stderr)

"""What is compared: Slipway's one pass, the two passes that everybody makes, and other tools' one pass.

Every contender runs with its default settings and an environment made here, so that nothing of this machine's user
changes it; progress bars and calls home are off.  All names of the Hub and of the store are on loopback, over plain
HTTP: there botocore hashes what it signs, which it would not over TLS, and aws is left as it comes.  No repository is
Xet-backed, so ``hf`` downloads through its HTTP path and not through hf-xet.
"""

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.settings import StoreSettings
from tests.bench import pipe
from tests.bench.data import Published
from tests.bench.measuring import Command
from tests.bench.servers import ROOT

AWS, RCLONE = ROOT / ".tools/bench/bin/aws", ROOT / ".tools/bench/bin/rclone"
HF, SLIPWAY = ROOT / ".venv/bin/hf", ROOT / ".venv/bin/slipway"
PREFIX = "run"
STREAMS = 4


@dataclass(frozen=True)
class Job:
    """One repository to move: from where, to where, and the folder that the tools may write to."""

    published: Published
    hub: str
    store: StoreSettings
    folder: Path

    @property
    def address(self) -> str:
        """Return the URL that the files go to, or under."""
        return f"{self.store.url}/{PREFIX}"

    def command(self, *words: str | Path) -> Command:
        """Return a command with the environment that every contender gets."""
        return Command(tuple(map(str, words)), self._environment(), self.folder)

    def own_command(self, *words: str | Path) -> Command:
        """Return a command that runs modules of this repository, which the contenders do not get to see."""
        command = self.command(*words)
        return replace(command, environment={**command.environment, "PYTHONPATH": str(ROOT)})

    def link(self, path: str) -> str:
        """Return where the Hub serves a file."""
        return f"{self.hub}/{self.published.model}/resolve/{self.published.ref}/{path}"

    def _environment(self) -> dict[str, str]:
        assert self.store.access_key
        assert self.store.secret_key
        key, secret = self.store.access_key.get_secret_value(), self.store.secret_key.get_secret_value()
        endpoint = self.store.endpoint or ""
        shared = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": str(self.folder), "LANG": "C.UTF-8"}
        hf = {
            "HF_ENDPOINT": self.hub,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }
        aws = {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": self.store.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        rclone = {
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_CONFIG_STORE_TYPE": "s3",
            "RCLONE_CONFIG_STORE_PROVIDER": "Other",
            "RCLONE_CONFIG_STORE_ENDPOINT": endpoint,
            "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": key,
            "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": secret,
            "RCLONE_CONFIG_STORE_NO_CHECK_BUCKET": "true",
        }
        slipway = {
            "SLIPWAY_HOME": str(self.folder / "home"),
            "SLIPWAY_STORE__ENDPOINT": endpoint,
            "SLIPWAY_STORE__ACCESS_KEY": key,
            "SLIPWAY_STORE__SECRET_KEY": secret,
        }
        return shared | hf | aws | rclone | slipway


@dataclass(frozen=True)
class Contender:
    """A way to bring a repository into the store: ``what`` it does, and the programs it ``needs``.

    ``keys`` says under which prefix of the bucket the files of a job end up.
    """

    name: str
    what: str
    needs: tuple[Path | str, ...]
    commands: Callable[[Job], list[Command]]
    keys: Callable[[Job], str] = lambda _: f"{PREFIX}/"

    def missing(self) -> str:
        """Return why it cannot run here, or nothing."""
        gone = [str(program) for program in self.needs if shutil.which(program) is None]
        return f"not installed: {', '.join(gone)}" if gone else ""


def _download(job: Job) -> Command:
    published = job.published
    where = ("--revision", published.ref, "--local-dir", job.folder / "model")
    return job.command(HF, "download", published.model, *where)


def _hf_and_aws(job: Job) -> list[Command]:
    words = ("s3", "sync", job.folder / "model", f"{job.address}/", "--exclude", ".cache/*", "--only-show-errors")
    return [_download(job), job.command(AWS, *words)]


def _hf_and_rclone(job: Job) -> list[Command]:
    words = ("copy", job.folder / "model", f"store:{_path(job)}", "--exclude", "/.cache/**")
    return [_download(job), job.command(RCLONE, *words)]


def _rclone_copyurl(job: Job) -> list[Command]:
    job.folder.mkdir(parents=True, exist_ok=True)
    urls = job.folder / "urls.csv"
    with urls.open("w", newline="") as stream:
        csv.writer(stream).writerows((job.link(file.path), file.path) for file in job.published.files)
    return [job.command(RCLONE, "copyurl", "--urls", urls, f"store:{_path(job)}", "--transfers", str(STREAMS))]


def _curl_and_aws(job: Job) -> list[Command]:
    """Stream the shards, several at once; the small files go in one batch, for a process each would be unfair."""
    shards = [file.path for file in job.published.files if file.large]
    small = [job.link(file.path) for file in job.published.files if not file.large]
    one = f"set -o pipefail; curl -sfL {job.link('$0')} | {AWS} s3 cp - {job.address}/$0 --only-show-errors"
    streams = ("xargs", "-P", str(STREAMS), "-n", "1", "bash", "-c", one)
    return [
        job.command("bash", "-c", 'printf "%s\\n" ' + " ".join(shards) + ' | "$@"', "bash", *streams),
        job.command("curl", "-sfL", "--create-dirs", "--output-dir", "small", "--remote-name-all", *small),
        job.command(AWS, "s3", "cp", "--recursive", "small", f"{job.address}/", "--only-show-errors"),
    ]


def _slipway(job: Job) -> list[Command]:
    published = job.published
    return [job.command(*pipe.words(published.model, published.ref, store=job.address, hub=job.hub))]


def _slipway_keys(job: Job) -> str:
    return f"{PREFIX}/models/{job.published.model}/{job.published.commit}/"


def _path(job: Job) -> str:
    return job.address.removeprefix("s3://")


PIPE = Contender(
    "slipway",
    "slipway mirror: one pass, sha256 of every file compared with the Hub's, CRC64NVME of every part and object",
    (SLIPWAY,),
    _slipway,
    _slipway_keys,
)
BASELINE = Contender(
    "hf + aws",
    "hf download to a folder, then aws s3 sync of it: two passes, sizes compared only",
    (HF, AWS),
    _hf_and_aws,
)
OTHERS = (
    Contender(
        "hf + rclone",
        "hf download to a folder, then rclone copy of it: two passes, sizes compared only",
        (HF, RCLONE),
        _hf_and_rclone,
    ),
    Contender(
        "rclone copyurl",
        f"rclone copyurl, {STREAMS} at once: one pass, no comparison with the Hub's sha256",
        (RCLONE,),
        _rclone_copyurl,
    ),
    Contender(
        "curl | aws",
        f"curl | aws s3 cp -, {STREAMS} at once: one pass, no comparison with the Hub's sha256",
        ("curl", "xargs", AWS),
        _curl_and_aws,
    ),
)

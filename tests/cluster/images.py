"""Images of containers made from nothing: no registry is asked.

An image is a file as ``docker save`` writes it, which containerd imports: one layer, and what runs by default.
https://github.com/moby/docker-image-spec/blob/main/spec.md
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
"""A static one, of Debian's package busybox-static."""
APPLETS = ("cat", "echo", "httpd", "nc", "nslookup", "rm", "sh", "sleep", "touch", "wget")


@dataclass(frozen=True)
class Entry:
    """A file, or with ``link`` a symbolic link, or with neither content nor link a folder."""

    content: bytes | None = None
    link: str = ""
    mode: int = 0o755
    owner: int = 0


@dataclass(frozen=True)
class Image:
    """What an image holds, by path without the first slash; ``name`` has a host, so that nothing else is meant."""

    name: str
    entries: Mapping[str, Entry]
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the image's file."""
        layer = _archive({name: _member(name, entry) for name, entry in self.entries.items()})
        configuration = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": list(self.command), "Env": [f"{k}={v}" for k, v in self.environment.items()]},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            }
        ).encode()
        manifest = [{"Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"]}]
        files = {"config.json": configuration, "manifest.json": json.dumps(manifest).encode(), "layer.tar": layer}
        path.write_bytes(_archive({name: _member(name, Entry(content)) for name, content in files.items()}))


def busybox(name: str) -> Image:
    """Return an image with a shell and little else, which sleeps if it is told nothing."""
    links = {f"bin/{applet}": Entry(link="busybox") for applet in APPLETS}
    entries = {"bin": Entry(), "tmp": Entry(mode=0o1777), "bin/busybox": Entry(BUSYBOX.read_bytes()), **links}
    return Image(name, entries, command=("/bin/sleep", "2147483647"), environment={"PATH": "/bin"})


def _member(name: str, entry: Entry) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.mode, member.uid, member.gid = entry.mode, entry.owner, entry.owner
    member.type = tarfile.DIRTYPE
    if entry.link:
        member.type, member.linkname = tarfile.SYMTYPE, entry.link
    if entry.content is not None:
        member.type, member.size = tarfile.REGTYPE, len(entry.content)
    return member, entry.content or b""


def _archive(members: Mapping[str, tuple[tarfile.TarInfo, bytes]]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for member, content in members.values():
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()

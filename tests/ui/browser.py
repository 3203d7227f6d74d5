"""Finds Debian's chromium, or installs it where that is allowed: ``python -m tests.ui.browser``.

Playwright's own browsers are no choice: they are downloaded from a host that is no package registry.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser")
INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core")


def chromium() -> str | None:
    """Return where chromium is, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    """See that there is a browser; return the exit status."""
    if chromium() is None and shutil.which(INSTALL[0]) and os.geteuid() == 0:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (("apt-get", "update"), INSTALL):
            subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=False)
    found = chromium()
    said = found or "No chromium is here: install one (on Debian, as root: apt-get install chromium). The tests skip."
    sys.stderr.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

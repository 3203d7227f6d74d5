"""The fetch in a process of its own, beside a replica that imports vLLM at the same time.

Python runs one thread at a time, and each megabyte that arrives needs several turns.  Beside a thread that computed,
a store of 360 MB/s was read at 44 to 140 MB/s, and at 330 MB/s by a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from serve.manifest import WeightsError

CODE = Path(__file__).parents[1]


def fetch_apart(url: str, cache: Path) -> Path:
    """Do what ``serve.weights.fetch`` does and raise what it raises; the process ends when this one does."""
    command = [sys.executable, "-m", "serve.weights", "--with-parent", url, str(cache)]
    path = os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as child:
        said = child.stdout.read() if child.stdout else b""
        status = child.wait()
    try:
        result = json.loads(said)
    except ValueError as error:
        raise WeightsError(f"The process that fetched {url} ended with status {status}.") from error
    if status:
        raise WeightsError(result["error"])
    return Path(result["folder"])

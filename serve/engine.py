"""vLLM inside one replica: its environment, its arguments, its engine and its own HTTP application.

Nothing here is imported before a replica runs: the module itself is light, vLLM is loaded by ``load``.

Measured on two cores without a GPU, most of a start is Python imports, so the engine runs in one process beside
the replica instead of two (the ``uni`` executor): one import of seven seconds less.  vLLM's CPU platform turns
that down by default because it binds OpenMP's threads when it starts the second process; here they are set by
the environment that the engine's process inherits.
"""

import os
from pathlib import Path
from typing import Any

from serve.arguments import Arguments
from serve.edge import AllowedPaths, ReleaseHeaders
from serve.streaming import stream_environment

# Page-faulting the cache in took 3 s per GiB on a virtual machine; this holds about 11,000 tokens of a model of
# 135M parameters in float32.  A service that needs more says so in its engine arguments.
CPU_KV_CACHE_BYTES = 512 * 2**20

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_PLUGINS": "",
}


def environment(arguments: Arguments, cores: int) -> dict[str, str]:
    """Return the variables that a replica sets before vLLM is imported, on a machine with ``cores`` usable cores.

    Without a GPU: half of the cores for each engine, because a candidate starts and is judged beside the live
    one.  OpenMP's threads wait by spinning, and two engines with a thread on every core made each token ten
    times slower.  Ray would set the number to the replica's logical CPUs.
    """
    if arguments.resources.gpus:
        return OFFLINE
    return {
        **OFFLINE,
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(max(1, cores // 2)),
        "OMP_WAIT_POLICY": "passive",
    }


def engine_arguments(arguments: Arguments, folder: Path) -> dict[str, Any]:
    """Return the vLLM arguments of a release whose files, or all but streamed weights, are in ``folder``."""
    engine = dict(arguments.engine)
    engine.setdefault("max_num_seqs", arguments.sequences)
    # Named, because inside a Ray actor vLLM would otherwise look for a placement group of its own.
    engine.setdefault("distributed_executor_backend", _executor(arguments))
    if not arguments.resources.gpus:
        engine.setdefault("kv_cache_memory_bytes", CPU_KV_CACHE_BYTES)
    return {
        **engine,
        "model": str(folder),
        "served_model_name": [arguments.served_model_name],
        "trust_remote_code": False,
        **({"model_weights": arguments.weights} if arguments.streamed else {"load_format": "safetensors"}),
    }


def _executor(arguments: Arguments) -> str:
    if arguments.spans_nodes:
        return "ray"
    return "mp" if arguments.tensor * arguments.pipeline > 1 else "uni"


def load(arguments: Arguments) -> None:
    """Set the environment and import vLLM: seconds that pass while the weights are fetched."""
    os.environ.update(environment(arguments, len(os.sched_getaffinity(0))))
    if arguments.streamed:
        os.environ.update(stream_environment(os.environ))
    import vllm.entrypoints.launchers.api_server.app_state  # noqa: PLC0415
    import vllm.entrypoints.launchers.app  # noqa: PLC0415
    import vllm.v1.engine.async_llm  # noqa: F401, PLC0415


class Server:
    """vLLM's engine and its HTTP application, for one release."""

    def __init__(self, arguments: Arguments, folder: Path) -> None:
        """Start the engine; returns when the weights are loaded.  ``load`` was called before."""
        from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415
        from vllm.entrypoints.launchers.cli_args import (  # noqa: PLC0415
            make_arg_parser,
            validate_parsed_serve_args,
        )
        from vllm.usage.usage_lib import UsageContext  # noqa: PLC0415
        from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

        self._release, self._commit = arguments.release, arguments.commit
        self._namespace = make_arg_parser(FlexibleArgumentParser()).parse_args([])
        for name, value in engine_arguments(arguments, folder).items():
            setattr(self._namespace, name, value)
        self._namespace.disable_fastapi_docs = True
        validate_parsed_serve_args(self._namespace)
        usage = UsageContext.OPENAI_API_SERVER
        config = AsyncEngineArgs.from_cli_args(self._namespace).create_engine_config(usage_context=usage)
        self._engine: Any = AsyncLLM.from_vllm_config(vllm_config=config, usage_context=usage)

    async def app(self) -> ReleaseHeaders:
        """Return vLLM's own application behind the release's headers and the list of paths."""
        from types import SimpleNamespace  # noqa: PLC0415

        from vllm.entrypoints.launchers.api_server.app_state import init_app_state  # noqa: PLC0415
        from vllm.entrypoints.launchers.app import build_app  # noqa: PLC0415

        tasks = await self._engine.get_supported_tasks()
        app = build_app(self._namespace, tasks, self._engine.model_config)
        await init_app_state(self._engine, app.state, self._namespace, tasks)
        # vLLM's error handler tells its own server to exit when the engine died; here check_health does.
        app.state.server = SimpleNamespace()
        return ReleaseHeaders(AllowedPaths(app), self._release, self._commit)

    async def check_health(self) -> None:
        """Raise when the engine died."""
        await self._engine.check_health()

    def shutdown(self) -> None:
        """End the engine's process now; Serve has waited for the requests before."""
        self._engine.shutdown(timeout=0)

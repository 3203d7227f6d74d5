"""The verbs before the first release: ``size`` says what a model needs, ``init`` describes a service."""

import json
import sys
from typing import Annotated, Literal

import typer

from flows.cli.app import LOOKING, RELEASES, AsJson, HubUrl, app, say, settings_of
from tasks.errors import AccessDenied, BadInput, TransientError
from tasks.settings import Settings
from tasks.spec import Policy, TargetKind

NO_GPU = "none"
GpuName = Annotated[
    str | None, typer.Option("--gpu", help="E.g. L40S, A100-80, H100, H200; none: a machine without one.")
]


@app.command(rich_help_panel=LOOKING)
def size(
    target: Annotated[str, typer.Argument(metavar="ORG/NAME[@REF]", help="Model, and branch, tag or commit.")],
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a sequence, prompt and answer; default: 8192 at most.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Sequences that a replica holds at once.")] = 8,
    gpu: Annotated[
        str | None, typer.Option(help="Only this GPU, e.g. L40S, A100-80, H100; default: all known.")
    ] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(min=1, help="Instead, GiB of a GPU, as its driver reports them.")
    ] = None,
    quantization: Annotated[
        Literal["fp8", "bitsandbytes"] | None, typer.Option(help="What the engine makes of plain weights on loading.")
    ] = None,
    kv_cache_dtype: Annotated[
        Literal["auto", "fp8", "bfloat16"], typer.Option(help="How the engine keeps keys and values.")
    ] = "auto",
    hub: HubUrl = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the memory and the GPUs that a model needs, from its Hub's metadata alone; no weights are fetched.

    The weights are exact; the KV cache is, where the configuration is understood; the rest is an allowance. How sure
    it is stands below. Ends with exit code 5 when not one of the GPUs can hold it.
    """
    from flows.cli.sizes import print_size  # noqa: PLC0415
    from tasks._upkeep import parse_target  # noqa: PLC0415
    from tasks.errors import Refused  # noqa: PLC0415
    from tasks.sizing import GPUS, Load, gpu_called, gpu_of, size_of  # noqa: PLC0415

    if gpu and gpu_memory:
        raise BadInput("A GPU was named twice.", remedy="Give --gpu or --gpu-memory, not both.")
    model, ref = parse_target(target)
    gpus = (gpu_called(gpu),) if gpu else (gpu_of(gpu_memory),) if gpu_memory else tuple(GPUS.values())
    load = Load(
        context=context or 0, sequences=concurrency, quantization=quantization or "", kv_cache_dtype=kv_cache_dtype
    )
    found = size_of(settings_of(hub=hub), model, ref or "main", load, gpus)
    if as_json:
        typer.echo(json.dumps({**found.model_dump(mode="json"), "engine": found.engine}))
    else:
        print_size(found)
    raise typer.Exit(0 if found.proposed else Refused.exit_code)


@app.command(rich_help_panel=RELEASES)
def init(
    service: Annotated[str | None, typer.Option(help="Name that clients call, e.g. chat.")] = None,
    model: Annotated[str | None, typer.Option(help="org/name at the Hub.")] = None,
    ref: Annotated[str, typer.Option(help="Branch, tag or commit to follow.")] = "main",
    policy: Annotated[
        Policy, typer.Option(help="What happens with a new commit: released, a person asked, or only reported.")
    ] = Policy.APPROVE,
    target: Annotated[TargetKind, typer.Option(help="Where releases run.")] = TargetKind.RAY,
    image: Annotated[str, typer.Option(help="Payload image by digest; for the target kuberay.")] = "",
    gpu: GpuName = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of a replica; default: what `slipway size` proposes.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens of a sequence; default: 8192 at most.")] = None,
    hub: HubUrl = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the spec of a service that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a new service: write its spec and a few prompts to judge it by, from a few questions or flags.

    What the engine needs is estimated from the Hub's metadata; where it does not answer, that is left to you.
    """
    from tasks._spec_writing import Wish, write  # noqa: PLC0415

    asks = not yes and not as_json and sys.stdin.isatty()
    service = service or _asked("Name of the service", "--service", asks=asks)
    model = model or _asked("Model, org/name", "--model", asks=asks)
    if asks and gpu is None and gpus is None:
        gpu = typer.prompt("GPU, e.g. L40S or H100; none for a machine without", default=NO_GPU, err=True)
    if target is TargetKind.KUBERAY and not image:
        image = _asked("Payload image by digest", "--image", asks=asks)
    settings = settings_of(hub=hub)
    count, engine, memory = _proposal(settings, f"{model}@{ref}", gpu or NO_GPU, gpus, context)
    wish = Wish(
        service=service,
        model=model,
        ref=ref,
        policy=policy,
        target=target,
        gpus=count,
        engine=engine,
        image=image,
        memory=memory,
    )
    written = write(settings.services, wish, force=force)
    if as_json:
        typer.echo(json.dumps({**written.model_dump(), "resources": {"gpus": count}, "engine": engine}))
        return
    typer.echo(f"{written.spec}\n{written.prompts}")
    say(f"next: put your own questions into the prompts; then `slipway plan {service}`, `slipway release {service}`")


def _asked(question: str, flag: str, *, asks: bool) -> str:
    if not asks:
        raise BadInput(f"{flag} is missing.", remedy="Give it, or run this on a terminal, which asks.")
    return str(typer.prompt(question, err=True)).strip()


def _proposal(
    settings: Settings, target: str, gpu: str, gpus: int | None, context: int | None
) -> tuple[int, dict[str, int | str | bool], int]:
    """Return GPUs, engine arguments and GiB of host memory for a replica, as far as the Hub tells what it needs."""
    from tasks._spec_writing import engine_without_gpu  # noqa: PLC0415
    from tasks._upkeep import parse_target  # noqa: PLC0415
    from tasks.sizing import USUAL_SEQUENCES, Load, gpu_called, size_of  # noqa: PLC0415

    kinds = () if gpu.lower() == NO_GPU else (gpu_called(gpu),)
    load = Load(context=context or 0, sequences=USUAL_SEQUENCES)
    model, ref = parse_target(target)
    try:
        found = size_of(settings, model, ref or "main", load, kinds)
    except (TransientError, AccessDenied) as error:
        say(f"the Hub does not tell what {model} needs, so its engine arguments are left to you: {error}")
        return gpus or 0, {"tensor_parallel_size": gpus} if gpus and gpus > 1 else {}, 16
    if not kinds and not gpus:
        return 0, dict(engine_without_gpu(context or found.shape.longest)), 16
    best = next(iter(found.proposed), None)
    if kinds and best is None:
        raise BadInput(f"{model} does not fit on {gpu}s.", remedy=f"`slipway size {target}` says on what it does.")
    engine: dict[str, int | str | bool] = dict(found.engine)
    if gpus is not None:
        engine = {"max_model_len": found.load.context, **({"tensor_parallel_size": gpus} if gpus > 1 else {})}
    host = best.host if best else 0
    return gpus if gpus is not None else best.gpus if best else 0, engine, max(16, -(-host // 2**30))

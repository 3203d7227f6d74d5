"""How ``size`` shows its estimate."""

from typing import Any

from rich.console import Console
from rich.table import Table

from tasks._sizing.estimate import Fit
from tasks.sizing import Size

GB = 10**9


def print_size(size: Size) -> None:
    """Print what a model needs, then where it fits, then how sure that is."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in _lines(size):
        console.print(line)
    if size.proposed:
        Console(highlight=False, markup=False).print(_table(size))
    if size.too_small:
        console.print(f"too small, even 16 nodes of 8: {', '.join(size.too_small)}")
    best = next(iter(size.proposed), None)
    if best is not None:
        arguments = ", ".join(f"{name}: {value}" for name, value in size.engine.items())
        console.print(f"for {best.gpu}: resources.gpus: {best.gpus}; engine: {{{arguments}}}")
        console.print(f"host memory: about {_gb(best.host)} GB for Ray and the engine's processes; none of the GPU's")
    console.print(f"sure: {size.sure.value}")
    for doubt in size.doubts:
        console.print(f"note: {doubt}")


def _lines(size: Size) -> tuple[str, ...]:
    shape, load = size.shape, size.load
    parameters = f", {size.parameters / GB:.1f} B parameters" if size.parameters else ""
    kinds = "+".join(size.dtypes) or "dtypes not known"
    stored = f"{kinds}, {_gb(size.stored)} GB stored" + (f", {shape.quantized}" if shape.quantized else "")
    experts = f", {shape.experts_at_once or '?'} of {shape.experts} experts a token" if shape.experts else ""
    whole = size.per_token * shape.tokens_kept(load.context) * load.sequences if size.per_token else None
    cache = f"{size.per_token / 1000:.0f} kB a token: {shape.kept}" if size.per_token else "not known"
    asked = f"{load.sequences} sequences of {load.context:,} tokens at once"
    return (
        f"{size.model}@{size.ref}, commit {size.commit[:12]}: {shape.architecture or 'a model'}{parameters}{experts}",
        f"weights: {_gb(size.weights)} GB in memory ({stored})",
        f"KV cache: {cache}",
        f"asked for: {asked}" + (f", {_gb(whole)} GB of cache" if whole is not None else ""),
    )


def _table(size: Size) -> Table:
    title = "fewest GPUs of each kind; GB on each of them"
    looks: dict[str, Any] = {"box": None, "pad_edge": False, "collapse_padding": True}
    table = Table("GPU", "GPUs", title=title, title_justify="left", **looks)
    for name in ("weights", "cache", "other", "of", "at once", "longest"):
        table.add_column(name, justify="right")
    table.add_column("instance", overflow="fold")
    for fit in size.proposed:
        other = fit.share.total - fit.share.weights - fit.share.cache
        shares = (fit.share.weights, fit.share.cache, other, fit.available)
        room = map(_count, (fit.sequences, fit.longest))
        table.add_row(fit.gpu, _layout(fit), *map(_gb, shares), *room, fit.instance)
    return table


def _layout(fit: Fit) -> str:
    return f"{fit.gpus}" if fit.pipeline == 1 else f"{fit.tensor}x{fit.pipeline}"


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _gb(size: float) -> str:
    return f"{size / GB:.1f}"

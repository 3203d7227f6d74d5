"""The GPUs that a model may be asked to fit on: what each has, and where it is to be had.

Sizes are those of NVIDIA's data sheets (nvidia.com/en-us/data-center), which are powers of two whatever they are
called.  A program gets less: with GDDR6, error correction and the driver take a sixteenth and some more, with HBM the
driver alone takes 1 %.  Seen in vLLM's own logs: 44.52 of 48 on an L40S (vllm-project/vllm#14011), 79.15 of 80 on an
A100 (#4408), 79.22 of 80 on an H100 (#10511); 139 of 141 on an H200.  The instances are Amazon's
(aws.amazon.com/ec2/instance-types, accelerated computing), the smallest with so many GPUs.
"""

import difflib

from pydantic import Field

from tasks.errors import BadInput
from tasks.records import Value

GIB = 2**30
GDDR6, HBM = 0.925, 0.985
"""Shares of the nominal size that a program gets."""


class Gpu(Value):
    """One kind of GPU.  ``memory`` is what a program gets, in bytes; ``instances`` by their number of GPUs."""

    name: str
    nominal: str
    memory: int
    instances: dict[int, str] = Field(default_factory=dict)


def _gpu(name: str, gib: int, share: float, **instances: str) -> Gpu:
    by_count = {int(count.removeprefix("of_")): instance for count, instance in instances.items()}
    return Gpu(name=name, nominal=f"{gib} GB", memory=int(gib * GIB * share), instances=by_count)


_KNOWN = (
    _gpu("A10G", 24, GDDR6, of_1="g5.2xlarge", of_4="g5.12xlarge", of_8="g5.48xlarge"),
    _gpu("L4", 24, GDDR6, of_1="g6.2xlarge", of_4="g6.12xlarge", of_8="g6.48xlarge"),
    _gpu("L40S", 48, GDDR6, of_1="g6e.2xlarge", of_4="g6e.12xlarge", of_8="g6e.48xlarge"),
    _gpu("A100-40", 40, HBM, of_8="p4d.24xlarge"),
    _gpu("A100-80", 80, HBM, of_8="p4de.24xlarge"),
    _gpu("H100", 80, HBM, of_1="p5.4xlarge", of_8="p5.48xlarge"),
    _gpu("H200", 141, HBM, of_8="p5en.48xlarge"),
    _gpu("B200", 180, HBM, of_8="p6-b200.48xlarge"),
)
GPUS = {gpu.name: gpu for gpu in _KNOWN}
"""By name, the smallest first."""


def gpu_called(name: str) -> Gpu:
    """Return the GPU of that name, however it is written; raises ``BadInput`` that lists those that are known."""
    plain = {_plain(known): gpu for known, gpu in GPUS.items()}
    found = plain.get(_plain(name)) or plain.get(_plain(name).removeprefix("nvidia").removesuffix("gb"))
    if found is None:
        near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.5)
        hint = f"Did you mean {plain[near[0]].name}?" if near else f"Known are {', '.join(GPUS)}."
        raise BadInput(f"No GPU is called {name!r}.", remedy=f"{hint} --gpu-memory takes the size of any other.")
    return found


def gpu_of(gib: float) -> Gpu:
    """Return a GPU with so much memory, in GiB as its driver reports it."""
    return Gpu(name=f"a GPU of {gib:g} GiB", nominal=f"{gib:g} GiB", memory=int(gib * GIB))


def instance_for(gpu: Gpu, count: int) -> str:
    """Return the smallest instance with ``count`` of these GPUs, or several of the largest; empty if unknown."""
    large = max(gpu.instances, default=0)
    if not large:
        return ""
    enough = [number for number in gpu.instances if number >= count]
    if enough:
        return gpu.instances[min(enough)]
    return f"{-(-count // large)} x {gpu.instances[large]}"


def _plain(name: str) -> str:
    return "".join(one for one in name.lower() if one.isalnum())

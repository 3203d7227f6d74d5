"""The table of GPUs: found however they are written, and on which instances."""

import pytest

from tasks._sizing.gpus import GIB, GPUS, gpu_called, gpu_of, instance_for
from tasks.errors import BadInput


@pytest.mark.parametrize(
    ("written", "name"),
    [("h100", "H100"), ("NVIDIA L40S", "L40S"), ("a100-80GB", "A100-80"), ("A100 40", "A100-40")],
)
def test_a_gpu_is_found_however_it_is_written(written: str, name: str) -> None:
    """As people and tools call it."""
    assert name == gpu_called(written).name


@pytest.mark.parametrize(("written", "hint"), [("h10", "Did you mean H100?"), ("tpu-v6", "Known are A10G")])
def test_an_unknown_gpu_is_refused_with_what_there_is(written: str, hint: str) -> None:
    """And with the way to size for it all the same."""
    with pytest.raises(BadInput, match="--gpu-memory") as caught:
        gpu_called(written)

    assert hint in caught.value.remedy


def test_a_program_gets_less_than_the_data_sheet_says() -> None:
    """Within half a GiB of what was seen by programs."""
    seen = {"L40S": 44.52, "A100-80": 79.15, "H100": 79.22, "H200": 139.0}

    assert [] == [name for name, gib in seen.items() if abs(GPUS[name].memory / GIB - gib) > 0.5]


def test_the_smallest_instance_with_so_many() -> None:
    """More than a node has are several nodes."""
    found = [instance_for(GPUS["L40S"], count) for count in (1, 2, 8, 16)]

    assert ["g6e.2xlarge", "g6e.12xlarge", "g6e.48xlarge", "2 x g6e.48xlarge"] == found
    assert "" == instance_for(gpu_of(10), 1)

from __future__ import annotations

from pathlib import Path

import pytest

from pigeonholed_training.fitting import precision


@pytest.mark.parametrize(
    ("flags", "policy"),
    [("fpu amx_bf16 sse", "mixed_bfloat16"), ("fpu avx512_bf16", "mixed_bfloat16"), ("fpu avx2 amx_bf16x", "float32")],
)
def test_a_cpu_computes_in_bfloat16_where_it_can(tmp_path: Path, flags: str, policy: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert precision.of_cpu(tmp_path / "cpuinfo") == policy


def test_an_unknown_machine_computes_in_full(tmp_path: Path) -> None:
    assert precision.of_cpu(tmp_path / "nothing") == "float32"
    assert precision.of_gpu(None) == "float32"
    assert precision.choose(wanted=False) == "float32"


@pytest.mark.parametrize(
    ("capability", "policy"), [((9, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16"), ((6, 1), "float32")]
)
def test_a_gpu_computes_in_what_it_is_fast_at(capability: tuple[int, int], policy: str) -> None:
    assert precision.of_gpu(capability) == policy

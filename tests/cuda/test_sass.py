# SPDX-License-Identifier: Apache-2.0
"""The check of machine code: a recorded kernel, copies of it that each break a rule, and the module built."""

from __future__ import annotations

import re
from pathlib import Path

import cuobjdump
import pytest
import sass

# u = v + s * g by float4 in a loop, as nvcc 13.0 compiles it for sm_90; cuobjdump's output without the encodings. The
# loop is taken out below.
HEAD = """
Fatbin elf code:
================
arch = sm_90
code version = [1,8]
"""
USAGE = f"""{HEAD}
Resource usage:
 Common:
  GLOBAL:0
 Function _Z4axpyPK6float4S1_PS_if:
  REG:24 STACK:0 SHARED:1088 LOCAL:0 CONSTANT[0]:560 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
LOOP = f"""{HEAD}
	code for sm_90
	.target	sm_90

		Function : _Z4axpyPK6float4S1_PS_if
	.headerflags	@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*00d0*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;          /* 0x0000000000007b1d */
                                          /* 0x000fec0000010000 */
        /*00e0*/               @P1 EXIT ;
        /*0170*/                   LDC.64 R14, c[0x0][0x220] ;
        /*0180*/                   IMAD.WIDE R4, R17, 0x10, R12 ;
        /*0190*/                   IMAD.WIDE R18, R17.reuse, 0x10, R2 ;
        /*01a0*/                   LDG.E.128.CONSTANT R4, desc[UR6][R4.64] ;
        /*01b0*/                   LDG.E.128.CONSTANT R8, desc[UR6][R18.64] ;
        /*01c0*/                   SHF.L.U32 R16, R17, 0x2, RZ ;
        /*01e0*/                   LDS R21, [R16+UR4] ;
        /*01f0*/                   FMUL R20, R7, UR5 ;
        /*0230*/                   FADD R11, R11, R20 ;
        /*0270*/                   IMAD.WIDE R4, R17, 0x10, R14 ;
        /*0280*/                   LEA R17, R0, R17, 0x7 ;
        /*0290*/                   STG.E.128 desc[UR6][R4.64], R8 ;
        /*02a0*/                   ISETP.GE.AND P0, PT, R17, UR8, PT ;
        /*02b0*/              @!P0 BRA 0x180 ;
        /*02c0*/                   EXIT ;
        /*02d0*/                   BRA 0x2d0;
        /*02e0*/                   NOP;
		..........
"""
ELF = f"""{HEAD}
.nv.info._Z4axpyPK6float4S1_PS_if
	<0x1>
	Attribute:	EIATTR_EXIT_INSTR_OFFSETS
	Format:	EIFMT_SVAL
	Value:	0xe0 0x2c0
	<0x2>
	Attribute:	EIATTR_MAX_THREADS
	Format:	EIFMT_SVAL
	Value:	0x80 0x1 0x1
"""
BACK = "@!P0 BRA 0x180 ;"
SASS = LOOP.replace(BACK, "NOP ;")


def read(usage: str, code: str, elf: str) -> list[cuobjdump.Kernel]:
    kernels = cuobjdump.parse(usage, code, elf)
    for kernel, name in zip(kernels, cuobjdump.demangled([k.name for k in kernels]), strict=True):
        kernel.name = name
    return kernels


@pytest.fixture(autouse=True)
def hot(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Take the recorded kernel for the hot one, except where the module built is checked."""
    if "module" not in request.fixturenames:
        monkeypatch.setattr(sass, "HOT", {"axpy": sass.Hot(loads=2, stores=1)})
        monkeypatch.setattr(sass, "GROUPS", 1)


def broken(usage: str = USAGE, code: str = SASS, elf: str = ELF) -> list[str]:
    return sass.check(read(usage, code, elf))


def test_the_recorded_kernel_breaks_no_rule():
    (kernel,) = read(USAGE, SASS, ELF)
    assert (kernel.machine, kernel.registers, kernel.shared, kernel.threads) == ("sm_90", 24, 1088, 128)
    assert sass.loops(kernel.code) == []
    assert sass.occupancy(kernel) == 1.0
    assert broken() == []


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("FADD R11, R11, R20 ;", "STL [R1], R11 ;", "1 accesses to local memory"),
        ("STG.E.128", "STG.E", "0 STG.128, wanted 1 x 1"),
        ("LDG.E.128.CONSTANT R4", "LDG.E.CONSTANT R4", "1 LDG.128, wanted 1 x 2"),
        ("SHF.L.U32 R16, R17, 0x2, RZ", "LDG.E.128 R16, desc[UR6][R18.64]", "3 LDG.128, wanted 1 x 2"),
        ("SHF.L.U32 R16, R17, 0x2, RZ", "STG.E.EF.128 desc[UR6][R4.64], R8", "2 STG.128, wanted 1 x 1"),
        ("FADD R11, R11, R20", "FFMA R11, R7, R20, R11", "1 fused multiply-adds"),
        ("FADD R11, R11, R20", "HFMA2.BF16_V2 R11, R7, R20, R11", "1 fused multiply-adds"),
    ],
)
def test_code_that_breaks_a_rule_is_refused(old, new, wrong):
    assert old in SASS
    lines = broken(code=SASS.replace(old, new))
    assert any(wrong in line and line.startswith("axpy on sm_90: ") for line in lines), lines


@pytest.mark.parametrize("move", ["HFMA2.MMA R5, -RZ, RZ, 0, 5.96e-08", "FFMA R5, R4, 1, R3"])
def test_a_move_or_a_sum_by_a_multiplier_is_allowed(move):
    assert broken(code=SASS.replace("FADD R11, R11, R20", move)) == []


def test_a_loop_over_groups_is_refused():
    (kernel,) = read(USAGE, LOOP, ELF)
    assert [len(loop) for loop in sass.loops(kernel.code)] == [13]
    assert broken(code=LOOP) == ["axpy on sm_90: a loop with 128-bit accesses"]


def test_each_group_counts(monkeypatch):
    monkeypatch.setattr(sass, "GROUPS", 2)
    assert broken() == ["axpy on sm_90: 2 LDG.128, wanted 2 x 2", "axpy on sm_90: 1 STG.128, wanted 2 x 1"]


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("STACK:0", "STACK:16", "stack of 16 bytes"),
        ("REG:24", "REG:72", "occupancy 44%, wanted 50%"),
        ("SHARED:1088", "SHARED:40000", "occupancy 31%, wanted 50%"),
    ],
)
def test_a_use_of_resources_that_breaks_a_rule_is_refused(old, new, wrong):
    assert broken(usage=USAGE.replace(old, new)) == [f"axpy on sm_90: {wrong}"]


def test_a_kernel_without_launch_bounds_is_refused():
    assert broken(elf=ELF.replace("MAX_THREADS", "REGCOUNT")) == ["axpy on sm_90: no __launch_bounds__"]


def test_a_hot_kernel_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(sass, "HOT", {"step": sass.Hot(loads=2, stores=1)})
    assert broken() == ["step on sm_90: not in the module"]


@pytest.mark.parametrize("text", [HEAD, "", USAGE.replace("REG:24", "")])
def test_output_that_is_not_understood_is_an_error(text):
    with pytest.raises(cuobjdump.SassError):
        cuobjdump.parse(text, SASS, ELF)


def test_names_are_short():
    name = "void dgs::cuda::(anonymous namespace)::count<(int)2, dgs::cuda::Step>(dgs::Tables<T>, int)"
    assert cuobjdump.short(name) == "count<2, Step>"


@pytest.fixture(scope="session")
def module() -> Path:
    """Return the compiled module; skip where there is none, or nothing to read it with."""
    built = Path(__file__).resolve().parents[2] / "dgs_ext" / "_cuda.abi3.so"
    if not built.exists():
        pytest.skip("no CUDA module was built (docs/building.md)")
    try:
        cuobjdump.tool()
    except cuobjdump.SassError as error:
        pytest.skip(str(error))
    return built


def test_the_module_that_was_built(module):
    """Every kernel for every architecture; see `python tests/cuda/sass.py`."""
    kernels = cuobjdump.dump(module)
    assert len({re.sub("<.*", "", kernel.name) for kernel in kernels}) > 5
    assert sass.check(kernels) == []

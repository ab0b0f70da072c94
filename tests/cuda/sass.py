# SPDX-License-Identifier: Apache-2.0
"""Check the machine code of the CUDA kernels, for every architecture in the module, without a GPU.

    python tests/cuda/sass.py [--markdown] [dgs_ext/_cuda.abi3.so]

reads what `cuobjdump` prints of the module (from the CUDA toolkit, or `pip install nvidia-cuda-cuobjdump
nvidia-cuda-nvdisasm`), prints a row per kernel and exits with 1 where a rule is broken. The rules, for every kernel:

- nothing spilled: no stack, no load from or store to local memory;
- no fused multiply-add, which would round once where the twins round twice; a product with exactly 0 or 1 is a move
  or a sum, and allowed;
- at least OCCUPANCY of an SM's threads fit, by registers and by shared memory.

And for the kernels of HOT, whose threads take GROUPS groups of four elements each, in straight-line code:

- for each group one 128-bit load of every float32 operand and one 128-bit store of every operand written: GROUPS
  times as many in the whole kernel, none of them in a loop (a range that a backward branch closes). Narrower
  accesses are the tables', single elements' where arrays are not aligned, 16-bit gradients', and the candidates'.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cuobjdump import Instruction, Kernel, SassError, dump

OCCUPANCY = 0.5


GROUPS = 4  # kItems in csrc/cuda/plan.h


@dataclass(frozen=True)
class Hot:
    """How many 128-bit loads and stores a kernel makes for a group of four elements: one per operand."""

    loads: int
    stores: int


# The kernels that read or write whole tensors, by name and template arguments. A step loads the gradient, the weights
# and its state; a difference both sides.
HOT = {
    "sweep<Values>": Hot(loads=1, stores=0),
    "sweep<Difference>": Hot(loads=2, stores=0),
    "sweep<VelocityStep>": Hot(loads=3, stores=1),
    "sweep<DgcStep>": Hot(loads=4, stores=2),
    "step_dense_tiles": Hot(loads=2, stores=1),
    "add_dense": Hot(loads=2, stores=1),
    "find_dense_overflow": Hot(loads=2, stores=0),
}


@dataclass(frozen=True)
class Machine:
    """Limits of one SM: threads, blocks, bytes of shared memory.

    `reserved`: bytes that each block costs besides; from 9.0 on cuobjdump counts them already.
    """

    threads: int
    blocks: int
    shared: int
    reserved: int = 0


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". Registers are 65536 everywhere.
MACHINES = {
    "sm_70": Machine(2048, 32, 96 << 10),
    "sm_75": Machine(1024, 16, 64 << 10),
    "sm_80": Machine(2048, 32, 164 << 10, 1024),
    "sm_86": Machine(1536, 16, 100 << 10, 1024),
    "sm_87": Machine(1536, 16, 164 << 10, 1024),
    "sm_89": Machine(1536, 24, 100 << 10, 1024),
    "sm_90": Machine(2048, 32, 228 << 10),
    "sm_100": Machine(2048, 32, 228 << 10),
    "sm_103": Machine(2048, 32, 228 << 10),
    "sm_110": Machine(1536, 24, 228 << 10),
    "sm_120": Machine(1536, 24, 100 << 10),
    "sm_121": Machine(1536, 24, 100 << 10),
}


def occupancy(kernel: Kernel) -> float:
    """Return the part of an SM's threads that can be resident."""
    machine = MACHINES[kernel.machine]
    by_registers = 65536 // (-(-kernel.registers // 8) * 8 * kernel.threads)
    by_shared = machine.shared // max(1, kernel.shared + machine.reserved)
    blocks = min(machine.threads // kernel.threads, machine.blocks, by_registers, by_shared)
    return blocks * kernel.threads / machine.threads


TARGET = re.compile(r"0x([0-9a-f]+)\s*$")


def loops(code: list[Instruction]) -> list[list[Instruction]]:
    """Return the loops: ranges that a backward branch closes. A branch to itself is padding."""
    found = []
    for instruction in code:
        target = TARGET.search(instruction.operands)
        if instruction.opcode.startswith("BRA") and target and int(target[1], 16) < instruction.address:
            found.append([i for i in code if int(target[1], 16) <= i.address <= instruction.address])
    return found


def accesses(code: list[Instruction]) -> Counter[str]:
    """Count global loads and stores by width, as "LDG.128"."""
    counts: Counter[str] = Counter()
    for instruction in code:
        parts = instruction.opcode.split(".")
        if parts[0] in ("LDG", "STG"):
            width = next((p for p in parts[1:] if p in ("U8", "S8", "U16", "S16", "64", "128", "256")), "32")
            counts[f"{parts[0]}.{width}"] += 1
    return counts


def fuses(instruction: Instruction) -> bool:
    """Say whether the instruction multiplies and adds with one rounding, and neither factor is 0 or 1."""
    if not re.match(r"(FFMA|HFMA|DFMA|BFMA)", instruction.opcode):
        return False
    factors = [operand.strip() for operand in instruction.operands.split(",")][1:3]
    return not any(re.fullmatch(r"-?(RZ|URZ|0|1|1\.0)(\.H\d_H\d)?", factor) for factor in factors)


def hot_violations(kernel: Kernel, hot: Hot) -> Iterator[str]:
    """Yield where a hot kernel does not take each group of each operand once."""
    counts = accesses(kernel.code)
    for access, number in (("LDG.128", hot.loads), ("STG.128", hot.stores)):
        if counts[access] != GROUPS * number:
            yield f"{counts[access]} {access}, wanted {GROUPS} x {number}"
    for loop in loops(kernel.code):
        repeated = accesses(loop)
        if repeated["LDG.128"] or repeated["STG.128"]:
            yield "a loop with 128-bit accesses"


def violations(kernel: Kernel) -> Iterator[str]:
    """Yield every rule that a kernel breaks."""
    if kernel.stack:
        yield f"stack of {kernel.stack} bytes"
    local = [i.opcode for i in kernel.code if i.opcode.split(".")[0] in ("LDL", "STL")]
    if local:
        yield f"{len(local)} accesses to local memory"
    fused = [i for i in kernel.code if fuses(i)]
    if fused:
        yield f"{len(fused)} fused multiply-adds, the first: {fused[0].opcode} {fused[0].operands}"
    if kernel.threads == 0:
        yield "no __launch_bounds__"
    elif kernel.machine not in MACHINES:
        yield f"{kernel.machine} is not in the table MACHINES"
    elif occupancy(kernel) < OCCUPANCY:
        yield f"occupancy {occupancy(kernel):.0%}, wanted {OCCUPANCY:.0%}"
    if kernel.name in HOT:
        yield from hot_violations(kernel, HOT[kernel.name])


def rows(kernels: list[Kernel]) -> Iterator[list[str]]:
    """Yield a heading and a row per kernel, its architectures' figures side by side."""
    by_name = defaultdict(list)
    for kernel in kernels:
        by_name[kernel.name].append(kernel)
    machines = sorted({k.machine for k in kernels}, key=lambda m: int(m[3:].rstrip("af")))
    yield [
        "kernel",
        "registers " + " ".join(m[3:] for m in machines),
        "shared",
        "occupancy",
        "128-bit",
        "verdict",
    ]
    for name in sorted(by_name, key=lambda n: (n not in HOT, n)):
        same = sorted(by_name[name], key=lambda k: machines.index(k.machine))
        counts = [accesses(k.code) for k in same]
        vector = {f"{c['LDG.128']}/{c['STG.128']}" for c in counts}
        broken = defaultdict(list)
        for kernel in same:
            for violation in violations(kernel):
                broken[violation].append(kernel.machine[3:])
        fits = min((occupancy(k) for k in same if k.threads and k.machine in MACHINES), default=0.0)
        yield [
            f"`{name}`" + (" hot" if name in HOT else ""),
            " ".join(str(k.registers) for k in same),
            str(max(k.shared for k in same)),
            f"{fits:.0%}",
            " ".join(sorted(vector)),
            "; ".join(f"{what} ({' '.join(on)})" for what, on in broken.items()) or "ok",
        ]


def check(kernels: list[Kernel]) -> list[str]:
    """Return every broken rule as a line, a hot kernel that is missing among them."""
    lines = [f"{k.name} on {k.machine}: {v}" for k in kernels for v in violations(k)]
    for machine in sorted({k.machine for k in kernels}):
        there = {k.name for k in kernels if k.machine == machine}
        lines += [f"{name} on {machine}: not in the module" for name in HOT if name not in there]
    return lines


def main() -> int:
    """Print the table and what is wrong; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    built = Path(__file__).resolve().parents[2] / "dgs_ext" / "_cuda.abi3.so"
    parser.add_argument("module", nargs="?", type=Path, default=built)
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/kernels.md has it")
    arguments = parser.parse_args()
    try:
        kernels = dump(arguments.module)
    except SassError as error:
        print(f"sass.py: {error}", file=sys.stderr)
        return 2
    table = list(rows(kernels))
    if arguments.markdown:
        table.insert(1, ["---"] * len(table[0]))
        print("\n".join("| " + " | ".join(row) + " |" for row in table))
    else:
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        for row in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    broken = check(kernels)
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

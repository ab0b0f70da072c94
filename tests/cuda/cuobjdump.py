# SPDX-License-Identifier: Apache-2.0
"""What `cuobjdump` prints of a compiled module, read: its kernels, what each needs, and its instructions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction: its address, opcode with modifiers, and operands as printed."""

    address: int
    opcode: str
    operands: str


@dataclass
class Kernel:
    """One kernel for one architecture: what it needs, and its code."""

    name: str
    machine: str
    registers: int = 0
    stack: int = 0
    shared: int = 0
    threads: int = 0
    code: list[Instruction] = field(default_factory=list)


class SassError(Exception):
    """The module cannot be checked: no tool, no code, or output that is not understood."""


INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?)\s*;", re.M)


def sections(text: str, heading: str) -> Iterator[tuple[str, str, str]]:
    """Yield (architecture, function, text) for each line "heading name" of cuobjdump's output."""
    for part in re.split(r"^Fatbin elf code:$", text, flags=re.M)[1:]:
        machine = re.search(r"^arch = (\w+)$", part, re.M)
        if machine is None:
            raise SassError(f"cuobjdump names no architecture in: {part[:200]!r}")
        pieces = re.split(rf"^\s*{heading}\s*(\S+?):?$", part, flags=re.M)
        for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
            yield machine[1], name, body


def parse(usage: str, sass: str, elf: str) -> list[Kernel]:
    """Read cuobjdump's -res-usage, -sass and -elf; names are still mangled."""
    kernels: dict[tuple[str, str], Kernel] = {}
    for machine, name, body in sections(usage, "Function"):
        found = dict(re.findall(r"\b(REG|STACK|SHARED):(\d+)", body))
        if found.keys() != {"REG", "STACK", "SHARED"}:
            raise SassError(f"cuobjdump -res-usage says of {name}: {body[:200]!r}")
        kernels[machine, name] = Kernel(
            name, machine, int(found["REG"]), int(found["STACK"]), int(found["SHARED"])
        )
    for machine, name, body in sections(sass, "Function :"):
        code = [Instruction(int(a, 16), op, operands) for a, op, operands in INSTRUCTION.findall(body)]
        if (machine, name) not in kernels or not code:
            raise SassError(f"cuobjdump -sass has no code, or -res-usage no line, for {name} on {machine}")
        kernels[machine, name].code = code
    for machine, name, body in sections(elf, r"\.nv\.info\."):
        threads = re.search(
            r"EIATTR_MAX_THREADS\s+Format:\s+EIFMT_SVAL\s+Value:((?:\s+0x[0-9a-f]+){3})", body
        )
        if threads and (machine, name) in kernels:
            x, y, z = (int(n, 16) for n in threads[1].split())
            kernels[machine, name].threads = x * y * z
    if not kernels:
        raise SassError("the module holds no kernel")
    return list(kernels.values())


def tool() -> Path:
    """Return cuobjdump: from CUDA_HOME, the PATH, or the package of that name."""
    folders = [Path(os.environ["CUDA_HOME"], "bin")] if "CUDA_HOME" in os.environ else []
    folders += [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += [Path("/usr/local/cuda/bin"), *(b for p in sys.path for b in Path(p, "nvidia").glob("*/bin"))]
    for folder in folders:
        if os.access(folder / "cuobjdump", os.X_OK):
            return folder / "cuobjdump"
    raise SassError(
        "cuobjdump is not in CUDA_HOME/bin, on the PATH or in this Python's packages; "
        "install it: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
    )


def demangled(names: list[str]) -> list[str]:
    """Return C++ names without namespaces, return type and parameters: "count_digits<0, DgcStep>"."""
    command = next((c for c in ("cu++filt", "c++filt") if shutil.which(c)), None)
    if command is None:
        raise SassError("neither cu++filt nor c++filt is on the PATH; install binutils")
    text = subprocess.run(
        [command], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout
    return [short(line) for line in text.splitlines()]


def short(name: str) -> str:
    """Drop namespaces, return type and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|\b\w+::", "", name).removeprefix("void ")
    return re.sub(r"\([A-Za-z_]+\)(?=-?\d)", "", name).partition("(")[0].strip()


def dump(module: Path) -> list[Kernel]:
    """Return the kernels of a compiled module."""
    program = tool()
    environment = os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    texts = []
    for option in ("-res-usage", "-sass", "-elf"):
        done = subprocess.run(
            [program, option, module], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode != 0:
            raise SassError(f"cuobjdump {option} {module} failed: {done.stderr.strip() or done.stdout[:200]}")
        texts.append(done.stdout)
    kernels = parse(*texts)
    for kernel, name in zip(kernels, demangled([k.name for k in kernels]), strict=True):
        kernel.name = name
    return kernels

"""The generated side of the header is current, and is what a C compiler makes of it."""

import ctypes
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from xqkv import _abi

PYTHON = Path(__file__).parents[1]
STRUCTS = {
    name: kind
    for name, kind in inspect.getmembers(_abi, inspect.isclass)
    if issubclass(kind, ctypes.Structure) and kind is not ctypes.Structure
}


def test_the_generated_file_is_current() -> None:
    assert subprocess.run([sys.executable, PYTHON / "generate.py", "--check"]).returncode == 0


def test_every_function_of_the_committed_list_has_a_prototype() -> None:
    listed = (PYTHON.parents[1] / "ctests" / "symbols.txt").read_text().split()
    assert sorted(_abi.PROTOTYPES) == listed


def test_sizes_and_offsets_are_the_c_compilers(tmp_path: Path) -> None:
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        pytest.skip("no C compiler")
    lines = []
    for name, kind in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        lines += [f'printf("{name}.{field[0]} %zu\\n", offsetof({name}, {field[0]}));' for field in kind._fields_]
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    source.write_text("#include <stdio.h>\n#include <xqkv.h>\nint main(void) {" + "\n".join(lines) + "}\n")
    subprocess.run([compiler, f"-I{PYTHON.parents[1] / 'include'}", source, "-o", program], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split("\n")
    compiled = dict(line.split() for line in printed if line)
    assert len(STRUCTS) == 19
    for name, kind in STRUCTS.items():
        assert int(compiled[name]) == ctypes.sizeof(kind)
        for field in kind._fields_:
            assert int(compiled[f"{name}.{field[0]}"]) == getattr(kind, field[0]).offset

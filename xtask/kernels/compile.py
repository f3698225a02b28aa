"""Compiles a source for the device with NVIDIA's runtime compiler, which needs neither nvcc nor
headers, and prints the PTX. Asks ptxas whether every architecture that it knows takes it."""

import ctypes
import pathlib
import subprocess
import sys
import sysconfig
import tempfile

PACKAGES = pathlib.Path(sysconfig.get_path("platlib")) / "nvidia"

# A product that is added must be rounded first: that is what the simulated kernels do, and what
# makes the results of all devices alike. The language of 2011 leaves most of NVIDIA's own
# declarations out of the text.
OPTIONS = [b"--gpu-architecture=compute_70", b"--fmad=false", b"--std=c++11"]

ARCHITECTURES = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90"]


class Compiler:
    """libnvrtc with one program."""

    def __init__(self, source):
        self.library = ctypes.CDLL(str(PACKAGES / "cuda_nvrtc/lib/libnvrtc.so.12"))
        self.program = ctypes.c_void_p()
        name = source.name.encode()
        text = source.read_bytes()
        self.call("nvrtcCreateProgram", ctypes.byref(self.program), text, name, 0, None, None)

    def call(self, function, *arguments):
        status = getattr(self.library, function)(*arguments)
        if status:
            sys.exit(f"{function} answered {status}\n{self.text('nvrtcGetProgramLog')}")

    def text(self, function):
        size = ctypes.c_size_t()
        getattr(self.library, function + "Size")(self.program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.library, function)(self.program, text)
        return text.value.decode()

    def ptx(self):
        options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
        self.call("nvrtcCompileProgram", self.program, len(OPTIONS), options)
        return self.text("nvrtcGetPTX")


def assemble(ptx):
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "text.ptx"
        text.write_text(ptx)
        for architecture in ARCHITECTURES:
            ptxas = [PACKAGES / "cuda_nvcc/bin/ptxas", f"-arch={architecture}", text]
            subprocess.run([*ptxas, "-o", text.with_suffix(".cubin")], check=True)


ptx = Compiler(pathlib.Path(sys.argv[1])).ptx()
assemble(ptx)
print(ptx, end="")

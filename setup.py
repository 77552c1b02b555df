"""Builds the package's three binaries with CMake; everything else about the package is in pyproject.toml.

From the environment: ``CMAKE_ARGS`` is handed on to CMake, ``CMAKE_BUILD_PARALLEL_LEVEL`` limits the jobs, and
``SQUEEZEBERT_BUILD_DIR`` is where CMake builds (setuptools' own temporary folder otherwise). What is there is used
again, so only what changed is compiled.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE = "squeezebert_kernels"


class CMakeBuild(build_ext):
    """Configures, builds, and installs CMake's component `python` into the package.

    For an editable or in-place build that is the package in the source tree, for a wheel the one in build_lib.
    """

    def run(self) -> None:
        # cmake and ninja may be beside a Python that is called by its path, without `activate`.
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        build = Path(os.environ.get("SQUEEZEBERT_BUILD_DIR") or self.build_temp).resolve()
        ninja = shutil.which("ninja")
        generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
        definitions = {
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "Python_EXECUTABLE": sys.executable,
            "SQUEEZEBERT_BUILD_PYTHON": "ON",
            "SQUEEZEBERT_BUILD_TORCH": "ON",
        }
        arguments = [f"-D{name}={value}" for name, value in definitions.items()]
        arguments += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(self.parallel or os.cpu_count() or 1)
        cmake("-S", ROOT, "-B", build, *generator, *arguments)
        cmake("--build", build, "--parallel", jobs)
        cmake("--install", build, "--component", "python", "--prefix", self.package_folder())

    def package_folder(self) -> Path:
        return ROOT / PACKAGE if self.inplace or self.editable_mode else Path(self.build_lib).resolve() / PACKAGE

    def get_outputs(self) -> list[str]:
        return [str(path) for path in sorted(self.package_folder().glob("*.so"))]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def cmake(*arguments: str | Path) -> None:
    command = ["cmake", *map(str, arguments)]
    print("+", shlex.join(command), flush=True)
    subprocess.run(command, check=True)


# The extension makes the wheel a platform wheel; CMake, not setuptools, knows its sources.
setup(ext_modules=[Extension(f"{PACKAGE}._native", sources=[])], cmdclass={"build_ext": CMakeBuild})

"""What is installed: what the libraries need and export, what importing brings in, and what an unbuilt tree says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import squeezebert_kernels

PACKAGE = Path(squeezebert_kernels.__file__).parent
SOURCE = Path(__file__).parent.parent
CORE = PACKAGE / "libsqueezebert.so"
OPERATORS = PACKAGE / "libsqueezebert_torch.so"

needs_binutils = pytest.mark.skipif(
    not (shutil.which("readelf") and shutil.which("nm")), reason="reads the libraries with readelf and nm"
)


def python_path(*first: Path) -> str:
    return os.pathsep.join([*map(str, first), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)


def python(code: str, *, path: Path | None = None, cwd: Path | None = None) -> str:
    """The output of a fresh interpreter; `path` comes first on its PYTHONPATH."""
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = python_path(path)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def dynamic_section(library: Path, kind: str) -> set[str]:
    lines = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line[line.index("[") + 1 : line.rindex("]")] for line in lines if f"({kind})" in line}


def exported(library: Path) -> set[str]:
    command = ["nm", "-D", "--defined-only", "--format=posix", library]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0] for line in lines}


@needs_binutils
def test_the_core_needs_no_python_no_torch_no_openmp() -> None:
    needed = {name.split(".so")[0] for name in dynamic_section(CORE, "NEEDED")}
    assert needed <= {"libc", "libm", "libstdc++", "libgcc_s", "ld-linux-x86-64", "ld-linux-aarch64"}


@needs_binutils
def test_the_core_exports_the_c_api_and_nothing_else() -> None:
    header = (SOURCE / "csrc" / "include" / "squeezebert.h").read_text()
    names = exported(CORE)
    assert names
    for name in names:
        assert f" {name}(" in header or f"*{name}(" in header, name


@needs_binutils
def test_the_operators_need_libtorch_but_not_its_python_half() -> None:
    needed = dynamic_section(OPERATORS, "NEEDED")
    assert {"libsqueezebert.so", "libtorch_cpu.so"} <= needed
    assert not {"libtorch_python.so", "libc10.so", "libgomp.so.1"} & needed
    assert dynamic_section(OPERATORS, "RUNPATH") == {"$ORIGIN"}


@needs_binutils
def test_the_operators_use_only_the_stable_abi() -> None:
    command = ["nm", "-D", "--undefined-only", "--format=posix", OPERATORS]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    mangled = [line.split()[0] for line in lines if "at6Tensor" in line or "3c10" in line or "5torch" in line]
    assert mangled == []


@pytest.mark.parametrize(
    ("before", "module"),
    [("os", "squeezebert_kernels"), ("numpy", "squeezebert_kernels.numpy"), ("torch", "squeezebert_kernels.ops")],
)
def test_import_brings_in_nothing_else(before: str, module: str) -> None:
    """What was installed beside Python is imported where it is needed: NumPy by the arrays, torch by the operators."""
    code = (
        f"import sys, {before}; installed = lambda: {{name.split('.')[0] for name in sys.modules}} "
        "- sys.stdlib_module_names\n"
        f"before = installed(); import {module}; print(*sorted(installed() - before))"
    )
    assert python(code, path=PACKAGE.parent) == "squeezebert_kernels"


def test_the_numpy_functions_need_no_torch() -> None:
    tests = SOURCE / "tests"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", "-p", "without_torch"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = python_path(PACKAGE.parent, tests)
    done = subprocess.run(
        [*command, tests / "test_native.py"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_exists() -> None:
    for name in squeezebert_kernels.__all__:
        assert getattr(squeezebert_kernels, name) is not None
    assert set(squeezebert_kernels.__all__) <= set(dir(squeezebert_kernels))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = squeezebert_kernels.nothing


@pytest.mark.parametrize(
    ("module", "library"), [("ops", "libsqueezebert_torch.so"), ("numpy", "squeezebert_kernels._native")]
)
def test_an_unbuilt_tree_says_how_to_build(tmp_path: Path, module: str, library: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    # An editable installation's finder knows a built tree, and would look for the module there.
    code = (
        "import sys\nsys.meta_path = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]\n"
        f"try: import squeezebert_kernels.{module}\nexcept ImportError as error: print(error)"
    )
    message = python(code, path=tmp_path, cwd=tmp_path)
    assert f"{library} is missing" in message
    assert "pip install --no-build-isolation -e ." in message


def test_pip_install_puts_everything_in_place(tmp_path: Path) -> None:
    if not list((SOURCE / "build").glob("*/CMakeCache.txt")):
        pytest.skip("would compile everything: nothing has been built in this tree")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", target, SOURCE]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = (
        "import importlib.util, squeezebert_kernels as s; from squeezebert_kernels import numpy; "
        "print(s.__file__, importlib.util.find_spec('python_ref'), numpy.version())"
    )
    package, reference, version = python(code, path=target, cwd=tmp_path).split()
    assert Path(package).is_relative_to(target)
    assert reference == "None"
    assert version == squeezebert_kernels.__version__
    for name in ("py.typed", "_native.pyi", *(file.name for file in PACKAGE.glob("data/*"))):
        assert list((target / PACKAGE.name).rglob(name)), name

"""The core library in C projects: installed, moved and found by pkg-config or CMake, or built as a part of them.

The program is tests/cpp/c_api.c. All is compiled without optimization, which takes a tenth of the time.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import squeezebert_kernels

SOURCE = Path(__file__).parent.parent
PROJECTS = Path(__file__).parent / "core_package"
CHECKS = Path(__file__).parent / "cpp"
MAIN = CHECKS / "c_api.c"
# cmake and ninja may be beside a Python that is called by its path.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("cmake", path=PATH), reason="builds the core with CMake"),
    pytest.mark.skipif(not (SOURCE / "CMakeLists.txt").exists(), reason="the core's sources are not here"),
]


def run(*command: str | Path, cwd: Path | None = None, **environment: str | Path) -> str:
    """The command's output; fails with all that it said."""
    variables = {**os.environ, "PATH": PATH, **{name: str(value) for name, value in environment.items()}}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def build(source: Path, folder: Path, **definitions: str | Path) -> Path:
    """Configures and builds `source` in `folder`; what is there is used again."""
    unoptimized = "<CMAKE_CXX_COMPILER> <DEFINES> <INCLUDES> <FLAGS> -O0 -o <OBJECT> -c <SOURCE>"
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=PATH) else []
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    run("cmake", "-S", source, "-B", folder, *generator, f"-DCMAKE_CXX_COMPILE_OBJECT={unoptimized}", *options)
    run("cmake", "--build", folder, "--parallel", str(os.cpu_count()))
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the shared library, with its install rules."""
    return build(SOURCE, tmp_path_factory.mktemp("core"))


@pytest.fixture(scope="module")
def installed(core: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Prefixes of the shared and of the static library, both moved after they were installed."""
    folder = tmp_path_factory.mktemp("installed")
    prefixes = {}
    for kind in ("shared", "static"):
        build(SOURCE, core, BUILD_SHARED_LIBS="ON" if kind == "shared" else "OFF")
        run("cmake", "--install", core, "--prefix", folder / "before" / kind)
        prefixes[kind] = folder / "after" / kind
    (folder / "before").rename(folder / "after")
    return prefixes


def pkg_config(packages: Path, *options: str) -> list[str]:
    """What pkg-config prints for --cflags --libs; as far as our file goes where there is no pkg-config."""
    if shutil.which("pkg-config"):
        command = ["pkg-config", *options, "--cflags", "--libs", "squeezebert"]
        return shlex.split(run(*command, PKG_CONFIG_PATH=packages))
    lines = (packages / "squeezebert.pc").read_text().splitlines()
    values = dict(re.match(r"([\w.]+)(?:=|: )(.*)", line).groups() for line in lines if line) | {"pcfiledir": packages}
    text = " ".join([values["Cflags"], values["Libs"], values["Libs.private"] if "--static" in options else ""])
    while "${" in text:
        text = re.sub(r"\$\{(\w+)\}", lambda name: str(values[name[1]]), text)
    return shlex.split(text)


@pytest.mark.parametrize(("kind", "options"), [("shared", []), ("static", ["--static"]), ("static", [])])
def test_pkg_config_in_a_moved_prefix(
    installed: dict[str, Path], tmp_path: Path, kind: str, options: list[str]
) -> None:
    libraries = installed[kind] / "lib"
    shutil.copy(MAIN, tmp_path / "main.c")
    shutil.copy(CHECKS / "check.h", tmp_path)
    run("cc", "main.c", *pkg_config(libraries / "pkgconfig", *options), cwd=tmp_path)
    run(tmp_path / "a.out", LD_LIBRARY_PATH=libraries)


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_find_package_in_a_project_without_cxx(installed: dict[str, Path], tmp_path: Path, kind: str) -> None:
    build(PROJECTS / "installed", tmp_path, CMAKE_PREFIX_PATH=installed[kind], MAIN=MAIN, CHECKS=CHECKS)
    run(tmp_path / "main")


def test_pkg_config_with_absolute_folders(core: Path, tmp_path: Path) -> None:
    folders = {"CMAKE_INSTALL_LIBDIR": tmp_path / "libraries", "CMAKE_INSTALL_INCLUDEDIR": tmp_path / "headers"}
    build(SOURCE, core, CMAKE_INSTALL_PREFIX=tmp_path / "prefix", **folders)
    run("cmake", "--install", core)
    flags = pkg_config(tmp_path / "libraries" / "pkgconfig")
    assert {f"-I{tmp_path}/headers", f"-L{tmp_path}/libraries"} < set(flags)


def test_the_shared_library_is_versioned(installed: dict[str, Path]) -> None:
    version = squeezebert_kernels.__version__
    major_minor = version.rpartition(".")[0]
    names = {f"lib/libsqueezebert.so{suffix}" for suffix in ("", f".{major_minor}", f".{version}")}
    assert names == {name for name in files(installed["shared"]) if name.startswith("lib/libsqueezebert.")}
    assert (installed["shared"] / f"lib/libsqueezebert.so.{major_minor}").resolve().name == Path(max(names)).name


def test_a_project_that_builds_the_library_stays_its_own(tmp_path: Path) -> None:
    """Static at first, which is CMake's default, then shared, because the project says so; installed when asked."""

    def embed(how: str, **options: str) -> set[str]:
        definitions = {"SQUEEZEBERT": SOURCE, "HOW": how, "MAIN": MAIN, "CHECKS": CHECKS, **options}
        folder = build(PROJECTS / "embedded", tmp_path / "build", **definitions)
        run(folder / "main")
        run("cmake", "--install", folder, "--prefix", tmp_path / "prefix")
        return files(tmp_path / "prefix")

    own = {"bin/main", "plugins/libplugin.so"}
    assert embed("add_subdirectory") == own
    symbols = run("nm", "-D", "--defined-only", "--format=posix", tmp_path / "prefix/plugins/libplugin.so")
    exported = {name: kind for name, kind, *_ in map(str.split, symbols.splitlines())}
    # Without optimization the standard library's inline variables come along: weak, and everybody's.
    assert [name for name, kind in exported.items() if kind not in "WVu" or "squeezebert" in name] == ["plugin_entry"]
    assert embed("FetchContent", BUILD_SHARED_LIBS="ON") == own
    assert "lib/pkgconfig/squeezebert.pc" in embed("FetchContent", SQUEEZEBERT_INSTALL="ON") - own

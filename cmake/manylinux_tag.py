"""manylinux_tag.py WHEEL: gives a wheel the oldest manylinux tag whose systems have all that its libraries need.

That follows from the versions of the symbols they take from the C and C++ libraries (PEP 600). Needs readelf, and the
package `wheel`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# (GLIBCXX_3.4.x, 2.y): systems with glibc 2.y have a libstdc++ of at least that version; as in auditwheel's policies.
LIBSTDCXX = ((19, 17), (22, 24), (24, 26), (28, 31), (29, 34), (30, 35), (33, 39))


def oldest_glibc(library: Path) -> int:
    """The y of the oldest glibc 2.y that `library` runs on, and that has a libstdc++ for it."""
    versions = subprocess.run(["readelf", "-VW", library], capture_output=True, text=True, check=True).stdout
    glibc = [int(minor) for minor in re.findall(r"Name: GLIBC_2\.(\d+)", versions)]
    for needed in re.findall(r"Name: GLIBCXX_3\.4\.(\d+)", versions):
        with_it = [minor for had, minor in LIBSTDCXX if had >= int(needed)]
        if not with_it:
            raise SystemExit(f"{library.name} needs GLIBCXX_3.4.{needed}, and LIBSTDCXX above has no system with that")
        glibc.append(with_it[0])
    return max(glibc)


def main() -> None:
    wheel = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        libraries = [archive.extract(name, folder) for name in archive.namelist() if name.endswith(".so")]
        oldest = max(oldest_glibc(Path(library)) for library in libraries)
    machine = re.sub(r".*linux_", "", wheel.stem)
    tag = f"manylinux_2_{oldest}_{machine}"
    subprocess.run([sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, wheel], check=True)


if __name__ == "__main__":
    main()

"""Let a torch that was built for CUDA load without CUDA's libraries, for tests on a CPU.

``python scripts/hollow_cuda.py SITE_PACKAGES``, after ``pip install --no-deps torch==...``. The
wheels of the package index need two to three gigabytes of libraries that a machine without a GPU
never calls. Here every library that is missing is replaced by one whose functions answer "no
device", and the wheel's metadata no longer asks for the real ones. For throw-away environments on
Linux; needs a C compiler, ``nm`` and ``readelf``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

NO_DEVICE = 100
"""``cudaErrorNoDevice``, the answer of every function."""

VENDOR = re.compile(r"lib(cu|nv|nccl|cudnn)\w*\.so")
"""Names of the libraries that NVIDIA's packages bring."""

_ASKED = re.compile(r"^Requires-Dist: (nvidia|cuda|triton)\b.*\n", re.MULTILINE | re.IGNORECASE)


def read_tool(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def find_symbols(libraries: list[Path]) -> tuple[dict[str, set[str]], set[str]]:
    """By version: functions that torch calls in libraries that it does not hold; all such."""
    versioned: dict[str, set[str]] = defaultdict(set)
    plain: set[str] = set()
    for library in libraries:
        for line in read_tool("nm", "-D", "--undefined-only", str(library)).splitlines():
            name, _, version = line.split()[-1].partition("@")
            if version:
                versioned[version].add(name)
            else:
                plain.add(name)
    return versioned, plain


def find_versions(libraries: list[Path]) -> dict[str, set[str]]:
    """By file name of a needed library: versions of its interface that torch asks for."""
    versions: dict[str, set[str]] = defaultdict(set)
    for library in libraries:
        current = ""
        for line in read_tool("readelf", "-V", "-W", str(library)).splitlines():
            file, version = re.search(r"File: (\S+)", line), re.search(r"Name: (\S+)", line)
            current = file[1] if file else current
            if version and current:
                versions[current].add(version[1])
    return versions


def is_of(name: str, library: str) -> bool:
    """Whether a function without a version belongs to a library, by its prefix."""
    stem = library.removeprefix("lib").split(".so")[0].lower()
    prefixes = {"cudart": ("cuda", "__cuda"), "cuda": ("cu",), "nvtoolsext": ("nvtx",)}
    return name.lower().startswith(prefixes.get(stem, (stem.split("-")[0],)))


def write_library(target: Path, functions: set[str], versions: set[str]) -> None:
    """Compile one library of functions that all say that there is no device."""
    source, script = target.with_suffix(".c"), target.with_suffix(".map")
    lines = [f"int {name}(void) {{ return {NO_DEVICE}; }}" for name in sorted(functions)]
    source.write_text("\n".join(["int hollow;", *lines, ""]))
    script.write_text("".join(f"{version} {{ global: *; }};\n" for version in sorted(versions)))
    options = [f"-Wl,--version-script={script}"] if versions else []
    flags = ["-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{target.name}"]
    subprocess.run(["cc", *flags, *options, "-o", str(target), str(source)], check=True)
    source.unlink()
    script.unlink()


def hollow_out(site_packages: Path) -> list[str]:
    """Write what is missing beside torch's own libraries; answers the names."""
    home = site_packages / "torch" / "lib"
    libraries = [path for path in home.iterdir() if ".so" in path.name]
    needed: set[str] = set()
    for library in libraries:
        text = read_tool("readelf", "-d", "-W", str(library))
        needed |= set(re.findall(r"Shared library: \[(.*?)\]", text))
    present = {library.name for library in libraries}
    missing = sorted(needed_name for needed_name in needed - present if VENDOR.match(needed_name))
    versioned, plain = find_symbols(libraries)
    versions = find_versions(libraries)
    for name in missing:
        functions = {symbol for version in versions[name] for symbol in versioned[version]}
        functions |= {symbol for symbol in plain if is_of(symbol, name)}
        write_library(home / name, functions, versions[name])
    for metadata in site_packages.glob("torch-*.dist-info/METADATA"):
        metadata.write_text(_ASKED.sub("", metadata.read_text()))
    return missing


if __name__ == "__main__":
    print(*hollow_out(Path(sys.argv[1])), sep="\n")

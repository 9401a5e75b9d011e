#!/usr/bin/env python3
"""Tries the wheel where nothing is installed: in fresh Debians, made by debootstrap, without a container engine.

usage: try_in_chroot.py {bare,container,apptainer} WHEEL SLIDE      (as root; `make chroot-test` calls it)

  bare       python3 and pip alone: install the wheel, run the slide, read its table in pandas
  container  each COPY, RUN, ENV and ARG line of packaging/Containerfile
  apptainer  %files, %post, %environment and %test of packaging/wsi-nuclei.def

torch comes from PyPI, since the index of CPU builds cannot be reached everywhere. WHEELS names a folder of wheels that pip
takes in place of an index (`pip download -d WHEELS 'torch==2.11.*' openslide-bin pandas pyarrow pillow tqdm`). Prints what
each step took, what the folders weigh and what ldd finds.
"""

import glob
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target/chroot"
INDEX = os.environ.get("TORCH_INDEX", "https://pypi.org/simple")
WHEELS = os.environ.get("WHEELS")
READ_TABLE = (
    "import wsi_nuclei as wn; r = wn.read('/tmp/out/slide'); print(r); print(r.table[['type_name', 'area_um2']].head(3));"
    "assert len(r.table) == r.summary['nuclei']['count'] > 100"
)


def main() -> None:
    if len(sys.argv) != 4 or os.getuid() != 0:
        sys.exit(__doc__)
    what, wheel, slide = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()
    if not os.environ.get("IN_OWN_MOUNTS"):
        # Mounts of our own: they go when this process ends, however it ends.
        os.environ["IN_OWN_MOUNTS"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    debian = Debian(what)
    if what == "bare":
        debian.copy([wheel], "tmp/")
        debian.run("python3 -m venv /opt/nuclei")
        debian.run("/opt/nuclei/bin/pip install --quiet /tmp/*.whl")
        debian.variables["PATH"] = "/opt/nuclei/bin:" + debian.variables["PATH"]
    elif what == "container":
        containerfile(debian, wheel)
    else:
        apptainer(debian, wheel)
    debian.copy([slide], "tmp/slide" + slide.suffix)
    debian.run(f"wsi-nuclei run /tmp/slide{slide.suffix} -o /tmp/out --quiet; sha256sum /tmp/out/slide/nuclei.csv")
    python = "/opt/nuclei/bin/python" if what == "bare" else "/opt/wsi-nuclei/bin/python"
    debian.run(f'{python} -c "{READ_TABLE}"')
    debian.run(f"{python} -m pip list; du -sh {Path(python).parents[1]}")
    debian.run(f"ldd {Path(python).parents[1]}/lib/python3*/site-packages/wsi_nuclei/bin/wsi-nuclei")
    print(f"chroot: {what}: all steps passed")
    debian.remove()


class Debian:
    """A fresh copy of a bare Debian, and the environment of its commands."""

    def __init__(self, name: str) -> None:
        self.variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        self.variables |= {"LANG": "C.UTF-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "DEBIAN_FRONTEND": "noninteractive"}
        self.root = WORK / name
        base = WORK / "bookworm"
        if not (base / "ready").exists():
            shutil.rmtree(base, ignore_errors=True)
            packages = "ca-certificates,python3,python3-pip,python3-venv"
            step("debootstrap", ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", base])
            (base / "ready").touch()
        self.mounts: list[Path] = []
        self.remove()
        subprocess.run(["cp", "-a", base, self.root], check=True)
        self._mount(["-t", "proc", "proc"], self.root / "proc")
        self._take_from_host("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
        for variable, value in os.environ.items():
            if re.fullmatch(r"(?i)(https?|no|all)_proxy|PIP_(CERT|INDEX_URL|DEFAULT_TIMEOUT)|SSL_CERT_FILE", variable):
                self.variables[variable] = value
        if WHEELS:
            inside = self.root / "srv/wheels"
            inside.mkdir()
            self._mount(["--bind", "-o", "ro", WHEELS], inside)
            self.variables |= {"PIP_FIND_LINKS": "/srv/wheels", "PIP_NO_INDEX": "1"}

    def _mount(self, what: list[str], place: Path) -> None:
        subprocess.run(["mount", *what, place], check=True)
        self.mounts.append(place)

    def remove(self) -> None:
        """Never goes into what is mounted: that is not this script's."""
        for place in self.mounts:
            subprocess.run(["umount", place], check=True)
        subprocess.run(["rm", "-rf", "--one-file-system", self.root], check=True)

    def _take_from_host(self, *paths: str) -> None:
        """How this machine reaches its package index."""
        for path in filter(os.path.exists, paths):
            (self.root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, self.root / path[1:])

    def copy(self, sources: list[Path], place: str) -> None:
        for source in sources:
            shutil.copy(source, self.root / place)

    def run(self, command: str) -> None:
        step(command, ["chroot", self.root, "/bin/sh", "-ec", command], self.variables)


def step(name: str, command: list, variables: dict[str, str] | None = None) -> None:
    print(f"chroot: + {name}", flush=True)
    started, before = time.monotonic(), cpu_seconds()
    code = subprocess.run(list(map(str, command)), env=variables, stdin=subprocess.DEVNULL).returncode
    print(f"chroot: {time.monotonic() - started:.1f} s, of the CPU {cpu_seconds() - before:.1f} s", flush=True)
    if code != 0:
        sys.exit(f"chroot: error: exit code {code}: {name}")


def cpu_seconds() -> float:
    """Of all children that have ended: what is left of a time on a machine that is busy with other work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def containerfile(debian: Debian, wheel: Path) -> None:
    text = (ROOT / "packaging/Containerfile").read_text()
    for line in re.sub(r"\\\n", " ", text).splitlines():
        instruction, _, rest = line.partition(" ")
        name, _, value = rest.partition("=")
        if instruction in ("ARG", "ENV"):
            value = INDEX if name == "TORCH_INDEX" else value
            debian.variables[name] = value.replace("$PATH", debian.variables["PATH"])
        elif instruction == "COPY":
            source, place = rest.split()
            assert wheel in [Path(path) for path in glob.glob(str(ROOT / source))], f"{wheel} is not {source}"
            debian.copy([wheel], place.lstrip("/"))
        elif instruction == "RUN":
            debian.run(rest)
        elif line and instruction not in ("#", "FROM", "CMD"):
            sys.exit(f"chroot: error: packaging/Containerfile: {instruction} is not understood here")


def apptainer(debian: Debian, wheel: Path) -> None:
    text = (ROOT / "packaging/wsi-nuclei.def").read_text().replace("{{ torch_index }}", INDEX)
    sections = dict(re.findall(r"^%(\w+)\n((?:[ \t].*\n|\n)*)", text, re.M))
    source, place = sections["files"].split()
    assert wheel in [Path(path) for path in glob.glob(str(ROOT / source))], f"{wheel} is not {source}"
    debian.copy([wheel], place.lstrip("/"))
    debian.run(sections["post"])
    for name, value in re.findall(r"export (\w+)=(.*)", sections["environment"]):
        debian.variables[name] = value.replace("$PATH", debian.variables["PATH"])
    debian.run(sections["test"])


if __name__ == "__main__":
    main()

"""Where the program is, and what it needs to start.

In: what is installed. Out: a path, an environment, or an error that says what to install. Never imports torch, which
would take seconds: the program only loads its shared libraries.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = Path(__file__).parent
# Packages beside this one, and the folders in them where the program's rpath looks for shared libraries.
_LIBRARIES = {"torch": "lib", "openslide_bin": "."}


class ProgramError(RuntimeError):
    """What the program said, and the code with which it ended (1 some slides failed, 2 wrong use, 3 nothing could be
    done, 75 stopped)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def path() -> Path:
    """The program inside this package."""
    program = _PACKAGE / "bin" / "wsi-nuclei"
    if not program.is_file():
        raise ProgramError(
            f"{program} is missing: this is the source of the package, not its wheel; "
            "install the wheel (make wheel, then pip install dist/*.whl)",
            2,
        )
    return program


def environment() -> dict[str, str]:
    """This process's environment, with what the program needs to find libraries and models.

    Raises ProgramError if torch is missing or is another version than the program was built for.
    """
    _check_torch()
    variables = dict(os.environ)
    # The rpath finds packages that are installed beside this one; others (a torch of the system, say) are named.
    elsewhere = [str(folder) for name, inner in _LIBRARIES.items() if (folder := _elsewhere(name, inner))]
    _prepend(variables, "LD_LIBRARY_PATH", elsewhere)
    # Folders that the user named are looked into first.
    mine = variables.get("WSI_NUCLEI_MODELS")
    variables["WSI_NUCLEI_MODELS"] = os.pathsep.join(filter(None, [mine, str(_PACKAGE / "models")]))
    return variables


def _check_torch() -> None:
    wanted = _requirement("torch")
    try:
        found = metadata.version("torch")
    except metadata.PackageNotFoundError:
        raise ProgramError(f"torch is not installed: pip install 'torch=={wanted}'", 2) from None
    if not fnmatchcase(found.split("+")[0], wanted):
        raise ProgramError(
            f"torch {found} is installed, but this wsi-nuclei was built for torch {wanted}: "
            f"pip install 'torch=={wanted}', or install wsi-nuclei into an environment of its own "
            "(python3 -m venv nuclei && nuclei/bin/pip install wsi-nuclei)",
            2,
        )


def _requirement(package: str) -> str:
    """The version of `package` that this package's metadata ask for, as `2.11.*`."""
    for line in metadata.requires("wsi-nuclei") or []:
        name, equals, version = line.partition("==")
        if equals and name.strip() == package:
            return version.split(";")[0].strip()
    raise ProgramError(f"the metadata of wsi-nuclei do not name {package}: pip install --force-reinstall wsi-nuclei", 2)


def _elsewhere(package: str, inner: str) -> Path | None:
    """The folder of a package's libraries where it does not lie beside this package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ProgramError(f"{package} cannot be found: pip install --force-reinstall {package.replace('_', '-')}", 2)
    folder = Path(next(iter(spec.submodule_search_locations)))
    return None if folder == _PACKAGE.parent / package else folder / inner


def _prepend(variables: dict[str, str], name: str, folders: list[str]) -> None:
    if folders:
        variables[name] = os.pathsep.join([*folders, *filter(None, [variables.get(name)])])

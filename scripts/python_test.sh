#!/usr/bin/env bash
# Tests the Python package as it is installed: the wheel of dist/ in an environment of its own, with the packages that it
# hands results to. torch and openslide_bin are those of .deps/: linked, since pip would fetch CUDA with them (2.5 GB).
# usage: python_test.sh WHEEL SLIDE [PYTEST-OPTION…]      (`make python-test` gives them)
set -euo pipefail
cd "$(dirname "$0")/.."
wheel=$1 slide=$(realpath "$2")
shift 2
venv=target/python-test
[ -x $venv/bin/python ] || python3 -m venv $venv || { echo "python-test: cure: as root: apt-get install python3-venv" >&2; exit 1; }
site=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for package in .deps/python/{torch,openslide_bin}{,-*.dist-info}; do
    ln -sfn "$(realpath "$package")" "$site/$(basename "$package")"
done
pip="$venv/bin/python -m pip --disable-pip-version-check"
$pip install --quiet --no-deps --force-reinstall "$wheel"
# What the wheel asks for, in all its extras, but for what was linked.
$venv/bin/python - <<'PYTHON' | xargs -d '\n' $pip install --quiet
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement

for line in requires("wsi-nuclei"):
    wanted = Requirement(line)
    if wanted.name not in ("torch", "openslide-bin", "wsi-nuclei"):
        wanted.marker = None
        print(wanted)
PYTHON
(cd python && ../$venv/bin/mypy wsi_nuclei)
WSI_NUCLEI_DEMO_SLIDE=$slide $venv/bin/python -m pytest -q -p no:cacheprovider python/tests "$@"

#!/usr/bin/env python3
"""Runs what README.md and docs/ mark as runnable: fenced blocks that begin with ```sh runnable or ```python runnable.

usage: docs_test.py PYTHON SLIDE      (`make docs-test` calls it)

PYTHON is that of an environment with the wheel; its folder comes first on the PATH. The blocks of a page run one after
the other in an empty folder with `slide.svs`, each to its end and without an error.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(sh|python) runnable\n(.*?)^```", re.M | re.S)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    # Not resolved: an environment's python is a link, and its folder holds wsi-nuclei.
    python, slide = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).resolve()
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    pages = [ROOT / "README.md", ROOT / "python/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    ran = failed = 0
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "slide.svs").symlink_to(slide)
            for block in BLOCK.finditer(page.read_text()):
                line = page.read_text().count("\n", 0, block.start()) + 1
                print(f"docs: {page.relative_to(ROOT)}:{line}", flush=True)
                command = ["bash", "-euo", "pipefail", "-c"] if block[1] == "sh" else [python, "-c"]
                code = subprocess.run([*command, block[2]], cwd=folder, env=environment).returncode
                ran += 1
                if code != 0:
                    failed += 1
                    print(f"docs: error: {page.relative_to(ROOT)}:{line} ended with code {code}")
    print(f"docs: {ran - failed} passed, {failed} failed")
    sys.exit(failed > 0 or ran == 0)


if __name__ == "__main__":
    main()

"""``wsi-nuclei`` and ``python -m wsi_nuclei``: the program itself takes the place of this process."""

import os
import sys

from ._program import ProgramError, environment, path


def main() -> None:
    try:
        program, variables = path(), environment()
    except ProgramError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    os.execve(program, ["wsi-nuclei", *sys.argv[1:]], variables)


if __name__ == "__main__":
    main()

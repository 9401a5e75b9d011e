"""Runs the program on one slide and shows how far it is.

In: a slide and flags. Out: its Result, or a ProgramError with the program's own words. Never looks into the slide.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import IO, Any

from ._program import ProgramError, environment, path
from ._result import Result, read

_STOPPED = 75


def run(
    slide: str | os.PathLike[str],
    out: str | os.PathLike[str],
    mpp: float | None = None,
    *,
    progress: bool = True,
    **flags: object,
) -> Result:
    """Finds the nuclei of one slide: ``wsi-nuclei run SLIDE -o OUT``.

    ``mpp`` is the slide's µm per level-0 pixel where the file does not say it. ``flags`` are the flags of
    ``wsi-nuclei run --help`` with underscores: ``device="cpu"``, ``format=["parquet", "geojson"]``, ``restart=True``.
    ``progress`` shows a tqdm bar of the mm² that are done; warnings of the program become warnings of Python.

    Returns the result in ``out/<slide's name>``. What was done before is not done again. An interrupt (Ctrl-C, a
    notebook's stop button) stops the program, which keeps its checkpoint.

    Raises ProgramError with the program's message and exit code.
    """
    arguments = ["run", os.fspath(slide), "--output", os.fspath(out), "--progress", "json"]
    if mpp is not None:
        flags["mpp"] = mpp
    for name, value in flags.items():
        arguments += _flag(name, value)
    return _watch([os.fspath(path()), *arguments], Path(out), progress)


def _flag(name: str, value: object) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return [flag, str(value)]


def _watch(command: list[str], out: Path, progress: bool) -> Result:
    # A session of its own: a Ctrl-C at the terminal reaches this process alone, which hands it on once.
    with subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as child:
        assert child.stderr is not None
        try:
            stem, words = _follow(child.stderr, progress)
        except BaseException:
            child.send_signal(signal.SIGINT)
            # Its last words must have somewhere to go, or it would wait for a reader.
            child.stderr.read()
            raise
    code = child.returncode
    if code == 0 and stem is not None:
        return read(out / stem)
    raise ProgramError(words or f"wsi-nuclei ended with code {code}", code)


def _follow(lines: IO[str], progress: bool) -> tuple[str | None, str]:
    """Reads the program's events to their end. Returns the slide's name and what was said of an error or a stop."""
    import warnings

    from tqdm.auto import tqdm

    stem: str | None = None
    words: list[str] = []
    with tqdm(total=0.0, unit="mm²", disable=not progress, bar_format=_BAR) as bar:
        for line in lines:
            event = _event(line)
            kind, message = event.get("event"), event.get("message", "")
            stem = event.get("slide", stem)
            if kind == "planned":
                bar.total = round(event["mm2"], 3)
                bar.set_description(stem)
            elif kind == "stage":
                bar.set_postfix_str(event["stage"])
            elif kind == "warning":
                warnings.warn(message, stacklevel=4)
            elif kind in ("error", None):
                words.append(message)
            elif kind == "end":
                bar.set_postfix_str(message)
                words.append(message)
            if "mm2_done" in event:
                bar.n = round(min(event["mm2_done"], bar.total or 0.0), 3)
                bar.refresh()
    return stem, "\n".join(filter(None, words))


_BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.2f} of {total:.2f} mm² [{elapsed}<{remaining}] {postfix}"


def _event(line: str) -> dict[str, Any]:
    """An event of ``--progress json``; any other line is a message of the command line."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"message": line.rstrip().removeprefix("error: ")}

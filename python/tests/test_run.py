"""Running the program from Python and from the shell: flags, messages, exit codes, stops."""

import os
import signal
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path

import pytest
import wsi_nuclei as wn
from wsi_nuclei import _program

SCRIPT = Path(sys.executable).parent / "wsi-nuclei"


def test_the_command_on_the_path_is_the_program():
    for command in ([SCRIPT], [sys.executable, "-m", "wsi_nuclei"]):
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        assert said.startswith(f"wsi-nuclei {wn.__version__} ") or said.split()[1].strip(",") == wn.__version__
        assert metadata.version("torch").split("+")[0] in said


def test_the_programs_message_and_exit_code_are_raised(tmp_path):
    with pytest.raises(wn.ProgramError, match="no_such.svs") as failure:
        wn.run(tmp_path / "no_such.svs", tmp_path, progress=False)
    assert failure.value.exit_code in (2, 3)
    with pytest.raises(wn.ProgramError, match="--no-such-flag") as failure:
        wn.run(tmp_path / "slide.svs", tmp_path, no_such_flag=1)
    assert failure.value.exit_code == 2


def test_mpp_and_flags_reach_the_program(slide, tmp_path):
    result = wn.run(slide, tmp_path, mpp=0.5, model="analytic", format=["parquet"], geojson_frame="level0", progress=False)
    assert result.summary["mpp"] == [0.5, 0.5] and result.summary["mpp_from"] != "file"
    assert (result.folder / "nuclei.parquet").exists() and not (result.folder / "nuclei.csv").exists()


def test_a_bar_counts_mm2(slide, tmp_path, capsys):
    result = wn.run(slide, tmp_path, model="analytic", format=["parquet"])
    shown = capsys.readouterr().err
    planned = result.summary["area_mm2"]["planned"]
    assert f"{planned:.2f} of {planned:.2f} mm²" in shown and result.folder.name in shown


def test_an_interrupt_stops_the_program_and_the_same_call_goes_on(slide, tmp_path):
    """`analytic:MS` takes MS milliseconds per patch."""
    call = dict(model="analytic:800", tile_size=512, format=["parquet"], progress=False)
    threading.Timer(4, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        wn.run(slide, tmp_path, **call)
    assert not any(tmp_path.glob("*/nuclei.parquet"))
    started = time.monotonic()
    assert wn.run(slide, tmp_path, **call).summary["complete"]
    assert time.monotonic() - started < 60


def test_another_torch_is_refused_with_the_cure(monkeypatch):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.9.1+cu128" if name == "torch" else real(name))
    with pytest.raises(wn.ProgramError, match=r"torch 2\.9\.1\+cu128 is installed.*pip install 'torch==2\.11\.\*'"):
        _program.environment()


def test_no_torch_is_said(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(wn.ProgramError, match="torch is not installed"):
        _program.environment()


def test_a_cpu_build_of_the_right_torch_is_taken(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.11.1+cpu")
    assert "WSI_NUCLEI_MODELS" in _program.environment()


def test_a_foreign_libtorch_in_the_environment_is_not_loaded(tmp_path):
    """An empty library of that name would end the program at once."""
    (tmp_path / "libtorch_cpu.so").write_bytes(b"")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    subprocess.run([SCRIPT, "--version"], env=environment, check=True, capture_output=True)


def test_the_models_of_the_wheel_are_listed(tmp_path):
    said = subprocess.run([SCRIPT, "model", "list"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "default" in said
    for model in (Path(wn.__file__).parent / "models").glob("*/model.toml"):
        assert model.parent.name in said

"""The installed wheel on a real slide: `make python-test` installs it and names the slide in WSI_NUCLEI_DEMO_SLIDE."""

import os
from pathlib import Path

import pytest
import wsi_nuclei as wn


@pytest.fixture(scope="session")
def slide() -> Path:
    return Path(os.environ["WSI_NUCLEI_DEMO_SLIDE"])


@pytest.fixture(scope="session")
def result(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> wn.Result:
    """The demo slide by the analytic model, which takes seconds, with every file that the package reads."""
    out = tmp_path_factory.mktemp("out")
    formats = ["csv", "parquet", "geojson", "ome-zarr", "overlay"]
    return wn.run(slide, out, model="analytic", format=formats, progress=False)

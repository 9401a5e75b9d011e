"""What ``wsi-nuclei run`` wrote for one slide, as the objects that people analyse.

In: a slide's folder. Out: pandas, GeoPandas, dask, AnnData, SpatialData. Never writes, never measures.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import anndata
    import dask.array
    import geopandas
    import pandas as pd
    import spatialdata
    from PIL import Image

# Columns that say who, where and what; the others that are measured are features.
_NO_FEATURES = {"id", "x_px", "y_px", "x_um", "y_um", "min_x", "min_y", "max_x", "max_y", "type", "type_name"}
_NO_FEATURES |= {"type_prob", "type_entropy", "type_share"}


def read(folder: str | os.PathLike[str]) -> Result:
    """The result of one slide, ``OUT/<slide>``. Raises FileNotFoundError if the folder holds none."""
    place = Path(folder)
    if not (place / "summary.json").is_file():
        inside = sorted(path.parent.name for path in place.glob("*/summary.json"))
        hint = f"; read one of the slides inside: {', '.join(inside[:5])}" if inside else ""
        raise FileNotFoundError(f"{place} holds no summary.json, so it is not the folder of a finished slide{hint}")
    return Result(place)


class Result:
    """The files of one slide. Each is read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"<wsi_nuclei.Result {self.folder}: {self.summary['nuclei']['count']} nuclei>"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json: counts, areas, densities per mm², medians, warnings, the model."""
        return cast(dict[str, Any], json.loads(self._file("summary.json", "report").read_text(encoding="utf-8")))

    @cached_property
    def table(self) -> pd.DataFrame:
        """nuclei.parquet: one row per nucleus; docs/features.md has every column."""
        import pandas

        return pandas.read_parquet(self._file("nuclei.parquet", "parquet"))

    @cached_property
    def units(self) -> dict[str, str]:
        """The unit of each column that has one, as the table's metadata say it."""
        return cast(dict[str, str], self._provenance["units"])

    @property
    def thumbnail(self) -> Image.Image:
        """thumb.png."""
        from PIL import Image

        return Image.open(self._file("thumb.png", "overlay"))

    def geometries(self) -> geopandas.GeoDataFrame:
        """The table with each nucleus's outline, in level-0 px: the frame of ``x_px`` and ``y_px``.

        The file counts from the corner of the scanned region, as QuPath does, where the slide names one; here
        that corner is added again.
        """
        import geopandas

        outlines = self._outlines()
        # GeoJSON means degrees; these are pixels.
        outlines = outlines.set_crs(None, allow_override=True)
        if len(outlines):
            corner = self.table[["min_x", "min_y"]].min().to_numpy() - outlines.total_bounds[:2]
            outlines = outlines.translate(*corner.round())
        return geopandas.GeoDataFrame(self.table, geometry=outlines.to_numpy())

    def _outlines(self) -> geopandas.GeoSeries:
        import geopandas

        plain = self.folder / "nuclei.geojson"
        if plain.exists():
            return geopandas.read_file(plain).geometry
        with gzip.open(self._file("nuclei.geojson.gz", "geojson.gz")) as file:
            return geopandas.read_file(file).geometry

    def labels(self, level: int = 0, name: str = "nuclei") -> dask.array.Array:
        """A level of labels.ome.zarr, ``[y, x]``, read when computed: ``nuclei`` (ids of the table) or ``types``.

        Level 0 has the model's µm/px, each further one half of the pixels per side.
        """
        import dask.array

        from_zarr: Callable[..., dask.array.Array] = dask.array.from_zarr
        return from_zarr(str(self._labels(name)), component=str(level))

    def to_anndata(self) -> anndata.AnnData:
        """One observation per nucleus: features in ``X`` (missing ones NaN), all else in ``obs``, ``x_um`` and
        ``y_um`` in ``obsm["spatial"]``."""
        import anndata

        table = self.table.set_axis(self.table["id"].astype(str).rename(None))
        features = self._features()
        adata = anndata.AnnData(table[features].astype("float32"), obs=table.drop(columns=features))
        adata.obsm["spatial"] = table[["x_um", "y_um"]].to_numpy()
        adata.uns["wsi-nuclei"] = {"units": {name: self.units.get(name, "") for name in features}}
        return adata

    def to_spatialdata(self) -> spatialdata.SpatialData:
        """Outlines, table and, where labels.ome.zarr was written, label images, all in µm from the slide's corner."""
        import spatialdata
        from spatialdata.models import ShapesModel, TableModel
        from spatialdata.transformations import Scale

        micrometres = Scale(self._provenance["slide"]["level0_mpp"], axes=("x", "y"))
        outlines = self.geometries().set_index("id")[["geometry"]]
        shapes = ShapesModel.parse(outlines, transformations={"global": micrometres})
        adata = self.to_anndata()
        adata.obs["region"] = adata.obs["type_name"].map(lambda _: "nuclei").astype("category")
        table = TableModel.parse(adata, region="nuclei", region_key="region", instance_key="id")
        return spatialdata.SpatialData(
            shapes={"nuclei": shapes}, tables={"table": table}, labels=self._label_images() or None
        )

    def _label_images(self) -> dict[str, Any]:
        from spatialdata.models import Labels2DModel
        from spatialdata.transformations import Scale

        if not (self.folder / "labels.ome.zarr").is_dir():
            return {}
        images = {}
        for name in ("nuclei", "types"):
            attributes = json.loads((self._labels(name) / "zarr.json").read_text(encoding="utf-8"))["attributes"]
            steps = attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
            scale = next(step["scale"] for step in steps if step["type"] == "scale")
            transformations = {"global": Scale(scale, axes=("y", "x"))}
            images[f"{name}_labels"] = Labels2DModel.parse(
                self.labels(name=name), dims=("y", "x"), transformations=transformations
            )
        return images

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        import pyarrow.parquet

        metadata = pyarrow.parquet.read_metadata(self._file("nuclei.parquet", "parquet")).metadata
        return cast(dict[str, Any], json.loads(metadata[b"wsi-nuclei"]))

    def _features(self) -> list[str]:
        names = [str(name) for name in self.table]
        # What follows `slide` comes from the manifest.
        names = names[: names.index("slide")]
        return [name for name in names if name not in _NO_FEATURES and not name.startswith("prob_")]

    def _labels(self, name: str) -> Path:
        return self._file("labels.ome.zarr", "ome-zarr") / name

    def _file(self, name: str, output_format: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise FileNotFoundError(
                f"{path} was not written: wsi-nuclei export {self.folder} -o {self.folder.parent} --format {output_format}"
            )
        return path

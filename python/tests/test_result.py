"""What a Result gives, against the same facts read from other files by other programs."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import wsi_nuclei as wn


@pytest.fixture(scope="session")
def rows(result: wn.Result) -> list[dict[str, str]]:
    """nuclei.csv by Python's own reader: the truth."""
    with open(result.folder / "nuclei.csv", newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name] or "nan") for row in rows])


def test_the_table_has_the_rows_and_columns_of_the_csv(result, rows):
    assert len(rows) > 100
    assert list(result.table) == list(rows[0])
    assert result.table["type_name"].tolist() == [row["type_name"] for row in rows]
    np.testing.assert_allclose(result.table["area_um2"], numbers(rows, "area_um2"), rtol=1e-5)
    assert result.units["area_um2"] == "um2" and "eccentricity" not in result.units


def test_summary_and_thumbnail_are_the_files(result, rows):
    assert result.summary["nuclei"]["count"] == len(rows)
    assert str(len(rows)) in repr(result)
    width, height = result.thumbnail.size
    assert abs(width / height - result.summary["width"] / result.summary["height"]) < 0.02


def test_outlines_have_the_areas_and_centroids_of_the_csv(result, rows):
    outlines = result.geometries()
    assert outlines.crs is None and len(outlines) == len(rows)
    um2_per_px = np.prod(result.summary["mpp"])
    np.testing.assert_allclose(outlines.area * um2_per_px, numbers(rows, "area_um2"), rtol=0.01)
    np.testing.assert_allclose(outlines.centroid.x, numbers(rows, "x_px"), atol=0.1)
    np.testing.assert_allclose(outlines.centroid.y, numbers(rows, "y_px"), atol=0.1)
    assert outlines["id"].tolist() == [int(row["id"]) for row in rows]


def test_outlines_from_the_corner_of_a_scanned_region_come_back_to_the_tables_frame(result, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(result.folder, folder, ignore=shutil.ignore_patterns("*.zarr"))
    document = json.loads((folder / "nuclei.geojson").read_text())
    for feature in document["features"]:
        feature["geometry"]["coordinates"] = moved(feature["geometry"]["coordinates"])
    (folder / "nuclei.geojson").write_text(json.dumps(document))
    assert wn.read(folder).geometries().geom_equals_exact(result.geometries(), 1e-6).all()


def test_packed_outlines_are_the_same(result, tmp_path):
    folder = tmp_path / "packed"
    shutil.copytree(result.folder, folder, ignore=shutil.ignore_patterns("*.zarr"))
    text = (folder / "nuclei.geojson").read_bytes()
    (folder / "nuclei.geojson").unlink()
    with pytest.raises(FileNotFoundError, match="--format geojson"):
        wn.read(folder).geometries()
    (folder / "nuclei.geojson.gz").write_bytes(gzip.compress(text))
    assert wn.read(folder).geometries().geom_equals(result.geometries()).all()


def moved(coordinates):
    if isinstance(coordinates[0], list):
        return [moved(inner) for inner in coordinates]
    return [coordinates[0] - 4096, coordinates[1] - 300]


def test_labels_have_the_areas_of_the_csv_and_halve_with_each_level(result, rows):
    ids = result.labels()
    assert ids.chunks and ids.dtype == np.uint32
    model_mpp = result._provenance["model"]["mpp"]
    areas = np.bincount(np.asarray(ids).ravel())[1:] * model_mpp**2
    np.testing.assert_allclose(areas, numbers(rows, "area_um2"), rtol=0.01)
    assert result.labels(1).shape[0] == pytest.approx(ids.shape[0] / 2, abs=1)
    assert result.labels(name="types").shape == ids.shape


def test_anndata_keeps_every_column(result, rows):
    adata = result.to_anndata()
    assert adata.n_obs == len(rows)
    assert set(adata.var_names) | set(adata.obs.columns) == set(rows[0])
    assert not {"x_px", "id", "type_prob", "slide"} & set(adata.var_names)
    assert not any(name.startswith("prob_") for name in adata.var_names)
    for name in ("area_um2", "hematoxylin_od_mean", "nearest_um"):
        np.testing.assert_allclose(np.asarray(adata[:, name].X).ravel(), numbers(rows, name), rtol=1e-4)
    np.testing.assert_allclose(adata.obsm["spatial"][:, 0], numbers(rows, "x_um"), rtol=1e-6)
    assert adata.uns["wsi-nuclei"]["units"]["area_um2"] == "um2"


def test_spatialdata_has_outlines_and_labels_at_one_place_in_um(result, rows, tmp_path):
    import spatialdata

    sdata = result.to_spatialdata()
    path = tmp_path / "slide.zarr"
    sdata.write(path)
    sdata = spatialdata.read_zarr(path)
    outlines = spatialdata.transform(sdata.shapes["nuclei"], to_coordinate_system="global")
    np.testing.assert_allclose(outlines.area, numbers(rows, "area_um2"), rtol=0.01)
    np.testing.assert_allclose(outlines.centroid.x, numbers(rows, "x_um"), atol=0.1)
    assert len(sdata.tables["table"]) == len(rows)
    # The centroid of the pixels of one nucleus, taken to µm by the labels' own transformation.
    image = sdata.labels["nuclei_labels"]
    to_um = spatialdata.transformations.get_transformation(image).to_affine_matrix(("x", "y"), ("x", "y"))
    row = rows[len(rows) // 2]
    y, x = np.nonzero(np.asarray(image) == int(row["id"]))
    place = to_um @ [x.mean() + 0.5, y.mean() + 0.5, 1]
    np.testing.assert_allclose(place[:2], [float(row["x_um"]), float(row["y_um"])], atol=0.05)


def test_a_file_that_was_not_written_names_the_command_that_writes_it(result, slide, tmp_path):
    folder = tmp_path / "less"
    shutil.copytree(result.folder, folder)
    shutil.rmtree(folder / "labels.ome.zarr")
    with pytest.raises(FileNotFoundError, match="wsi-nuclei export .*less -o .* --format ome-zarr"):
        wn.read(folder).labels()
    assert not wn.read(folder).to_spatialdata().labels


def test_a_folder_of_slides_is_refused_with_their_names(result):
    with pytest.raises(FileNotFoundError, match=f"one of the slides inside: {result.folder.name}"):
        wn.read(result.folder.parent)
    with pytest.raises(FileNotFoundError, match="no summary.json"):
        wn.read(Path("/nonexistent"))

"""Opens what `run` wrote with the programs that people use: pyarrow, pandas, DuckDB; and json for GeoJSON.

usage: read.py OUT/<stem>    `make outputs` calls it.
"""

import csv
import gzip
import json
import sys
import uuid
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

folder = Path(sys.argv[1])
parquet = folder / "nuclei.parquet"

# The CSV by Python's own reader is the truth.
with open(folder / "nuclei.csv", newline="") as file:
    rows = list(csv.DictReader(file))
names = list(rows[0])
assert rows, "no nuclei: nothing would be compared"

table = pq.read_table(parquet)
assert table.column_names == names, "pyarrow: other columns than the CSV"
assert table.num_rows == len(rows)
note = json.loads(pq.read_metadata(parquet).metadata[b"wsi-nuclei"])
assert note["units"]["area_um2"] == "um2" and note["model"]["name"] and note["slide"]["quickhash"]
group = pq.ParquetFile(parquet).metadata.row_group(0)
chunk = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
assert chunk["id"].statistics.has_min_max and chunk["y_px"].compression == "ZSTD"
assert "RLE_DICTIONARY" in chunk["type_name"].encodings, chunk["type_name"].encodings

# Categories, whoever reads them.
dictionary = pa.dictionary(pa.int32(), pa.string())
assert table.schema.field("type_name").type == dictionary, table.schema.field("type_name")
categories = pd.read_parquet(parquet)["type_name"].dtype
assert isinstance(categories, pd.CategoricalDtype), categories
assert set(categories.categories) == {row["type_name"] for row in rows} - {""}


def stored(text, physical_type):
    """A cell of the CSV as Parquet holds it: floats of 32 bits have 17 binary digits."""
    if physical_type != "FLOAT":
        return float(text) if physical_type == "DOUBLE" else int(text)
    mantissa, exponent = np.frexp(np.float32(text).astype(np.float64))
    return np.float32(np.ldexp(np.rint(np.ldexp(mantissa, 17)), exponent - 17))


def check_statistics():
    """Every column of numbers says between which values each row group lies, and how much is missing."""
    metadata, first = pq.ParquetFile(parquet).metadata, 0
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        part = rows[first : first + group.num_rows]
        first += group.num_rows
        for i, name in enumerate(names):
            if name in ("type_name", "slide"):
                continue
            said = group.column(i).statistics
            physical_type = group.column(i).physical_type
            cells = [stored(row[name], physical_type) for row in part if row[name] != ""]
            assert said is not None and said.null_count == len(part) - len(cells), name
            if cells:
                assert said.has_min_max, f"{name}: no least and greatest value"
                assert (said.min, said.max) == (min(cells), max(cells)), (name, said)
    print(f"statistics: {len(names) - 2} columns of {metadata.num_row_groups} row groups as in the CSV")


check_statistics()


def compare(reader, frame):
    """A data frame against the CSV's text."""
    assert list(frame.columns) == names and len(frame) == len(rows), reader
    for name in names:
        text = [row[name] for row in rows]
        values = frame[name].tolist()
        missing = [value is None or value is pd.NA or value != value for value in values]
        assert missing == [cell == "" for cell in text], f"{reader}: {name}: missing cells"
        for value, cell, none in zip(values, text, missing):
            if none:
                continue
            if isinstance(value, str):
                assert value == cell, f"{reader}: {name}: {value} for {cell}"
            else:
                same = value == stored(cell, chunk[name].physical_type)
                assert same, f"{reader}: {name}: {value} for {cell}"
    print(f"{reader}: {len(rows)} rows of {len(names)} columns as in the CSV")


compare("pyarrow", table.to_pandas())
compare("pandas", pd.read_parquet(parquet))
compare("duckdb", duckdb.sql(f"select * from '{parquet}'").df())
assert len(pd.read_csv(folder / "nuclei.csv")) == len(rows)
top = duckdb.sql(f"select count(*) from '{parquet}' where y_px < 500").fetchall()[0][0]
assert top == sum(float(row["y_px"]) < 500 for row in rows)

text = (folder / "nuclei.geojson").read_bytes()
packed = folder / "nuclei.geojson.gz"
if packed.exists():
    assert gzip.decompress(packed.read_bytes()) == text
features = json.loads(text)["features"]
assert len(features) == len(rows)
um2 = note["slide"]["level0_mpp"][0] * note["slide"]["level0_mpp"][1]
worst = 0
for feature, row in zip(features, rows):
    assert uuid.UUID(feature["id"]).version == 5
    properties = feature["properties"]
    assert properties["objectType"] == "detection" and properties["metadata"]["id"] == row["id"]
    assert properties["classification"]["name"] == row["type_name"]
    assert all(isinstance(value, (int, float)) for value in properties["measurements"].values())
    area = 0
    for ring in feature["geometry"]["coordinates"]:
        assert ring[0] == ring[-1] and len(ring) >= 5
        area += sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, ring[1:])) / 2
    worst = max(worst, abs(area * um2 / float(row["area_um2"]) - 1))
# Coordinates have 2 decimals.
assert worst < 0.01, worst
print(f"GeoJSON: {len(features)} detections, areas of the rings as in the CSV to {worst:.1e}")

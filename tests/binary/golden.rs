//! The golden record in short: every file that a small slide and a small image give, by its hash.
//! scripts/golden.sh makes the long one. After a change of output that is meant: `WSI_NUCLEI_RECORD=1 cargo
//! test --test binary golden`, and the commit says why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::harness::Dir;

const ALL: &str = "json,csv,parquet,geojson,geojson.gz,overlay,crops,report,ome-zarr";

fn record_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden.sha256")
}

#[test]
fn every_output_byte_is_as_recorded() {
    let dir = Dir::new();
    dir.field("field.png", 700, 500);
    // The rules without a network: the same bits on every CPU.
    dir.ok(&format!(
        "run field.png -o run --model analytic --mpp 0.25 --tile-size 256 --format {ALL}"
    ));
    dir.ok(&format!(
        "tile field.png -o tile --model analytic --mpp 0.25 --save-raw --format {ALL}"
    ));
    dir.ok("postproc tile/field/raw.npy -o postproc --postproc reference");
    dir.ok(&format!(
        "export run/field -o export --format {}",
        ALL.replace("crops,", "")
    ));
    dir.ok("features tile/field/nuclei.json -o features --tutorial");
    let mut found = BTreeMap::new();
    for folder in ["run", "tile", "postproc", "export", "features"] {
        hash_files(&dir.path(""), &dir.path(folder), &mut found);
    }
    let text: String = found
        .iter()
        .map(|(name, hash)| format!("{hash}  {name}\n"))
        .collect();
    if std::env::var_os("WSI_NUCLEI_RECORD").is_some() {
        fs::write(record_file(), &text).unwrap();
    }
    let recorded = fs::read_to_string(record_file()).unwrap();
    let other: Vec<&str> = text
        .lines()
        .filter(|line| !recorded.lines().any(|known| known == *line))
        .collect();
    assert!(
        other.is_empty() && text.lines().count() == recorded.lines().count(),
        "not as recorded:\n{}",
        other.join("\n")
    );
}

/// SHA-256 of each file below `folder`, by its path from `root`. Stores and run.json are left out: they hold
/// the machine's instruction set, paths and times.
fn hash_files(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("store.zarr") || path.ends_with("run.json") {
            continue;
        }
        if path.is_dir() {
            hash_files(root, &path, found);
            continue;
        }
        let hash = Sha256::digest(fs::read(&path).unwrap());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        found.insert(name, hash);
    }
}

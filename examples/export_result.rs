//! Writes the nuclei of a finished slide once more, as CSV in px and as GeoJSON in level-0 px.
//!
//! ```console
//! . .deps/env && cargo run --release --example export_result -- results/slide exported
//! ```

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use wsi_nuclei::{Choice, Format, GeojsonFrame, Units, read_result, write_nuclei};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (Some(result), Some(folder)) = (args.next(), args.next()) else {
        return Err("usage: export_result RESULT FOLDER".into());
    };
    fs::create_dir_all(&folder)?;
    let choice = Choice {
        formats: &[Format::Csv, Format::Geojson],
        units: Units::Px,
        geojson_frame: GeojsonFrame::Level0,
    };
    let result = read_result(&result)?;
    let measured = write_nuclei(&result, choice, &folder)?;
    println!(
        "{} nuclei with {} features each in {}",
        result.nuclei.len(),
        measured.names.len(),
        folder.display()
    );
    Ok(())
}

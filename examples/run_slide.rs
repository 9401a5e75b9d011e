//! Runs one slide with the default model and counts its nuclei by type.
//!
//! ```console
//! . .deps/env && cargo run --release --example run_slide -- slide.svs results
//! ```
//!
//! The results lie in `results/slide/`. Started again, it goes on where it was interrupted.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::path::PathBuf;

use wsi_nuclei::{Ending, RunConfig, read_result, run_slide};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (Some(slide), Some(output)) = (args.next(), args.next()) else {
        return Err("usage: run_slide SLIDE OUT".into());
    };
    let config = RunConfig {
        output,
        ..RunConfig::default()
    };
    match run_slide(&slide, &config)? {
        Ending::Done { .. } => {}
        Ending::Incomplete { why, .. } => eprintln!("incomplete: {why}"),
        other => return Err(other.reason().unwrap_or("stopped").into()),
    }

    // The folder of a slide has the slide's name without its extension.
    let stem = slide.file_stem().ok_or("the slide has no name")?;
    let result = read_result(&config.output.join(stem))?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for record in result.records() {
        let name = record.type_id.map(|id| result.type_name(id));
        *counts.entry(name.unwrap_or("nucleus".into())).or_default() += 1;
    }
    for (name, count) in counts {
        println!("{count:>9} {name}");
    }
    Ok(())
}

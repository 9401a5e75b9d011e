//! hover_net's QuPath table: `x y class name color`, one line per nucleus.
//!
//! In: the [`SlideResult`] of an image. Out: tab-separated text; x and y in the image's px (pixel centres at whole
//! numbers), the type's name twice, its colour as red * 65536 + green * 256 + blue.

use std::path::Path;

use super::{OutputError, pictures, write_file};
use crate::result::SlideResult;

/// Writes `path`.
pub fn write(result: &SlideResult, path: &Path) -> Result<(), OutputError> {
    write_file(path, |out| {
        writeln!(out, "x\ty\tclass\tname\tcolor")?;
        for record in result.records() {
            let [x, y] = record.to_centre(record.centroid_proc_px());
            let types = &result.meta.model.types;
            let kind = record.type_id.and_then(|id| types.get(id));
            // A tab or a line break in a name would end the cell.
            let name = kind.map_or("Nucleus".into(), |k| {
                k.name.replace(['\t', '\n', '\r'], " ")
            });
            let [r, g, b] = pictures::colour_of(result, record.type_id).0.map(u32::from);
            writeln!(
                out,
                "{x}\t{y}\t{name}\t{name}\t{}",
                (r << 16) + (g << 8) + b
            )?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::fixture;

    #[test]
    fn one_line_a_nucleus() {
        let mut result = fixture::result(1.0);
        result.meta.model.types[1].name = "a\tb".into();
        result.meta.model.types[1].color = [1, 200, 3];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tsv");
        write(&result, &path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
        assert_eq!(lines[0], ["x", "y", "class", "name", "color"]);
        assert_eq!(lines.len(), result.nuclei.len() + 1);
        let mut seen = 0;
        for (line, record) in lines[1..].iter().zip(result.records()) {
            assert_eq!(line.len(), 5);
            if record.type_id == Some(1) {
                assert_eq!(&line[2..], ["a b", "a b", "116739"]);
                seen += 1;
            }
        }
        assert!(seen > 0);
    }
}

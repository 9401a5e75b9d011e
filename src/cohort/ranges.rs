//! Row numbers as schedulers write them: `3,7,40-44`.
//!
//! In: numbers or text. Out: the other of them. Never a step (`0-9:2`): no list that we print needs one.

/// Rows, ascending, as an array string.
pub fn to_text(rows: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &row in rows {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == row => *last = row,
            _ => runs.push((row, row)),
        }
    }
    let runs = runs.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        // A range of two is as short as a list, and a list is read by every scheduler.
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// The rows of an array string, in its order, each once.
///
/// # Errors
/// Text that is no list of rows; says what would be.
pub fn from_text(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("`{text}` is no list of rows: write 3 or 3,7,40-44");
    let mut rows: Vec<usize> = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if last < first || last - first > 10_000_000 {
            return Err(wrong());
        }
        for row in first..=last {
            rows.push(row);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    rows.retain(|row| seen.insert(*row));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_written_as_schedulers_read_them() {
        assert_eq!(to_text(&[3, 7, 40, 41, 42, 43, 44]), "3,7,40-44");
        assert_eq!(to_text(&[]), "");
        assert_eq!(to_text(&[0, 1]), "0,1");
        assert_eq!(from_text("3,7,40-44").unwrap(), [3, 7, 40, 41, 42, 43, 44]);
        assert_eq!(from_text("5,5, 4").unwrap(), [5, 4]);
        for wrong in ["", "3,", "a", "5-3", "-1", "1-2-3", "0-9:2"] {
            assert!(from_text(wrong).is_err(), "{wrong}");
        }
    }
}

//! What a task claims: a row, or one of the parts that the tiles of a huge slide are shared in.
//!
//! In: numbers, or the name of a file. Out: the other of them. Never looks at a file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A row, or a part of one.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Work {
    /// The row, from 0.
    pub row: usize,
    /// The part, from 0; a row that is not shared has this one alone.
    #[serde(default, skip_serializing_if = "is_first")]
    pub part: u32,
}

fn is_first(part: &u32) -> bool {
    *part == 0
}

impl From<usize> for Work {
    fn from(row: usize) -> Self {
        Self { row, part: 0 }
    }
}

/// As file names begin: `000012`, or `000012-3` for the part 3.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            0 => write!(f, "{:06}", self.row),
            part => write!(f, "{:06}-{part}", self.row),
        }
    }
}

impl Work {
    /// What a file name without its ending stands for; `None`: a file of another kind.
    pub fn parse(text: &str) -> Option<Self> {
        let (row, part) = match text.split_once('-') {
            Some((row, part)) => (row, part.parse().ok()?),
            None => (text, 0),
        };
        let row = row.parse().ok()?;
        Some(Self { row, part })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let work = |row, part| Work { row, part };
        assert_eq!(work(12, 0).to_string(), "000012");
        assert_eq!(work(1_234_567, 31).to_string(), "1234567-31");
        for work in [work(0, 0), work(12, 3), work(1_234_567, 31)] {
            assert_eq!(Work::parse(&work.to_string()), Some(work));
        }
        for other in ["", ".now", "12-", "a-1", "-1"] {
            assert_eq!(Work::parse(other), None, "{other}");
        }
    }
}

//! Which nuclei the page wants to see.
//!
//! In: the query of a request (`types=1,2&range=area_um2:20:80`) and the table's columns. Out: yes or no for a place.
//! A nucleus without a value lies in no range. Never looks at where a nucleus is.

use super::rows::Rows;

/// How the query names nuclei without a type.
pub const UNTYPED: &str = "none";

/// A query that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("types={0}: type ids with commas between, or none for nuclei without a type")]
    Types(String),
    #[error("range={0}: COLUMN:LEAST:GREATEST, an empty end for no limit")]
    Range(String),
    #[error("range={0}: the table has no column of numbers of that name")]
    Column(String),
}

/// Types and ranges that a nucleus must meet, all of them. The default keeps every nucleus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// `None`: any.
    types: Option<Vec<Option<usize>>>,
    ranges: Vec<Range>,
}

/// The ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    column: usize,
    least: f32,
    greatest: f32,
}

impl Filter {
    /// Reads the pairs of a query; those that are no filter are left to others.
    ///
    /// # Errors
    /// [`FilterError`] for a value that is none.
    pub fn from_query<'q>(
        pairs: impl IntoIterator<Item = (&'q str, &'q str)>,
        rows: &Rows,
    ) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for (name, value) in pairs {
            match name {
                "types" => filter.types = Some(types(value)?),
                "range" => filter.ranges.push(range(value, rows)?),
                _ => {}
            }
        }
        Ok(filter)
    }

    /// Whether the nucleus at `place`, of type `type_id`, is wanted.
    pub fn keeps(&self, place: usize, type_id: Option<usize>, rows: &Rows) -> bool {
        let typed = self.types.as_ref().is_none_or(|t| t.contains(&type_id));
        typed
            && self.ranges.iter().all(|range| {
                let column = rows.columns().get(range.column);
                let value = column.and_then(|column| column.values.get(place));
                value.is_some_and(|v| *v >= range.least && *v <= range.greatest)
            })
    }
}

fn types(value: &str) -> Result<Vec<Option<usize>>, FilterError> {
    let one = |id: &str| match id {
        UNTYPED => Ok(None),
        id => match id.parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(FilterError::Types(value.to_owned())),
        },
    };
    value
        .split(',')
        .filter(|id| !id.is_empty())
        .map(one)
        .collect()
}

fn range(value: &str, rows: &Rows) -> Result<Range, FilterError> {
    let wrong = || FilterError::Range(value.to_owned());
    let end = |text: &str, open: f32| match text {
        "" => Ok(open),
        text => match text.parse::<f32>() {
            Ok(number) if !number.is_nan() => Ok(number),
            _ => Err(wrong()),
        },
    };
    // From the right: a type's name, and so a column's, may hold a colon.
    let mut parts = value.rsplitn(3, ':');
    let (Some(greatest), Some(least), Some(name)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let column = rows.column(name);
    Ok(Range {
        column: column.ok_or_else(|| FilterError::Column(value.to_owned()))?,
        least: end(least, f32::NEG_INFINITY)?,
        greatest: end(greatest, f32::INFINITY)?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn rows() -> Rows {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"id,type,type_prob,a:b\n1,1,0.9,5\n2,2,0.5,\n3,,0.1,7.1\n")
            .unwrap();
        Rows::read(file).unwrap()
    }

    fn kept(query: &[(&str, &str)]) -> Vec<usize> {
        let rows = rows();
        let filter = Filter::from_query(query.iter().copied(), &rows).unwrap();
        let types = [Some(1), Some(2), None];
        (0..3)
            .filter(|&i| filter.keeps(i, types[i], &rows))
            .collect()
    }

    #[test]
    fn types_and_ranges_must_all_be_met() {
        assert_eq!(kept(&[]), [0, 1, 2]);
        assert_eq!(kept(&[("types", "")]), [0; 0]);
        assert_eq!(kept(&[("types", "2,none"), ("x0", "5")]), [1, 2]);
        assert_eq!(kept(&[("range", "type_prob:0.5:")]), [0, 1]);
        assert_eq!(kept(&[("range", "type_prob::0.5"), ("types", "2")]), [1]);
        // A missing value lies in no range; ends belong to it, as the table writes them.
        assert_eq!(kept(&[("range", "a:b::")]), [0, 2]);
        assert_eq!(kept(&[("range", "a:b:7.1:7.1")]), [2]);
    }

    #[test]
    fn nonsense_is_refused() {
        let of = |name, value| Filter::from_query([(name, value)], &rows()).unwrap_err();
        assert!(matches!(of("types", "1,x"), FilterError::Types(_)));
        assert!(matches!(of("range", "type_prob"), FilterError::Range(_)));
        assert!(matches!(of("range", "type_prob:a:"), FilterError::Range(_)));
        assert!(matches!(
            of("range", "type_prob:nan:"),
            FilterError::Range(_)
        ));
        assert!(matches!(of("range", "colour:1:2"), FilterError::Column(_)));
    }
}

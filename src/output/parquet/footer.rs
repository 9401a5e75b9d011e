//! The order in which Parquet's statistics of floats are meant.
//!
//! In: a Parquet file on its way out. Out: the same file, whose FLOAT and DOUBLE columns claim the order of their type
//! (`TypeDefinedOrder`, all that pyarrow 26 and DuckDB know) where the crate wrote `IEEE754TotalOrder`: a reader that
//! does not know an order must leave the statistics alone. What is claimed is true, because no NaN is ever written.

use std::io::{self, Write};

/// The union `ColumnOrder` in Thrift's compact protocol: the field's id and type (a struct), the end of that empty
/// struct, the end of the union. Both choices take three bytes.
const TYPE_DEFINED: [u8; 3] = [0x1c, 0, 0];
const IEEE754_TOTAL: [u8; 3] = [0x2c, 0, 0];
/// After the metadata: its length and `PAR1`.
const AFTER_METADATA: usize = 8;

/// Passes bytes on, or keeps them once [`Tail::hold`] was called.
pub struct Tail<W> {
    out: W,
    held: Option<Vec<u8>>,
}

impl<W: Write> Tail<W> {
    pub fn new(out: W) -> Self {
        Self { out, held: None }
    }

    /// From here to the end is a file's last part.
    pub fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Gives `W` back, everything written; `columns`: how many the file has.
    pub fn finish(mut self, columns: usize) -> io::Result<W> {
        let mut held = self.held.take().unwrap_or_default();
        claim_type_defined(&mut held, columns)?;
        self.out.write_all(&held)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Tail<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.held {
            Some(held) => held.write(bytes),
            None => self.out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The list of column orders is the metadata's last field: its entries, one a column, stand before the stop byte.
fn claim_type_defined(end_of_file: &mut [u8], columns: usize) -> io::Result<()> {
    let end = end_of_file.len().checked_sub(AFTER_METADATA + 1);
    let begin = end.and_then(|end| end.checked_sub(columns * TYPE_DEFINED.len()));
    let orders = match (begin, end) {
        (Some(begin), Some(end)) => end_of_file.get_mut(begin..end),
        _ => None,
    };
    let unknown = || io::Error::other("the Parquet footer does not end with the column orders");
    for order in orders.ok_or_else(unknown)?.chunks_mut(TYPE_DEFINED.len()) {
        if order != TYPE_DEFINED && order != IEEE754_TOTAL {
            return Err(unknown());
        }
        order.copy_from_slice(&TYPE_DEFINED);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_alone_change() {
        let mut bytes = b"data\x2c\0\0\x29\x2c".to_vec();
        bytes.extend(TYPE_DEFINED);
        bytes.extend(IEEE754_TOTAL);
        bytes.extend(b"\0\x10\0\0\0PAR1");
        let mut expected = bytes.clone();
        expected[12] = 0x1c;
        let mut tail = Tail::new(Vec::new());
        tail.write_all(&bytes[..3]).unwrap();
        tail.hold();
        tail.write_all(&bytes[3..]).unwrap();
        assert_eq!(tail.finish(2).unwrap(), expected);
    }

    #[test]
    fn another_footer_is_refused() {
        for bytes in [&b"PAR1"[..], b"\x1c\0\0\x3c\0\0\0\x10\0\0\0PAR1"] {
            let mut tail = Tail::new(Vec::new());
            tail.hold();
            tail.write_all(bytes).unwrap();
            assert!(tail.finish(2).is_err());
        }
    }
}

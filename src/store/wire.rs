//! Numbers as bytes.
//!
//! In: integers, strings, bytes. Out: little-endian base-128 numbers (7 bits per byte, high bit:
//! more follow; signed numbers in zigzag) and plain bytes, and back. Reading never panics and never
//! allocates more than the input's own length.

/// Why bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("ends before its content does")]
    Truncated,
    #[error("holds a number out of range")]
    Range,
    #[error("holds text that is not UTF-8")]
    Text,
}

#[derive(Debug, Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub fn signed(&mut self, value: i64) {
        self.unsigned((value.wrapping_shl(1) ^ (value >> 63)) as u64);
    }

    pub fn len(&mut self, len: usize) {
        self.unsigned(len as u64);
    }

    pub fn text(&mut self, text: &str) {
        self.len(text.len());
        self.raw(text.as_bytes());
    }
}

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn unsigned(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::Range);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Range)
    }

    pub fn signed(&mut self) -> Result<i64, WireError> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub fn u32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.unsigned()?).map_err(|_| WireError::Range)
    }

    pub fn i32(&mut self) -> Result<i32, WireError> {
        i32::try_from(self.signed()?).map_err(|_| WireError::Range)
    }

    /// The number of records of at least `bytes_each` bytes that follow, if there is room for them.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, WireError> {
        let count = usize::try_from(self.unsigned()?).map_err(|_| WireError::Range)?;
        match count.checked_mul(bytes_each) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(WireError::Truncated),
        }
    }

    pub fn text(&mut self) -> Result<&'a str, WireError> {
        let len = self.count(1)?;
        std::str::from_utf8(self.raw(len)?).map_err(|_| WireError::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(a: u64, b: i64, text: String) {
            let mut w = Writer::default();
            w.unsigned(a);
            w.signed(b);
            w.text(&text);
            let mut r = Reader::new(&w.bytes);
            prop_assert_eq!(r.unsigned(), Ok(a));
            prop_assert_eq!(r.signed(), Ok(b));
            prop_assert_eq!(r.text(), Ok(text.as_str()));
            prop_assert_eq!(r.remaining(), 0);
        }
    }

    #[test]
    fn endless_and_cut_numbers_are_errors() {
        assert_eq!(Reader::new(&[0x80; 11]).unsigned(), Err(WireError::Range));
        assert_eq!(
            Reader::new(&[0xff; 3]).unsigned(),
            Err(WireError::Truncated)
        );
        let mut w = Writer::default();
        w.unsigned(u64::MAX);
        assert_eq!(Reader::new(&w.bytes).count(8), Err(WireError::Truncated));
    }
}

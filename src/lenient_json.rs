//! JSON as Python writes it, which is not always JSON.
//!
//! In: bytes. Out: the same bytes without a byte order mark, and with `null` where `NaN`, `Infinity` or
//! `-Infinity` stand outside strings. [`byte_of`] finds a place of it in the file again. Never holds the document.

use std::io::{self, BufRead, Read};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const NOT_A_NUMBER: &[u8] = b"NaN";
const INFINITY: &[u8] = b"Infinity";

/// A reader of JSON over a reader of such bytes.
pub struct LenientJson<R> {
    inner: R,
    state: State,
    /// Bytes that are ready.
    ready: Vec<u8>,
    at: usize,
    is_started: bool,
}

#[derive(Default)]
struct State {
    in_string: bool,
    escaped: bool,
    /// A sign that may belong to an infinity.
    minus: bool,
    /// The token that the last bytes began, and how many of it they were.
    token: Option<(&'static [u8], usize)>,
}

impl State {
    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            out.push(byte);
            self.in_string = self.escaped || byte != b'"';
            self.escaped = byte == b'\\' && !self.escaped;
            return;
        }
        if let Some((token, seen)) = self.token {
            if byte == token[seen] {
                self.token = Some((token, seen + 1)).filter(|_| seen + 1 < token.len());
                if self.token.is_none() {
                    out.extend(b"null");
                    self.minus = false;
                }
                return;
            }
            self.give_back(out);
        }
        match byte {
            b'N' if !self.minus => self.token = Some((NOT_A_NUMBER, 1)),
            b'I' => self.token = Some((INFINITY, 1)),
            _ => {
                self.give_back(out);
                match byte {
                    b'-' => self.minus = true,
                    _ => {
                        self.in_string = byte == b'"';
                        out.push(byte);
                    }
                }
            }
        }
    }

    /// What looked like a token and is none goes on as it stands.
    fn give_back(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.minus) {
            out.push(b'-');
        }
        if let Some((token, seen)) = self.token.take() {
            out.extend(&token[..seen]);
        }
    }
}

impl<R: BufRead> LenientJson<R> {
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            state: State::default(),
            ready: Vec::new(),
            at: 0,
            is_started: false,
        }
    }

    /// Makes more bytes ready; none are left where none are ready afterwards.
    fn refill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.at = 0;
        while self.ready.is_empty() {
            let mut bytes = self.inner.fill_buf()?;
            let used = bytes.len();
            if !std::mem::replace(&mut self.is_started, true) {
                bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
            }
            for &byte in bytes {
                self.state.push(byte, &mut self.ready);
            }
            self.inner.consume(used);
            if used == 0 {
                self.state.give_back(&mut self.ready);
                return Ok(());
            }
        }
        Ok(())
    }
}

impl<R: BufRead> Read for LenientJson<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() {
            self.refill()?;
        }
        let n = buffer.len().min(self.ready.len() - self.at);
        buffer[..n].copy_from_slice(&self.ready[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The byte of `file`, from 0, that ends up at `line` (from 1) and `column` (from 0) of the JSON.
pub fn byte_of(file: impl BufRead, line: usize, column: usize) -> io::Result<u64> {
    let mut state = State::default();
    let mut out = Vec::new();
    let (mut lines, mut columns) = (1, 0);
    for (place, byte) in file.bytes().enumerate() {
        let byte = byte?;
        if place < BYTE_ORDER_MARK.len() && byte == BYTE_ORDER_MARK[place] {
            continue;
        }
        state.push(byte, &mut out);
        for shown in out.drain(..) {
            if lines == line && columns == column {
                return Ok(place as u64);
            }
            if shown == b'\n' {
                (lines, columns) = (lines + 1, 0);
            } else {
                columns += 1;
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], buffer_bytes: usize) -> String {
        let buffered = io::BufReader::with_capacity(buffer_bytes, text);
        let mut out = String::new();
        LenientJson::new(buffered).read_to_string(&mut out).unwrap();
        out
    }

    #[test]
    fn what_is_no_number_becomes_null_wherever_buffers_end() {
        let text =
            "\u{feff}{\"NaN -Infinity\\\"\": [NaN, -Infinity,Infinity,-1.5,-2, Nab, -]}".as_bytes();
        let wanted = "{\"NaN -Infinity\\\"\": [null, null,null,-1.5,-2, Nab, -]}";
        // The mark alone must lie within the first buffer.
        for bytes in 3..text.len() + 1 {
            assert_eq!(read(text, bytes), wanted, "{bytes}");
        }
        assert_eq!(read(b"[1,-", 8), "[1,-");
        assert_eq!(read(b"[Na", 8), "[Na");
    }

    #[test]
    fn a_place_of_the_json_is_found_in_the_file() {
        let text = "\u{feff}[1,\n NaN, NaN, x]".as_bytes();
        let json = read(text, 64);
        let line = json.lines().nth(1).unwrap();
        let place = byte_of(text, 2, line.find('x').unwrap()).unwrap();
        assert_eq!(text[place as usize], b'x');
    }
}

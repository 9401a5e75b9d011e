//! gzip on every core.
//!
//! In: bytes. Out: one gzip member without name or time. Blocks of [`BLOCK`] bytes are compressed side by side, each
//! by itself and up to a byte's end, so that they can stand one after the other. Where blocks begin depends on nothing
//! but the bytes: the same input gives the same file on any number of cores.

use std::io::{self, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use rayon::prelude::*;

/// Bytes compressed by themselves: many of deflate's windows of 32 KiB, so little is lost at the seams.
const BLOCK: usize = 1 << 20;
/// Blocks held until they are compressed together.
const BLOCKS: usize = 16;
/// Level of compression, 0 to 9. The default, 6, takes three times as long for a file a tenth smaller.
const LEVEL: u32 = 3;
/// Header: deflate, no flags, no time, unknown level, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block: empty.
const LAST: [u8; 2] = [3, 0];

/// A gzip file on its way into `W`.
pub struct Writer<W: Write> {
    out: W,
    held: Vec<u8>,
    /// Checksum of all bytes that have been compressed.
    crc: Crc,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        Ok(Self {
            out,
            held: Vec::with_capacity(BLOCK * BLOCKS),
            crc: Crc::new(),
        })
    }

    /// Gives `W` back, everything written.
    pub fn finish(mut self) -> io::Result<W> {
        self.compress()?;
        self.out.write_all(&LAST)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.out)
    }

    fn compress(&mut self) -> io::Result<()> {
        let blocks: io::Result<Vec<(Vec<u8>, Crc)>> =
            self.held.par_chunks(BLOCK).map(deflated).collect();
        for (bytes, crc) in blocks? {
            self.out.write_all(&bytes)?;
            self.crc.combine(&crc);
        }
        self.held.clear();
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK * BLOCKS - self.held.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.held.extend(taken);
        if self.held.len() == BLOCK * BLOCKS {
            self.compress()?;
        }
        Ok(taken.len())
    }

    /// What is held stays held: where blocks begin may not depend on who calls this.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Raw deflate of a block that is not the last, and its checksum.
fn deflated(block: &[u8]) -> io::Result<(Vec<u8>, Crc)> {
    let mut crc = Crc::new();
    crc.update(block);
    let room = Vec::with_capacity(block.len() / 4);
    let mut encoder = DeflateEncoder::new(room, Compression::new(LEVEL));
    encoder.write_all(block)?;
    // Up to a byte's end; finishing would make it the last block.
    encoder.flush()?;
    Ok((std::mem::take(encoder.get_mut()), crc))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn packed(bytes: &[u8], at_a_time: usize) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        for part in bytes.chunks(at_a_time) {
            writer.write_all(part).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn one_member_gives_the_bytes_back_however_they_came() {
        let mut rng = fastrand::Rng::with_seed(5);
        for n in [0, 1, BLOCK, BLOCK * BLOCKS, BLOCK * BLOCKS + BLOCK / 3] {
            // Half of it cannot be compressed.
            let bytes: Vec<u8> = (0..n)
                .map(|i| if i % 2 == 0 { rng.u8(..) } else { b'a' })
                .collect();
            let file = packed(&bytes, 700_001);
            let mut back = Vec::new();
            // Of one member alone; it checks length and checksum.
            let mut reader = flate2::read::GzDecoder::new(file.as_slice());
            reader.read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{n} bytes");
            assert!(reader.into_inner().is_empty(), "one member");
            assert!(file == packed(&bytes, 65_536), "the same bytes");
        }
    }

    #[test]
    fn threads_do_not_show() {
        let bytes = b"a line of text, again and again\n".repeat(100_000);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| packed(&bytes, 4096))
        };
        assert!(with(1) == with(3));
    }
}

//! Damage in JPEG files that decoders forgive.
//!
//! In: the bytes of a JPEG file or of a JPEG strip in a TIFF. Out: nothing, or what is missing.
//! Decoders fill what is missing with grey and report success; here that is an error.

use zune_core::bytestream::ZCursor;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// End of image, start of scan (ITU-T T.81, table B.1).
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;

/// Refuses a JPEG that ends before its end-of-image marker.
///
/// # Errors
/// Where the file ends.
pub fn check_end(bytes: &[u8]) -> Result<(), String> {
    scan_end(bytes).map(|_| ())
}

/// Refuses a JPEG file that ends early or whose scans hold less than the whole picture.
///
/// # Errors
/// What is missing or damaged.
pub fn check_complete(bytes: &[u8]) -> Result<(), String> {
    check_end(bytes)?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    match JpegDecoder::new_with_options(ZCursor::new(bytes), options).decode() {
        Ok(_) => Ok(()),
        // Bytes between headers are no loss.
        Err(error) if error.to_string().contains("[strict-mode]") => Ok(()),
        Err(error) => Err(format!("its JPEG data are damaged: {error}")),
    }
}

/// The place after the end-of-image marker.
fn scan_end(bytes: &[u8]) -> Result<usize, String> {
    let cut = || {
        format!(
            "its JPEG data end after {} bytes, before the end-of-image marker",
            bytes.len()
        )
    };
    let mut at = 2;
    loop {
        let (marker, next) = next_marker(bytes, at).ok_or_else(cut)?;
        match marker {
            EOI => return Ok(next),
            // Restart markers and TEM have no length.
            0x01 | 0xd0..=0xd8 => at = next,
            _ => {
                let length = bytes.get(next..next + 2).ok_or_else(cut)?;
                let length = length.iter().fold(0, |n, &b| n << 8 | usize::from(b));
                at = next + length.max(2);
                // A scan's data follow its header up to the next marker.
                debug_assert!(marker != SOS || at > next);
            }
        }
    }
}

/// The first marker at or after `at`, and the place after it. In a scan's data `FF 00` is a byte.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == 0xff)?;
        match *bytes.get(at + 1)? {
            0xff => at += 1,
            0x00 => at += 2,
            marker => return Some((marker, at + 2)),
        }
    }
}

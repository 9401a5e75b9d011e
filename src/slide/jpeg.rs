//! Damage in JPEG files that decoders forgive.
//!
//! In: the bytes of a JPEG file or of a JPEG strip in a TIFF. Out: nothing, or what is missing.
//! Decoders fill what is missing with grey and report success; here that is an error.

use zune_core::bytestream::ZCursor;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Markers (ITU-T T.81, table B.1): end of image, start of scan, restart interval, and the frames
/// whose scans hold the whole picture.
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DRI: u8 = 0xdd;
const SEQUENTIAL_FRAMES: std::ops::RangeInclusive<u8> = 0xc0..=0xc1;
/// Bytes that the decoder may look ahead.
const LOOK_AHEAD: [u8; 8] = [0; 8];

/// Refuses a JPEG that ends before its end-of-image marker or whose scan holds less than the whole
/// picture.
///
/// # Errors
/// What is missing or damaged.
pub fn check_complete(bytes: &[u8]) -> Result<(), String> {
    let markers = list_markers(bytes)?;
    let count = |wanted: u8| markers.iter().filter(|m| m.0 == wanted).count();
    let is_sequential = markers.iter().any(|m| SEQUENTIAL_FRAMES.contains(&m.0));
    let end = markers.last().map_or(0, |m| m.1);
    // A decoder takes the end of the image for zeros, but not the end of the file.
    let decoded = match is_sequential && count(SOS) == 1 && count(DRI) == 0 {
        true => decode_strictly(&[&bytes[..end], &LOOK_AHEAD[..]].concat()),
        false => decode_strictly(bytes),
    };
    match decoded {
        // Bytes between headers are no loss.
        Err(reason) if !reason.contains("[strict-mode]") => {
            Err(format!("its JPEG data are damaged or cut short: {reason}"))
        }
        _ => Ok(()),
    }
}

/// A strip or tile of a TIFF as a JPEG file of its own: the tables that all share, without their end marker, and the
/// strip without its start marker (TIFF technical note 2). `tables` of at most four bytes are none.
pub fn with_tables(tables: &[u8], strip: &[u8]) -> Vec<u8> {
    match tables.len() {
        0..=4 => strip.to_vec(),
        n => [&tables[..n - 2], strip.get(2..).unwrap_or(&[])].concat(),
    }
}

fn decode_strictly(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode().map_err(|error| error.to_string())
}

/// The markers up to the end of the image, and where each begins.
fn list_markers(bytes: &[u8]) -> Result<Vec<(u8, usize)>, String> {
    let cut = || {
        format!(
            "its JPEG data end after {} bytes, before the end-of-image marker",
            bytes.len()
        )
    };
    let (mut markers, mut at) = (Vec::new(), 2);
    loop {
        let (marker, next) = next_marker(bytes, at).ok_or_else(cut)?;
        markers.push((marker, next - 2));
        match marker {
            EOI => return Ok(markers),
            // Restart markers and TEM have no length.
            0x01 | 0xd0..=0xd8 => at = next,
            _ => {
                let length = bytes.get(next..next + 2).ok_or_else(cut)?;
                let length = length.iter().fold(0, |n, &b| n << 8 | usize::from(b));
                // A scan's data follow its header up to the next marker.
                at = next + length.max(2);
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

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{Rgb, RgbImage};

    fn jpeg(w: u32, h: u32, flat: bool) -> Vec<u8> {
        let px = |x: u32, y: u32| {
            if flat {
                [7; 3]
            } else {
                [x * 37 % 251, y * 91 % 241, x * y % 239].map(|v| v as u8)
            }
        };
        let picture = RgbImage::from_fn(w, h, |x, y| Rgb(px(x, y)));
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 90)
            .encode_image(&picture)
            .unwrap();
        bytes
    }

    #[test]
    fn whole_files_of_any_size_pass() {
        for (w, h) in [(1, 1), (8, 8), (9, 40), (17, 33), (100, 3), (64, 200)] {
            for flat in [true, false] {
                assert_eq!(
                    check_complete(&jpeg(w, h, flat)),
                    Ok(()),
                    "{w} x {h} {flat}"
                );
            }
        }
        let trailing = [jpeg(64, 64, false), vec![1, 2, 3]].concat();
        assert_eq!(check_complete(&trailing), Ok(()));
    }

    #[test]
    fn a_cut_is_damage_with_and_without_an_end_marker() {
        let whole = jpeg(64, 200, false);
        for part in [3, 5, 8] {
            let cut = &whole[..whole.len() * part / 10];
            assert!(check_complete(cut).unwrap_err().contains("end-of-image"));
            let closed = [cut, &[0xff, EOI]].concat();
            assert!(check_complete(&closed).is_err(), "{part}");
        }
        assert!(check_complete(&whole[..whole.len() - 2]).is_err());
    }
}

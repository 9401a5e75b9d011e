//! The frame of every page and what goes into it.

use std::fmt::Write;

use base64::Engine;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageError, ImageFormat, RgbImage};

/// Of pictures of tissue: small, and sharp enough to see nuclei.
const JPEG_QUALITY: u8 = 82;

/// Light and dark colours; charts draw with `currentColor` and the variables `--c0` to `--c7` (Okabe and Ito's colours,
/// told apart by colour-blind readers).
const STYLE: &str = include_str!("page.css");

/// A whole page around `body` (HTML).
pub fn page(title: &str, body: &str) -> String {
    page_with(title, "", body)
}

/// [`page`] with more rules (CSS) after the common ones.
pub fn page_with(title: &str, style: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{style}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )
}

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// An `<img>` that holds its PNG. `alt` says what is on it.
pub fn image_tag(picture: &DynamicImage, alt: &str) -> Result<String, ImageError> {
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png)?;
    let data = base64::engine::general_purpose::STANDARD.encode(png.get_ref());
    Ok(format!(
        "<img width=\"{}\" height=\"{}\" alt=\"{}\" src=\"data:image/png;base64,{data}\">",
        picture.width(),
        picture.height(),
        escape(alt)
    ))
}

/// An `<img>` that holds its JPEG: a tenth of a PNG's size on tissue.
pub fn jpeg_tag(picture: &RgbImage, alt: &str) -> Result<String, ImageError> {
    let mut jpeg = Vec::new();
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY))?;
    let data = base64::engine::general_purpose::STANDARD.encode(&jpeg);
    Ok(format!(
        "<img width=\"{}\" height=\"{}\" alt=\"{}\" src=\"data:image/jpeg;base64,{data}\">",
        picture.width(),
        picture.height(),
        escape(alt)
    ))
}

/// A folder's name as a link has it.
pub fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => out.push(char::from(byte)),
            false => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_its_parts_and_no_foreign_markup() {
        let html = page("a < b & \"c\"", "<p>text</p>");
        assert!(html.contains("<h1>a &lt; b &amp; &quot;c&quot;</h1>\n<p>text</p>"));
        assert!(!html.contains("http"), "nothing is fetched");
    }
}

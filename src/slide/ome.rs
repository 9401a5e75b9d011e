//! What OME-XML in a TIFF's ImageDescription says (<https://docs.openmicroscopy.org/ome-model/>).
//!
//! In: the text. Out: the first image's scale and channels. Never reads other images' values.

/// µm/px in x and y; `None` where the text is no OME-XML or states no physical size.
pub fn physical_mpp(text: &str) -> Option<[f64; 2]> {
    let pixels = pixels_tag(text)?;
    let axis = |name: &str| {
        let size = attribute(pixels, name)?.trim().parse::<f64>().ok()?;
        let um = match attribute(pixels, &format!("{name}Unit")) {
            None | Some("µm" | "μm" | "um" | "&#181;m" | "&#xB5;m" | "micron") => 1.0,
            Some("nm") => 1e-3,
            Some("mm") => 1e3,
            Some("cm") => 1e4,
            Some("m") => 1e6,
            Some(_) => return None,
        };
        Some(size * um)
    };
    match [axis("PhysicalSizeX"), axis("PhysicalSizeY")] {
        [Some(x), Some(y)] => Some([x, y]),
        _ => None,
    }
}

/// Whether the first image has one plane in each of three channels of one sample: red, green, blue.
pub fn is_three_channels(text: &str) -> bool {
    let Some(pixels) = pixels_tag(text) else {
        return false;
    };
    let count = |name| attribute(pixels, name).unwrap_or("1");
    count("SizeC") == "3" && count("SizeZ") == "1" && count("SizeT") == "1"
}

/// The first `<Pixels …>` tag.
fn pixels_tag(text: &str) -> Option<&str> {
    let ome = &text[text.find("<OME")?..];
    let tag = &ome[ome.find("<Pixels")?..];
    Some(&tag[..tag.find('>')?])
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    tag.split_ascii_whitespace().find_map(|part| {
        let value = part.strip_prefix(name)?.strip_prefix('=')?;
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        value[1..].split(quote).next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_their_units() {
        let ome = |attributes: &str| {
            format!("<?xml?><OME><Image><Pixels ID=\"P\" {attributes}/></Image></OME>")
        };
        let um = ome("PhysicalSizeX=\"0.25\" PhysicalSizeXUnit=\"µm\" PhysicalSizeY='0.5'");
        assert_eq!(physical_mpp(&um), Some([0.25, 0.5]));
        let nm = ome(
            "PhysicalSizeX=\"250\" PhysicalSizeXUnit=\"nm\" PhysicalSizeY=\"250\" PhysicalSizeYUnit=\"nm\"",
        );
        assert_eq!(physical_mpp(&nm), Some([0.25, 0.25]));
        let pixel = ome("PhysicalSizeX=\"1\" PhysicalSizeXUnit=\"pixel\" PhysicalSizeY=\"1\"");
        assert_eq!(physical_mpp(&pixel), None);
        assert_eq!(physical_mpp("Aperio PhysicalSizeX=\"0.25\""), None);
        assert!(is_three_channels(&ome(
            "SizeC=\"3\" SizeZ=\"1\" SizeT=\"1\""
        )));
        assert!(!is_three_channels(&ome("SizeC=\"3\" SizeZ=\"3\"")));
    }
}

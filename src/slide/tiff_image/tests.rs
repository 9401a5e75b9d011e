//! Hand-made TIFFs of 3 x 2 px whose pixels are known.

use super::*;

const W: u16 = 3;
const H: u16 = 2;
/// Red, green, blue of each px.
const PIXELS: [[u8; 3]; 6] = [
    [200, 100, 0],
    [10, 20, 30],
    [255, 255, 255],
    [0, 0, 0],
    [77, 0, 199],
    [1, 2, 3],
];

/// A page of one strip: its SHORT tags beside size, strip and description, and its data.
struct TestPage {
    size: [u16; 2],
    tags: Vec<(u16, Vec<u16>)>,
    description: String,
    data: Vec<u8>,
}

impl TestPage {
    fn new(photometric: u16, bits: u16, samples: u16, format: u16, data: Vec<u8>) -> Self {
        let n = usize::from(samples);
        Self {
            size: [W, H],
            tags: vec![
                (258, vec![bits; n]),
                (262, vec![photometric]),
                (277, vec![samples]),
                (339, vec![format; n]),
            ],
            description: String::new(),
            data,
        }
    }

    fn with_extra(mut self, kind: u16) -> Self {
        self.tags.push((338, vec![kind]));
        self
    }
}

/// A little-endian TIFF of these pages (TIFF 6.0, section 2).
fn tiff_of(pages: &[TestPage]) -> Vec<u8> {
    let mut file = b"II*\0\0\0\0\0".to_vec();
    let mut link = 4;
    for page in pages {
        let mut put = |bytes: &[u8]| {
            let at = file.len() as u32;
            file.extend_from_slice(bytes);
            if file.len() % 2 == 1 {
                file.push(0);
            }
            at
        };
        let strip = put(&page.data);
        let mut entries = vec![
            (256, 3, 1, u32::from(page.size[0])),
            (257, 3, 1, u32::from(page.size[1])),
            (273, 4, 1, strip),
            (278, 3, 1, u32::from(page.size[1])),
            (279, 4, 1, page.data.len() as u32),
        ];
        for (tag, values) in &page.tags {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let value = match values[..] {
                [one] => u32::from(one),
                [a, b] => u32::from(a) | u32::from(b) << 16,
                _ => put(&bytes),
            };
            entries.push((*tag, 3, values.len() as u32, value));
        }
        if !page.description.is_empty() {
            let text = [page.description.as_bytes(), b"\0"].concat();
            let at = put(&text);
            entries.push((270, 2, text.len() as u32, at));
        }
        entries.sort_unstable();
        let start = file.len() as u32;
        file[link..link + 4].copy_from_slice(&start.to_le_bytes());
        file.extend((entries.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in entries {
            file.extend(tag.to_le_bytes());
            file.extend((kind as u16).to_le_bytes());
            file.extend(count.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        link = file.len();
        file.extend([0; 4]);
    }
    file
}

fn rgb_of(pages: &[TestPage]) -> (Vec<[u8; 3]>, Vec<String>) {
    let (rgb, notes) = decode(&tiff_of(pages), None).unwrap().into_rgb();
    (rgb.pixels().map(|px| px.0).collect(), notes)
}

fn refusal(pages: &[TestPage]) -> String {
    decode(&tiff_of(pages), None)
        .err()
        .expect("must be refused")
}

fn rgb_bytes<const N: usize>(sample: impl Fn(u8) -> [u8; N]) -> Vec<u8> {
    PIXELS.iter().flatten().flat_map(|&v| sample(v)).collect()
}

#[test]
fn eight_bits_are_read_in_any_width() {
    for (bits, format, data) in [
        (8, 1, rgb_bytes(|v| [v])),
        (16, 1, rgb_bytes(|v| (u16::from(v) * 257).to_le_bytes())),
        (16, 1, rgb_bytes(|v| u16::from(v).to_le_bytes())),
        (16, 2, rgb_bytes(|v| i16::from(v).to_le_bytes())),
        (32, 1, rgb_bytes(|v| u32::from(v).to_le_bytes())),
        (32, 3, rgb_bytes(|v| f32::from(v).to_le_bytes())),
        (32, 3, rgb_bytes(|v| (f32::from(v) / 255.0).to_le_bytes())),
    ] {
        let (got, _) = rgb_of(&[TestPage::new(RGB, bits, 3, format, data)]);
        assert_eq!(got, PIXELS, "{bits} bits, format {format}");
    }
    for (bits, format, data) in [
        (32, 3, rgb_bytes(|v| (f32::from(v) * 9.0).to_le_bytes())),
        (32, 3, rgb_bytes(|v| (f32::from(v) - 1.0).to_le_bytes())),
        (32, 3, rgb_bytes(|_| f32::NAN.to_le_bytes())),
        (32, 1, rgb_bytes(|v| (u32::from(v) << 24).to_le_bytes())),
        (16, 2, rgb_bytes(|v| (i16::from(v) - 9).to_le_bytes())),
    ] {
        let reason = refusal(&[TestPage::new(RGB, bits, 3, format, data)]);
        assert!(reason.contains("8-bit RGB"), "{reason}");
    }
}

#[test]
fn only_what_is_marked_as_alpha_is_transparency() {
    let alpha = [255u8, 128, 64, 0, 200, 128];
    let rgba = |premultiply: bool| -> Vec<u8> {
        let px = PIXELS.iter().zip(alpha);
        px.flat_map(|(px, a)| {
            let colour = |c: u8| (f64::from(c) * f64::from(a) / 255.0).round() as u8;
            let [r, g, b] = px.map(|c| if premultiply { colour(c) } else { c });
            [r, g, b, a]
        })
        .collect()
    };
    let page = |premultiplied| TestPage::new(RGB, 8, 4, 1, rgba(premultiplied));
    let (straight, _) = rgb_of(&[page(false).with_extra(UNASSOCIATED_ALPHA)]);
    for ((got, px), a) in straight.iter().zip(PIXELS).zip(alpha) {
        let a = f64::from(a) / 255.0;
        let want = px.map(|c| (f64::from(c) * a + 255.0 * (1.0 - a)).round() as u8);
        assert_eq!(*got, want);
    }
    let (associated, _) = rgb_of(&[page(true).with_extra(ASSOCIATED_ALPHA)]);
    assert_eq!(associated, straight);
    assert_eq!(rgb_of(&[page(false).with_extra(0)]).0, PIXELS);
    assert_eq!(rgb_of(&[page(false)]).0, PIXELS);
}

#[test]
fn grey_planes_are_composed_only_where_ome_xml_says_so() {
    let plane = |c: usize, description: &str| TestPage {
        description: description.to_owned(),
        ..TestPage::new(1, 8, 1, 1, PIXELS.iter().map(|px| px[c]).collect())
    };
    let planes = |text: &str| [plane(0, text), plane(1, ""), plane(2, "")];
    let ome = "<OME><Image><Pixels SizeC=\"3\" SizeT=\"1\" SizeZ=\"1\"/></Image></OME>";
    let (got, notes) = rgb_of(&planes(ome));
    assert_eq!(got, PIXELS);
    assert!(notes[0].contains("red, green and blue"), "{notes:?}");
    assert!(refusal(&planes("")).contains("three grey pages"));
    let data = rgb_bytes(|v| [v]);
    assert!(refusal(&[TestPage::new(1, 8, 3, 1, data)]).contains("not marked as red"));
}

#[test]
fn the_largest_page_is_read_and_said() {
    let thumb = TestPage {
        size: [1, 1],
        ..TestPage::new(RGB, 8, 3, 1, vec![9; 3])
    };
    let page = || TestPage::new(RGB, 8, 3, 1, rgb_bytes(|v| [v]));
    let (got, notes) = rgb_of(&[thumb, page()]);
    assert_eq!(got, PIXELS);
    assert!(notes[0].contains("page 2, the largest"), "{notes:?}");
    let (got, notes) = rgb_of(&[page(), TestPage::new(RGB, 8, 3, 1, vec![7; 18])]);
    assert_eq!(got, PIXELS);
    assert!(
        notes[0].contains("page 1, the first of the largest"),
        "{notes:?}"
    );
    assert!(rgb_of(&[page()]).1.is_empty());
}

#[test]
fn a_page_is_chosen_by_its_number() {
    let page = |value: u8| TestPage::new(RGB, 8, 3, 1, vec![value; 18]);
    let file = tiff_of(&[page(1), page(2), page(3)]);
    for number in 1..=3 {
        let picture = decode(&file, Some(number)).unwrap();
        assert!(picture.notes.is_empty());
        assert_eq!(picture.into_rgb().0.into_raw(), vec![number as u8; 18]);
    }
    for number in [0, 4] {
        let reason = decode(&file, Some(number)).err().unwrap();
        assert!(
            reason.contains(&format!("has 3 pages, no page {number}")),
            "{reason}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    std::fs::write(&path, &file).unwrap();
    let hash = |page| {
        crate::slide::open_page(&path, page)
            .unwrap()
            .info()
            .quickhash
            .clone()
    };
    assert!(hash(None) != hash(Some(2)) && hash(Some(2)) != hash(Some(3)));
}

#[test]
fn a_strip_that_is_not_there_is_damage() {
    let mut page = TestPage::new(RGB, 8, 3, 1, rgb_bytes(|v| [v]));
    page.data.clear();
    assert!(refusal(&[page]).contains("strip or tile 1 of 1 is missing"));
    let mut file = tiff_of(&[TestPage::new(RGB, 8, 3, 1, rgb_bytes(|v| [v]))]);
    // The strip's entry: tag 273, LONG, one value.
    let entry = [0x11, 1, 4, 0, 1, 0, 0, 0];
    let at = file.windows(8).position(|w| w == entry).unwrap() + 8;
    let beyond = file.len() as u32 - 4;
    file[at..at + 4].copy_from_slice(&beyond.to_le_bytes());
    let reason = decode(&file, None).err().unwrap();
    assert!(reason.contains("beyond the end"), "{reason}");
}

#[test]
fn big_tiff_is_read() {
    let mut file = Cursor::new(Vec::new());
    let mut encoder = ::tiff::encoder::TiffEncoder::new_big(&mut file).unwrap();
    let data = rgb_bytes(|v| [v]);
    encoder
        .write_image::<::tiff::encoder::colortype::RGB8>(W.into(), H.into(), &data)
        .unwrap();
    let bytes = file.into_inner();
    assert!(is_tiff(&bytes));
    assert_eq!(decode(&bytes, None).unwrap().into_rgb().0.into_raw(), data);
}

#[test]
fn ycbcr_is_jfifs() {
    for ([y, cb, cr], rgb) in [
        ([128, 128, 128], [128, 128, 128]),
        ([76, 85, 255], [254, 0, 0]),
        ([255, 128, 128], [255; 3]),
    ] {
        let mut px = [y, cb, cr];
        ycbcr_to_rgb(&mut px);
        assert_eq!(px, rgb);
    }
}

use super::*;
use crate::plan::{PatchGrid, PatchIndex};
use crate::result::{Examined, fixture};
use crate::tissue::Regions;

/// A slide of 4 x 1 fields with 12, 0, 3 and 20 nuclei; those of the first field are unsure of their type.
fn result() -> SlideResult {
    let mut result = fixture::result(1.0);
    result.meta.frames.level0_size_px = [2048, 512];
    result.meta.frames.proc_size_px = [2048, 512];
    let one = result.nuclei[0].clone();
    result.nuclei.clear();
    for (field, count) in [(0, 12), (2, 3), (3, 20)] {
        for i in 0..count {
            let mut nucleus = one.clone();
            nucleus.bbox = Rect::new(field * 512 + 20 * i + 8, 100, one.bbox.w, one.bbox.h);
            if field == 0 {
                nucleus.prob_sums = vec![2550, 2550, 2550];
            }
            result.nuclei.push(nucleus);
        }
    }
    result
}

#[test]
fn rules_choose_what_they_say() {
    let result = result();
    let mut mask = TissueMask::all([2048, 512], [0.25; 2]);
    // Tissue in the two middle fields alone.
    for (i, tissue) in mask.tissue.iter_mut().enumerate() {
        let x = f64::from(i as u32 % mask.width) * mask.cell_level0_px[0];
        *tissue = (512.0..1536.0).contains(&x);
    }
    let fields = choose(&result, &mask);
    let of = |rule: Rule| -> Vec<(u64, usize)> {
        fields
            .iter()
            .filter(|f| f.rule == rule)
            .map(|f| (f.level0_px[0], f.nuclei))
            .collect()
    };
    assert_eq!(of(Rule::Densest), [(1536, 20), (0, 12), (1024, 3)]);
    // Those with enough nuclei, and the last field of tissue, are shown already.
    assert_eq!(of(Rule::Uncertain), []);
    assert_eq!(of(Rule::Random), [(512, 0)]);
    assert_eq!(choose(&result, &mask), fields);
    let mut other = result.clone();
    other.meta.slide.quickhash = "another slide".into();
    assert_ne!(seed(&other), seed(&result));
}

/// 12 fields in three rows; 30 to 41 nuclei each.
fn crowded() -> SlideResult {
    let mut result = result();
    let size = [2048, 1536];
    result.meta.frames.level0_size_px = size;
    result.meta.frames.proc_size_px = [2048, 1536];
    let one = result.nuclei[0].clone();
    result.nuclei.clear();
    for field in 0..12 {
        for i in 0..30 + field {
            let mut nucleus = one.clone();
            let (x, y) = (field % 4 * 512 + 12 * i + 8, field / 4 * 512 + 100);
            nucleus.bbox = Rect::new(x, y, one.bbox.w, one.bbox.h);
            result.nuclei.push(nucleus);
        }
    }
    result
}

#[test]
fn no_field_is_shown_twice() {
    let fields = choose(&crowded(), &TissueMask::all([2048, 1536], [0.25; 2]));
    let places: HashSet<[u64; 4]> = fields.iter().map(|f| f.level0_px).collect();
    assert_eq!((fields.len(), places.len()), (9, 9));
}

#[test]
fn fields_lie_in_the_region_and_where_something_was_examined() {
    let mask = TissueMask::all([2048, 1536], [0.25; 2]);
    let mut result = crowded();
    let level0_box = [300.0, 200.0, 1900.0, 1300.0];
    let area = Area::new(mask.clone(), [2048, 1536], [0.25; 2]).within_box(level0_box);
    result.meta.region = area.region(false);
    let inside = |fields: &[Field]| {
        fields.iter().all(|field| {
            let [x, y, w, h] = field.level0_px;
            x >= 300 && y >= 200 && x + w <= 1900 && y + h <= 1300
        })
    };
    let fields = choose(&result, &mask);
    assert!(inside(&fields) && fields.len() == 6, "{fields:?}");

    // One patch in the middle was not read: the fields that touch it are not shown.
    let grid = PatchGrid {
        slide_px: [2048, 1536],
        patch_in_px: 120,
        patch_out_px: 100,
    };
    let patches = (0..21).flat_map(|col| (0..16).map(move |row| PatchIndex { col, row }));
    result.examined = Some(Examined {
        tissue_mm2: 1.0,
        on_tissue: Vec::new(),
        cell_um: [8.0; 2],
        grid,
        patches: patches.filter(|at| (at.col, at.row) != (10, 5)).collect(),
    });
    let fields = choose(&result, &mask);
    assert!(fields.len() == 5, "{fields:?}");
    let holds = |f: &Field| f.level0_px[0] == 812 && f.level0_px[1] == 200;
    assert!(!fields.iter().any(holds));

    // Nothing was examined, nothing is shown.
    if let Some(examined) = &mut result.examined {
        examined.patches.clear();
    }
    assert_eq!(choose(&result, &mask), []);
}

#[test]
fn what_lies_outside_the_region_is_pale() {
    let mask = TissueMask::all([2048, 1536], [0.25; 2]);
    let mut result = crowded();
    // No field of 512 px lies wholly in a triangle of 600 px.
    let corners = vec![vec![vec![[600.0, 600.0], [1200.0, 600.0], [600.0, 1200.0]]]];
    let area = Area::new(mask.clone(), [2048, 1536], [0.25; 2]);
    let area = area.within(Regions::from_polygons(&corners));
    result.meta.region = area.region(false);
    let fields = choose(&result, &mask);
    assert_eq!(fields.len(), 1);
    let share = fields[0].region_share;
    assert!((share - 0.6571).abs() < 1e-3, "{share}");
    assert!(fields[0].caption().contains("outside the region"));
    let pixels = RgbImage::from_pixel(512, 512, Rgb([40, 80, 120]));
    let picture = outlined(&result, &mask, &fields[0], &pixels);
    assert_eq!(*picture.get_pixel(10, 500), Rgb([40, 80, 120]));
    assert_eq!(*picture.get_pixel(500, 500), Rgb([201, 211, 221]));
}

#[test]
fn crops_are_read_back_as_they_were_written() {
    let result = result();
    let mask = TissueMask::all([2048, 512], [0.25; 2]);
    let white = RgbImage::from_pixel(512, 512, Rgb([255; 3]));
    let mut fields: Vec<_> = choose(&result, &mask)
        .into_iter()
        .map(|field| (field, white.clone()))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    assert!(read(folder.path()).unwrap().is_empty());
    let written = write(&result, &mask, &fields, folder.path()).unwrap();
    assert_eq!(read(folder.path()).unwrap(), written);
    // The densest field's first nucleus: its upper left corner at (8, 100).
    let densest = &written[0].picture;
    assert_ne!(densest.get_pixel(8, 100), white.get_pixel(0, 0));
    assert_eq!(densest.get_pixel(6, 98), white.get_pixel(0, 0));
    fields.truncate(1);
    write(&result, &mask, &fields, folder.path()).unwrap();
    assert_eq!(
        std::fs::read_dir(folder.path().join("crops"))
            .unwrap()
            .count(),
        3
    );
}

#[test]
fn an_image_smaller_than_a_field_is_one_field() {
    let result = fixture::result(1.0);
    let fields = choose(&result, &TissueMask::all([60, 40], [0.25; 2]));
    assert!(fields.iter().all(|f| f.level0_px == [0, 0, 60, 40]));
    assert_eq!(fields.len(), 1, "the only field is shown once");
}

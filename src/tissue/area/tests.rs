use super::*;

const SIZE: [u64; 2] = [3200, 3200];
const MPP: [f64; 2] = [0.25, 0.25];

/// Cells of 32 level-0 px; 16 µm are 64 px.
fn mask(tissue: &[(u32, u32)]) -> TissueMask {
    let mut mask = TissueMask::uniform(SIZE, MPP, false);
    for &(col, row) in tissue {
        mask.tissue[(row * mask.width + col) as usize] = true;
    }
    mask
}

#[test]
fn tissue_is_widened_by_16_um() {
    let area = Area::new(mask(&[(50, 50)]), SIZE, MPP);
    // The cell covers 1600..1632, widened 1536..1696.
    assert!(!area.meets([1436.0, 1600.0, 1536.0, 1610.0]));
    assert!(area.meets([1436.0, 1600.0, 1536.5, 1610.0]));
    assert!(area.meets([1695.5, 1695.5, 1700.0, 1700.0]));
    assert!(!area.meets([1696.0, 1600.0, 1700.0, 1610.0]));
    assert!(!area.meets([1600.0, 1600.0, 1600.0, 1600.0]));
    assert!((area.tissue_mm2() - 64e-6).abs() < 1e-12);
}

/// Against a search through all cells.
#[test]
fn sums_agree_with_a_search() {
    let mut state = 1u64;
    let mut random = |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % n
    };
    let cells: Vec<(u32, u32)> = (0..60)
        .map(|_| (random(100) as u32, random(100) as u32))
        .collect();
    let area = Area::new(mask(&cells), SIZE, MPP);
    let mut met = 0;
    for _ in 0..2000 {
        let (x, y) = (random(3200) as f64, random(3200) as f64);
        let rect = [
            x,
            y,
            x + 1.0 + random(200) as f64,
            y + 1.0 + random(200) as f64,
        ];
        let want = cells.iter().any(|&(col, row)| {
            let (left, top) = (f64::from(col) * 32.0, f64::from(row) * 32.0);
            rect[0] < left + 96.0
                && rect[2] > left - 64.0
                && rect[1] < top + 96.0
                && rect[3] > top - 64.0
        });
        assert_eq!(area.meets(rect), want, "{rect:?}");
        met += u32::from(want);
    }
    assert!(met > 200 && met < 1800, "{met}");
}

#[test]
fn mask_and_regions_and_box_must_have_something_in_common() {
    // Widened tissue is 1536..1696. Widened by 64 px, `beside` starts at 1700: the box meets both,
    // but they do not meet.
    let rect = [1500.0, 1500.0, 1800.0, 1800.0];
    let tissue = Area::new(mask(&[(50, 50)]), SIZE, MPP);
    let beside = Regions::from_polygons(&[square(1764.0, 1500.0, 300.0)]);
    let over = Regions::from_polygons(&[square(1754.0, 1500.0, 300.0)]);
    let around = Regions::from_polygons(&[square(0.0, 0.0, 3000.0)]);
    assert!(tissue.meets(rect));
    assert!(!tissue.clone().within(beside).meets(rect));
    assert!(tissue.clone().within(over.clone()).meets(rect));
    assert!(tissue.clone().within(around).meets(rect));
    assert!(
        !tissue
            .clone()
            .within_box([1760.0, 0.0, 3200.0, 3200.0])
            .meets(rect)
    );
    assert!(
        tissue
            .clone()
            .within_box([1759.0, 0.0, 3200.0, 3200.0])
            .meets(rect)
    );
    // Within the first box, the region lies beyond the tissue.
    let both = tissue.clone().within(over.clone());
    assert!(
        !both
            .clone()
            .within_box([1761.0, 0.0, 3200.0, 3200.0])
            .meets(rect)
    );
    assert!(both.within_box([1755.0, 0.0, 3200.0, 3200.0]).meets(rect));
    let everywhere = Area::new(TissueMask::all(SIZE, MPP), SIZE, MPP).within(over);
    assert!(everywhere.meets(rect));
    assert!(!everywhere.meets([0.0, 0.0, 1690.0, 3200.0]));
    let region = everywhere.region(false).unwrap();
    assert!((region.tissue_mm2 - 300.0 * 300.0 * 0.0625e-6).abs() < 1e-12);
}

fn square(left: f64, top: f64, side: f64) -> Vec<Vec<[f64; 2]>> {
    let (right, bottom) = (left + side, top + side);
    vec![vec![
        [left, top],
        [right, top],
        [right, bottom],
        [left, bottom],
    ]]
}

/// µm² of the region of a slide of 400 x 300 px of 0.5 x 0.25 µm, in units of its pixels.
fn region_px(polygons: Vec<Vec<Vec<[f64; 2]>>>, level0_box: Option<[f64; 4]>) -> f64 {
    let (size, mpp) = ([400, 300], [0.5, 0.25]);
    let mut area = Area::new(TissueMask::all(size, mpp), size, mpp);
    if !polygons.is_empty() {
        area = area.within(Regions::from_polygons(&polygons));
    }
    if let Some(level0_box) = level0_box {
        area = area.within_box(level0_box);
    }
    let region = area.region(false).unwrap();
    assert!((region.mm2 - region.tissue_mm2).abs() < 1e-12);
    region.mm2 * 8e6
}

#[test]
fn areas_are_those_of_plane_geometry() {
    let near = |found: f64, expected: f64| (found - expected).abs() < 1e-6 * expected.max(1.0);
    // Two overlapping squares of 100 px: 20,000 - 50 x 50.
    let two = vec![square(10.0, 10.0, 100.0), square(60.0, 60.0, 100.0)];
    assert!(near(region_px(two.clone(), None), 17_500.0));
    // Cut by a box, and by the slide's rim.
    let cut = region_px(two, Some([0.0, 0.0, 60.0, 60.0]));
    assert!(near(cut, 2500.0));
    let over_the_rim = vec![square(350.0, 250.0, 100.0)];
    assert!(near(region_px(over_the_rim, None), 2500.0));
    // A hole.
    let mut ring = square(0.0, 0.0, 100.0);
    ring.extend(square(25.0, 25.0, 50.0));
    assert!(near(region_px(vec![ring], None), 7500.0));
    assert_eq!(region_px(vec![square(500.0, 0.0, 10.0)], None), 0.0);
    // A box between pixels.
    assert!(near(
        region_px(vec![], Some([0.25, 0.5, 1.0, 1.75])),
        0.9375
    ));
    // A triangle and a circle, whose outlines meet no grid.
    let triangle = vec![vec![vec![[10.3, 20.7], [310.3, 20.7], [10.3, 170.7]]]];
    let found = region_px(triangle, None);
    assert!((found / 22_500.0 - 1.0).abs() < 1e-3, "{found}");
    let circle = (0..720).map(|i| {
        let (sin, cos) = (f64::from(i) * 0.5).to_radians().sin_cos();
        [200.0 + 120.0 * cos, 150.0 + 120.0 * sin]
    });
    let found = region_px(vec![vec![circle.collect()]], None);
    let expected = std::f64::consts::PI * 120.0 * 120.0;
    assert!((found / expected - 1.0).abs() < 1e-4, "{found}");
}

/// Parts of a slide add up to the whole, whatever squares they are counted in, with mask, polygon and box at once.
#[test]
fn tissue_of_squares_adds_up_for_any_squares() {
    let mut mask = TissueMask::uniform(SIZE, MPP, false);
    for (at, cell) in mask.tissue.iter_mut().enumerate() {
        *cell = at % 7 < 3 || at % 11 == 0;
    }
    let polygon = vec![vec![vec![
        [300.0, 100.0],
        [3000.0, 900.0],
        [1500.0, 3100.0],
        [200.5, 2000.25],
    ]]];
    // Tissue by a plain count of points, 8 px apart.
    let (regions, limit) = (
        Regions::from_polygons(&polygon),
        [100.0, 300.0, 2500.0, 3000.0],
    );
    let points =
        (0..400).flat_map(|y| (0..400).map(move |x| [x, y].map(|v| f64::from(v) * 8.0 + 4.0)));
    let hits = points
        .filter(|&[x, y]| (100.0..2500.0).contains(&x) && (300.0..3000.0).contains(&y))
        .filter(|&point| mask.contains(point) && regions.contains(point))
        .count();
    let counted_mm2 = hits as f64 * 64.0 * 0.0625e-6;
    let area = Area::new(mask, SIZE, MPP).within(regions).within_box(limit);
    let whole = area.tissue_mm2();
    assert!(
        (whole / counted_mm2 - 1.0).abs() < 2e-3,
        "{whole} {counted_mm2}"
    );
    for side in [251.0, 700.0, 3200.0] {
        let count = (3200.0 / side) as i32 + 1;
        let squares = (0..count).flat_map(|y| (0..count).map(move |x| [x, y]));
        let sum: f64 = squares
            .map(|at| {
                let [x, y] = at.map(|v| f64::from(v) * side);
                area.tissue_mm2_in([x, y, x + side, y + side])
            })
            .sum();
        assert!((sum / whole - 1.0).abs() < 1e-4, "{side}: {sum} {whole}");
    }
}

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
    let square = |left: f64, top: f64, side: f64| {
        let (right, bottom) = (left + side, top + side);
        vec![vec![
            [left, top],
            [right, top],
            [right, bottom],
            [left, bottom],
        ]]
    };
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

//! Removes small groups of cells from a grid.
//!
//! In: booleans, row by row. Out: the same, changed in place. Never changes a group of enough
//! cells.

/// Flips every connected group of fewer than `min_cells` cells that are `kind`. `true` cells have 8
/// neighbours, `false` cells 4, so that groups of the two kinds never cross.
pub fn drop_small(cells: &mut [bool], width: usize, kind: bool, min_cells: usize) {
    if width == 0 {
        return;
    }
    let height = cells.len() / width;
    let mut seen = vec![false; cells.len()];
    let mut group = Vec::new();
    for start in 0..cells.len() {
        if seen[start] || cells[start] != kind {
            continue;
        }
        group.clear();
        group.push(start);
        seen[start] = true;
        let mut next = 0;
        while let Some(&at) = group.get(next) {
            next += 1;
            let (x, y) = (at % width, at / width);
            for ny in y.saturating_sub(1)..=(y + 1).min(height - 1) {
                for nx in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                    let corner = nx != x && ny != y;
                    let neighbour = ny * width + nx;
                    if (kind || !corner) && !seen[neighbour] && cells[neighbour] == kind {
                        seen[neighbour] = true;
                        group.push(neighbour);
                    }
                }
            }
        }
        if group.len() < min_cells {
            for &at in &group {
                cells[at] = !kind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(picture: &[&str]) -> (Vec<bool>, usize) {
        let bits = picture
            .iter()
            .flat_map(|row| row.bytes().map(|b| b == b'#'));
        (bits.collect(), picture[0].len())
    }

    #[test]
    fn tissue_holds_together_over_corners() {
        let picture = ["#..##", ".#..#", "..#..", ".....", "###.#"];
        let (mut got, width) = cells(&picture);
        drop_small(&mut got, width, true, 3);
        let (want, _) = cells(&["#..##", ".#..#", "..#..", ".....", "###.."]);
        assert_eq!(got, want);
        drop_small(&mut got, width, true, 4);
        assert!(got.iter().all(|&tissue| !tissue));
    }

    #[test]
    fn holes_hold_together_over_edges_only() {
        let picture = ["######", "#.##.#", "##.#.#", "######"];
        let (mut got, width) = cells(&picture);
        drop_small(&mut got, width, false, 2);
        let (want, _) = cells(&["######", "####.#", "####.#", "######"]);
        assert_eq!(got, want);
        drop_small(&mut got, width, false, 3);
        assert!(got.iter().all(|&tissue| tissue));
    }
}

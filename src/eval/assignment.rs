//! One-to-one assignment of least cost (Hungarian method; Kuhn 1955, Jonker and Volgenant 1987).

/// Pairs (row, column) of least total cost; every row or every column is used, whichever are fewer.
///
/// `cost(row, column)` must be finite. Time O(rows² columns).
pub fn assign_at_least_cost(
    rows: usize,
    columns: usize,
    cost: impl Fn(usize, usize) -> f64,
) -> Vec<(usize, usize)> {
    if rows <= columns {
        return assign_rows(rows, columns, &cost);
    }
    let turned = assign_rows(columns, rows, &|r, c| cost(c, r));
    let mut pairs: Vec<_> = turned.into_iter().map(|(c, r)| (r, c)).collect();
    pairs.sort_unstable();
    pairs
}

/// As [`assign_at_least_cost`], for `rows <= columns`.
fn assign_rows(
    rows: usize,
    columns: usize,
    cost: &dyn Fn(usize, usize) -> f64,
) -> Vec<(usize, usize)> {
    // Columns and rows count from 1; 0 means unmatched.
    let mut row_price = vec![0.0; rows + 1];
    let mut column_price = vec![0.0; columns + 1];
    let mut row_of = vec![0usize; columns + 1];
    let mut came_from = vec![0usize; columns + 1];
    for row in 1..=rows {
        row_of[0] = row;
        let mut column = 0;
        let mut slack = vec![f64::INFINITY; columns + 1];
        let mut used = vec![false; columns + 1];
        while row_of[column] != 0 {
            used[column] = true;
            let at = row_of[column];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for c in 1..=columns {
                if used[c] {
                    continue;
                }
                let reduced = cost(at - 1, c - 1) - row_price[at] - column_price[c];
                if reduced < slack[c] {
                    slack[c] = reduced;
                    came_from[c] = column;
                }
                if slack[c] < step {
                    (step, next) = (slack[c], c);
                }
            }
            for c in 0..=columns {
                if used[c] {
                    row_price[row_of[c]] += step;
                    column_price[c] -= step;
                } else {
                    slack[c] -= step;
                }
            }
            column = next;
        }
        while column != 0 {
            row_of[column] = row_of[came_from[column]];
            column = came_from[column];
        }
    }
    let mut pairs: Vec<_> = (1..=columns)
        .filter(|&c| row_of[c] != 0)
        .map(|c| (row_of[c] - 1, c - 1))
        .collect();
    pairs.sort_unstable();
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least total over all permutations.
    fn search_permutations(
        rows: usize,
        columns: usize,
        cost: &dyn Fn(usize, usize) -> f64,
        row: usize,
        used: &mut Vec<bool>,
    ) -> f64 {
        if row == rows {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for c in 0..columns {
            if !used[c] {
                used[c] = true;
                best = best
                    .min(cost(row, c) + search_permutations(rows, columns, cost, row + 1, used));
                used[c] = false;
            }
        }
        best
    }

    #[test]
    fn equals_brute_force_on_random_costs() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (rows, columns) = (rng.usize(1..6), rng.usize(1..7));
            let costs: Vec<f64> = (0..rows * columns)
                .map(|_| f64::from(rng.u32(0..30)))
                .collect();
            let cost = |r: usize, c: usize| costs[r * columns + c];
            let pairs = assign_at_least_cost(rows, columns, cost);
            assert_eq!(pairs.len(), rows.min(columns));
            let total: f64 = pairs.iter().map(|&(r, c)| cost(r, c)).sum();
            let best = if rows <= columns {
                search_permutations(rows, columns, &cost, 0, &mut vec![false; columns])
            } else {
                search_permutations(columns, rows, &|c, r| cost(r, c), 0, &mut vec![false; rows])
            };
            assert_eq!(total, best);
        }
    }
}

//! Numbering the ids of label maps without gaps.
//!
//! In: a map with arbitrary ids. Out: the same map with ids 1, 2, 3, …, and the old id of each. A
//! table by id then has as many entries as there are nuclei, however large the ids in the file are.
//! Never changes the order of the ids.

/// The ids of a map before [`Ids::renumber`].
pub struct Ids {
    /// Old id by new id; the first is 0, the background.
    old: Vec<u32>,
}

impl Ids {
    /// Numbers the ids of `map` from 1 without gaps, in their order; 0 stays 0.
    pub fn renumber(map: &mut [u32]) -> Self {
        // Most neighbours have the same id, so this list is far shorter than the map.
        let changes = map.windows(2).filter(|w| w[0] != w[1]).map(|w| w[1]);
        let mut old: Vec<u32> = [0]
            .into_iter()
            .chain(map.first().copied())
            .chain(changes)
            .collect();
        old.sort_unstable();
        old.dedup();
        let ids = Self { old };
        let mut last = (0, 0);
        for id in map {
            if *id != last.0 {
                last = (*id, ids.new_of(*id).unwrap_or(0) as u32);
            }
            *id = last.1;
        }
        ids
    }

    /// The new id of the old id `old`; `None` if no pixel had it.
    pub fn new_of(&self, old: u32) -> Option<usize> {
        self.old.binary_search(&old).ok()
    }

    /// The largest id that a pixel had; `None` for a map of background alone.
    pub fn largest(&self) -> Option<u32> {
        self.old.last().copied().filter(|id| *id > 0)
    }

    /// A table with `value` for each new id, the background included.
    pub fn table<T: Clone>(&self, value: T) -> Vec<T> {
        vec![value; self.old.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lose_their_gaps_and_keep_their_order() {
        let mut map = [0, 7, 7, 4_000_000_000, 0, 3, 7, u32::MAX];
        let ids = Ids::renumber(&mut map);
        assert_eq!(map, [0, 2, 2, 3, 0, 1, 2, 4]);
        assert_eq!(
            [3, 7, u32::MAX].map(|id| ids.new_of(id)),
            [1, 2, 4].map(Some)
        );
        assert_eq!(ids.new_of(8), None);
        assert_eq!(ids.largest(), Some(u32::MAX));
        assert_eq!(ids.table(0u8).len(), 5);
        let mut full = [2, 2, 1];
        Ids::renumber(&mut full);
        assert_eq!(full, [2, 2, 1]);
        Ids::renumber(&mut []);
    }
}

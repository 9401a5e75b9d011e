//! Blocks that several threads want.
//!
//! In: a key and how to load its block. Out: the shared block. Loads a key once, however many
//! threads ask for it at the same time. Keeps at most a stated number of bytes: the least recently
//! used block goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use image::RgbImage;

type Key = (i32, i32);

enum Slot {
    /// Another thread is loading it.
    Loading,
    Ready {
        block: Arc<RgbImage>,
        used: u64,
    },
}

#[derive(Default)]
struct State {
    slots: HashMap<Key, Slot>,
    /// Ready keys by the time of their last use.
    by_use: BTreeMap<u64, Key>,
    bytes: usize,
    clock: u64,
}

/// Recently used blocks, shared by threads.
pub struct BlockCache {
    state: Mutex<State>,
    loaded: Condvar,
    max_bytes: usize,
}

impl BlockCache {
    pub fn new(max_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State::default()),
            loaded: Condvar::new(),
            max_bytes,
        }
    }

    /// The block of `key`, from memory or by `load`. A failed load leaves nothing behind: the next
    /// caller tries again.
    pub fn get_or_load<E>(
        &self,
        key: Key,
        load: impl FnOnce() -> Result<RgbImage, E>,
    ) -> Result<Arc<RgbImage>, E> {
        let mut state = self.lock();
        loop {
            match state.slots.get(&key) {
                Some(Slot::Ready { .. }) => {
                    if let Some(block) = state.touch(key) {
                        return Ok(block);
                    }
                }
                Some(Slot::Loading) => {
                    state = self
                        .loaded
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        state.slots.insert(key, Slot::Loading);
        drop(state);
        let claim = Claim { cache: self, key };
        let block = Arc::new(load()?);
        claim.fulfil(Arc::clone(&block));
        Ok(block)
    }

    /// The block of `key`, if it is in memory.
    pub fn get(&self, key: Key) -> Option<Arc<RgbImage>> {
        self.lock().touch(key)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn touch(&mut self, key: Key) -> Option<Arc<RgbImage>> {
        self.clock += 1;
        let Some(Slot::Ready { block, used }) = self.slots.get_mut(&key) else {
            return None;
        };
        self.by_use.remove(used);
        *used = self.clock;
        self.by_use.insert(self.clock, key);
        Some(Arc::clone(block))
    }

    fn insert(&mut self, key: Key, block: Arc<RgbImage>, max_bytes: usize) {
        self.clock += 1;
        self.bytes += block.as_raw().len();
        self.by_use.insert(self.clock, key);
        let used = self.clock;
        self.slots.insert(key, Slot::Ready { block, used });
        while self.bytes > max_bytes {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            if let Some(Slot::Ready { block, .. }) = self.slots.remove(&oldest) {
                self.bytes -= block.as_raw().len();
            }
        }
    }
}

/// The right to load one key. Dropped without success (an error, a panic), it frees the key and
/// wakes the threads that wait for it.
struct Claim<'a> {
    cache: &'a BlockCache,
    key: Key,
}

impl Claim<'_> {
    fn fulfil(self, block: Arc<RgbImage>) {
        self.cache
            .lock()
            .insert(self.key, block, self.cache.max_bytes);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        if matches!(state.slots.get(&self.key), Some(Slot::Loading)) {
            state.slots.remove(&self.key);
        }
        drop(state);
        self.cache.loaded.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn block(side: u32) -> Result<RgbImage, ()> {
        Ok(RgbImage::new(side, side))
    }

    #[test]
    fn the_longest_unused_goes_and_the_bound_holds() {
        let cache = BlockCache::new(3 * 300);
        for key in 0..3 {
            cache.get_or_load((key, 0), || block(10)).unwrap();
        }
        cache.get_or_load((0, 0), || Err(())).unwrap();
        cache.get_or_load((3, 0), || block(10)).unwrap();
        assert_eq!(cache.lock().bytes, 900);
        assert!(cache.get_or_load((0, 0), || Err(())).is_ok());
        assert!(cache.get_or_load((1, 0), || Err(())).is_err());
        assert!(cache.get_or_load((2, 0), || Err(())).is_ok());
        // A block that is larger than the whole cache is given, not kept.
        assert_eq!(
            cache.get_or_load((9, 9), || block(100)).unwrap().width(),
            100
        );
        assert_eq!(cache.lock().bytes, 0);
    }

    #[test]
    fn threads_that_ask_for_one_block_cause_one_load() {
        let cache = BlockCache::new(1 << 20);
        let loads = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for key in 0..20 {
                        let got = cache.get_or_load((key, key), || {
                            loads.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(std::time::Duration::from_millis(2));
                            block(4)
                        });
                        assert!(got.is_ok());
                    }
                });
            }
        });
        assert_eq!(loads.load(Ordering::Relaxed), 20);
    }

    #[test]
    fn a_failed_or_panicked_load_frees_the_key() {
        let cache = BlockCache::new(1 << 20);
        assert!(cache.get_or_load((0, 0), || Err(())).is_err());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get_or_load((0, 0), || -> Result<RgbImage, ()> { panic!("reader") })
        }));
        assert!(panicked.is_err());
        assert!(cache.get_or_load((0, 0), || block(1)).is_ok());
    }
}

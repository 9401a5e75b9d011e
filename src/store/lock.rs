//! Who works on a store.
//!
//! In: the store's folder. Out: a [`Lock`] that holds until it is dropped or its process dies, however it dies. One
//! process alone, or any number of shards together; who comes second is refused, never kept waiting for long. Says
//! nothing about readers: `export` may read while others write, since every file is there whole or not at all.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{StoreError, atomic};

/// A file of the store's folder, never removed, so that all who lock it lock the same one.
const NAME: &str = ".lock";
/// Another shard makes the store within this time, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(20);

/// The right to write into a store. Where the file system knows no locks it is empty, and nothing is promised.
#[derive(Debug)]
pub struct Lock {
    /// Closing it unlocks.
    _file: Option<File>,
}

impl Lock {
    /// For one process alone.
    ///
    /// # Errors
    /// [`StoreError::Busy`] where another process, or a shard, has it.
    pub fn alone(store: &Path) -> Result<Self, StoreError> {
        let file = open(store)?;
        let locked = file.try_lock();
        settle(file, locked)?.ok_or_else(|| StoreError::Busy { path: store.into() })
    }

    /// For one of several shards. `make` makes the store if it is not there; one shard does, the others wait.
    pub fn shared<E: From<StoreError>>(
        store: &Path,
        make: impl FnOnce() -> Result<(), E>,
    ) -> Result<Self, E> {
        let is_made = || store.join("zarr.json").exists();
        let begun = Instant::now();
        let mut make = Some(make);
        loop {
            if is_made() {
                let file = open(store)?;
                let locked = file.try_lock_shared();
                if let Some(lock) = settle(file, locked)? {
                    return Ok(lock);
                }
            } else {
                let file = open(store)?;
                let locked = file.try_lock();
                if let Some(lock) = settle(file, locked)? {
                    if !is_made()
                        && let Some(make) = make.take()
                    {
                        make()?;
                    }
                    drop(lock);
                    continue;
                }
            }
            // The store is there and somebody has it alone: no shard keeps it so for long.
            if begun.elapsed() > PATIENCE || (is_made() && begun.elapsed() > PATIENCE / 20) {
                return Err(StoreError::Busy { path: store.into() }.into());
            }
            std::thread::sleep(RETRY);
        }
    }
}

fn open(store: &Path) -> Result<File, StoreError> {
    let failed = |e: io::Error| StoreError::Write {
        path: store.into(),
        reason: e.to_string(),
    };
    atomic::create_dir_all(store).map_err(failed)?;
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(store.join(NAME))
        .map_err(failed)
}

/// `None`: somebody else has it.
fn settle(file: File, locked: Result<(), TryLockError>) -> Result<Option<Lock>, StoreError> {
    match locked {
        Ok(()) => Ok(Some(Lock { _file: Some(file) })),
        Err(TryLockError::WouldBlock) => Ok(None),
        // A file system without locks: two processes still cannot tear a file, they only do the work twice.
        Err(TryLockError::Error(_)) => Ok(Some(Lock { _file: None })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(result: Result<Lock, StoreError>) -> bool {
        matches!(result, Err(StoreError::Busy { .. }))
    }

    #[test]
    fn one_alone_or_many_shards() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store.zarr");
        let alone = Lock::alone(&store).unwrap();
        assert!(busy(Lock::alone(&store)));
        drop(alone);
        let made = || -> Result<(), StoreError> {
            std::fs::write(store.join("zarr.json"), "{}").unwrap();
            Ok(())
        };
        let one = Lock::shared(&store, made).unwrap();
        let two = Lock::shared(&store, || -> Result<(), StoreError> {
            panic!("made twice")
        })
        .unwrap();
        assert!(busy(Lock::alone(&store)));
        drop((one, two));
        let alone = Lock::alone(&store).unwrap();
        assert!(busy(Lock::shared(&store, || -> Result<(), StoreError> {
            panic!("made twice")
        })));
        drop(alone);
        assert!(Lock::alone(&store).is_ok());
    }

    #[test]
    fn shards_that_start_together_make_one_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store.zarr");
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = || {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(100));
                        std::fs::write(store.join("zarr.json"), "{}").unwrap();
                        Ok::<_, StoreError>(())
                    };
                    Lock::shared(&store, make).unwrap();
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}

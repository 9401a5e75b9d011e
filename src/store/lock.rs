//! Which processes work on a store.
//!
//! In: the store's folder. Out: a [`Lock`] that holds until it is dropped or its process dies,
//! however it dies. One process works alone, or any number of shards together; any other is
//! refused, after a short wait at most. Readers need no lock: `export` may read while others write,
//! because every file is there whole or not at all.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{StoreError, atomic};

/// A file of the store's folder. It is never removed, so that all processes lock the same one.
const NAME: &str = ".lock";
/// Longest time to wait for another shard to make the store.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(20);

/// The right to write into a store. On a file system without locks it is empty.
#[derive(Debug)]
pub struct Lock {
    /// Closing it unlocks.
    _file: Option<File>,
}

impl Lock {
    /// Locks a store for one process alone.
    ///
    /// # Errors
    /// [`StoreError::Busy`] where another process or a shard has locked it.
    pub fn alone(store: &Path) -> Result<Self, StoreError> {
        let file = open(store)?;
        let locked = file.try_lock();
        settle(file, locked)?.ok_or_else(|| StoreError::Busy { path: store.into() })
    }

    /// Locks a store for one of several shards. If the store is not there, one shard runs `make`,
    /// and the others wait.
    ///
    /// # Errors
    /// [`StoreError::Busy`] where a process has locked it alone, and the errors of `make`.
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
            // A shard locks a finished store alone for a moment only, so another process has it.
            if begun.elapsed() > PATIENCE || (is_made() && begun.elapsed() > PATIENCE / 20) {
                return Err(StoreError::Busy { path: store.into() }.into());
            }
            std::thread::sleep(RETRY);
        }
    }
}

fn open(store: &Path) -> Result<File, StoreError> {
    let failed = |e: io::Error| StoreError::write(store, e);
    atomic::create_dir_all(store).map_err(failed)?;
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(store.join(NAME))
        .map_err(failed)
}

/// The outcome of a try to lock; `None` where another process has the lock.
fn settle(file: File, locked: Result<(), TryLockError>) -> Result<Option<Lock>, StoreError> {
    match locked {
        Ok(()) => Ok(Some(Lock { _file: Some(file) })),
        Err(TryLockError::WouldBlock) => Ok(None),
        // Without locks two processes do the same work twice, but still cannot tear a file.
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

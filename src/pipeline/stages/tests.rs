use super::*;

fn batches(most: usize, waits: bool) -> Batches {
    Batches {
        most: BatchLimit::new(most),
        filling: waits.then(|| Filling {
            turn: Mutex::default(),
            wait: Duration::from_secs(60),
        }),
    }
}

#[test]
fn a_devices_batch_waits_for_patches_that_come_and_ends_with_the_last() {
    // Nothing is ever in the queue but what somebody waits for.
    let (give, take) = bounded(0);
    let waiting = batches(4, true);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for i in 0..6 {
                give.send(i).unwrap();
            }
        });
        assert_eq!(waiting.next(&take).unwrap(), [0, 1, 2, 3]);
        assert_eq!(waiting.next(&take).unwrap(), [4, 5]);
        assert!(waiting.next(&take).is_none());
    });
}

#[test]
fn a_cpus_worker_takes_what_is_there() {
    let (give, take) = bounded(8);
    for i in 0..3 {
        give.send(i).unwrap();
    }
    assert_eq!(batches(2, false).next(&take).unwrap(), [0, 1]);
    assert_eq!(batches(2, false).next(&take).unwrap(), [2]);
}

use super::super::record::State;
use super::*;

fn desk(out: &Path, name: &str) -> Desk {
    let here = Owner {
        host: name.into(),
        // Not this machine's processes: only age tells whether it lives.
        processes_of: name.into(),
        ..Owner::default()
    };
    let (heartbeat, stale) = (Duration::from_millis(20), Duration::from_secs(3600));
    Desk::open(&Layout::new(out), here, heartbeat, stale).unwrap()
}

fn take(desk: &Desk, row: usize) -> Taken {
    let seen = desk.snapshot().unwrap();
    desk.take(row, &seen, |_| false).unwrap()
}

fn mine(taken: Taken) -> Claim {
    match taken {
        Taken::Mine(claim) => *claim,
        other => panic!("{other:?}"),
    }
}

fn ended(state: State) -> Record {
    Record {
        state,
        ..Record::default()
    }
}

/// Makes a claim's file as old as this, as an owner that does nothing would.
fn age(desk: &Desk, row: usize, generation: u64, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    let file = File::options()
        .write(true)
        .open(desk.path(row.into(), generation))
        .unwrap();
    file.set_modified(then).unwrap();
}

#[test]
fn one_has_a_row_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (desk(dir.path(), "a"), desk(dir.path(), "b"));
    let mut claim = mine(take(&a, 7));
    assert!(matches!(take(&b, 7), Taken::Busy { .. }));
    claim.beat(&Progress::default()).unwrap();
    claim.renew().unwrap();
    claim.finish(ended(State::Done)).unwrap();
    assert!(matches!(take(&b, 7), Taken::Not));
    assert_eq!(
        fs::read_dir(dir.path().join(".cohort/claims"))
            .unwrap()
            .count(),
        0
    );
    let records = record::generations(b.records()).unwrap();
    assert_eq!(records, [(7.into(), 2)].into());
    let record = record::read(b.records(), 7, 2).unwrap().unwrap();
    assert_eq!((record.state, record.generation), (State::Done, 2));
}

#[test]
fn a_row_that_was_given_back_is_free_and_a_failed_one_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (desk(dir.path(), "a"), desk(dir.path(), "b"));
    mine(take(&a, 0)).finish(ended(State::Stopped)).unwrap();
    let claim = mine(take(&b, 0));
    assert_eq!((claim.generation, claim.deaths()), (2, 0));
    claim.finish(ended(State::Failed)).unwrap();
    assert!(matches!(take(&a, 0), Taken::Not));
    let seen = a.snapshot().unwrap();
    let again = a.take(0, &seen, |record| record.state == State::Failed);
    assert_eq!(mine(again.unwrap()).generation, 3);
}

#[test]
fn a_sleeper_is_replaced_and_cannot_publish_whenever_it_wakes() {
    // It wakes up while its successor works, after it has published, and after it has ended.
    for successor_does in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (desk(dir.path(), "a"), desk(dir.path(), "b"));
        let mut sleeper = mine(take(&a, 3));
        age(&a, 3, 1, 7200);
        let mut successor = mine(take(&b, 3));
        assert_eq!((successor.generation, successor.deaths()), (2, 1));
        if successor_does > 0 {
            successor.renew().unwrap();
        }
        let expected = successor.generation;
        if successor_does > 1 {
            successor.finish(ended(State::Done)).unwrap();
        }
        assert_eq!(sleeper.beat(&Progress::default()), Err(Lost));
        assert_eq!(sleeper.renew(), Err(Lost));
        // Even a record that it should write counts less than its successor's.
        sleeper.finish(ended(State::Failed)).unwrap();
        let seen = b.snapshot().unwrap();
        let latest = seen.records[&3.into()].max(seen.claims.get(&3.into()).copied().unwrap_or(0));
        assert_eq!(latest, expected, "{successor_does}");
        if successor_does > 1 {
            let record = record::read(b.records(), 3, seen.records[&3.into()]).unwrap();
            assert_eq!(record.unwrap().state, State::Done);
            assert!(seen.claims.is_empty());
        }
    }
}

#[test]
fn of_a_sleeper_that_publishes_and_its_successor_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (desk(dir.path(), "a"), desk(dir.path(), "b"));
    let mut sleeper = mine(take(&a, 3));
    age(&a, 3, 1, 7200);
    let seen = b.snapshot().unwrap();
    sleeper.renew().unwrap();
    // The successor looked before, and finds its generation taken.
    assert!(matches!(
        b.take(3, &seen, |_| false).unwrap(),
        Taken::Busy { .. }
    ));
    assert!(matches!(take(&b, 3), Taken::Busy { .. }));
    sleeper.finish(ended(State::Done)).unwrap();
    assert!(matches!(take(&b, 3), Taken::Not));
}

#[test]
fn a_look_from_before_the_rows_whole_life_gives_no_claim() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (desk(dir.path(), "a"), desk(dir.path(), "b"));
    let seen = b.snapshot().unwrap();
    mine(take(&a, 1)).finish(ended(State::Done)).unwrap();
    assert!(matches!(b.take(1, &seen, |_| false).unwrap(), Taken::Not));
    assert!(b.snapshot().unwrap().claims.is_empty());
}

#[test]
fn ages_are_the_file_servers() {
    let dir = tempfile::tempdir().unwrap();
    // Another machine looks: there the owner's process cannot be seen.
    let (a, mut b) = (desk(dir.path(), "a"), desk(dir.path(), "b"));
    b.stale = Duration::from_secs(600);
    mine(take(&a, 0));
    age(&a, 0, 1, 500);
    assert!(matches!(take(&b, 0), Taken::Busy { .. }));
    // A file "from the future", as another machine's clock would stamp it, is fresh.
    let future = SystemTime::now() + Duration::from_secs(9999);
    File::options()
        .write(true)
        .open(a.path(0.into(), 1))
        .unwrap()
        .set_modified(future)
        .unwrap();
    assert!(matches!(take(&b, 0), Taken::Busy { age } if age.is_zero()));
    age(&a, 0, 1, 640);
    assert_eq!(mine(take(&b, 0)).generation, 2);
}

#[test]
fn a_claim_that_is_read_while_it_is_written_belongs_to_somebody() {
    let dir = tempfile::tempdir().unwrap();
    let a = desk(dir.path(), "a");
    fs::write(a.path(5.into(), 1), b"").unwrap();
    assert!(matches!(take(&a, 5), Taken::Busy { .. }));
    age(&a, 5, 1, 7200);
    assert_eq!(mine(take(&a, 5)).generation, 2);
}

/// As of a task that was killed after it had created a claim and before it looked whether the row had ended.
#[test]
fn claims_below_their_rows_record_are_tidied_away_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let a = desk(dir.path(), "a");
    mine(take(&a, 1)).finish(ended(State::Done)).unwrap();
    assert!(a.create(1.into(), 1, &ClaimText::default()).unwrap());
    let _working = mine(take(&a, 2));
    a.tidy().unwrap();
    assert_eq!(a.snapshot().unwrap().claims, [(2.into(), 1)].into());
}

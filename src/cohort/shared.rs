//! Where a row is whose tiles several tasks share: its parts, seen as one.
//!
//! In: the places of the parts. Out: the place of the row. A row is done where one of its tasks has joined all tiles and
//! written the results; while some parts are done and others are not, it is not, and says so. Reads no file.

use super::claim::{ClaimText, Progress, Seen};
use super::record::{Record, State};
use super::status::Place;

/// The place of a row whose parts are in these places.
pub(super) fn joined<'a>(parts: impl Iterator<Item = &'a Place>) -> Place {
    let parts: Vec<&Place> = parts.collect();
    let records: Vec<&Record> = parts.iter().filter_map(|place| record_of(place)).collect();
    let in_state = |state: State| records.iter().find(|record| record.state == state);
    for state in [State::Done, State::Incomplete] {
        if let Some(record) = in_state(state) {
            return Place::Ended(Box::new(whole(record, &records)));
        }
    }
    let running = |place: &&Place| matches!(place, Place::Running(_));
    if let Some(seen) = in_work(&parts, &records, running) {
        return Place::Running(seen);
    }
    if let Some(failed) = in_state(State::Failed) {
        return Place::Ended(Box::new(whole(failed, &records)));
    }
    if let Some(seen) = in_work(&parts, &records, |place| matches!(place, Place::Stale(_))) {
        return Place::Stale(seen);
    }
    let Some(first) = records.first() else {
        return Place::NeverStarted;
    };
    let done = records.iter().filter(|r| r.state == State::Share).count();
    let reason = format!(
        "{done} of {} parts are done; the row is not before all are",
        parts.len()
    );
    Place::Ended(Box::new(Record {
        state: State::Stopped,
        reason,
        ..whole(first, &records)
    }))
}

fn record_of(place: &Place) -> Option<&Record> {
    match place {
        Place::Ended(record) => Some(record),
        _ => None,
    }
}

/// The record of the part that says how the row ended, with the time and area of all.
fn whole(record: &Record, parts: &[&Record]) -> Record {
    Record {
        seconds: parts.iter().map(|part| part.seconds).sum(),
        mm2_done: parts.iter().map(|part| part.mm2_done).sum(),
        mm2_planned: parts.iter().map(|part| part.mm2_planned).sum(),
        attempts: parts.iter().map(|part| part.attempts).max().unwrap_or(0),
        ..record.clone()
    }
}

/// Those parts that are in work in this way, as one claim with what all parts have done; `None`: there are none.
fn in_work(parts: &[&Place], records: &[&Record], is: impl Fn(&&Place) -> bool) -> Option<Seen> {
    let seen = parts.iter().filter(|place| is(place));
    let seen: Vec<&Seen> = seen
        .filter_map(|place| match place {
            Place::Running(seen) | Place::Stale(seen) => Some(seen),
            _ => None,
        })
        .collect();
    let latest = seen.iter().min_by_key(|seen| seen.age)?;
    let mut progress = Progress::default();
    for text in seen.iter().filter_map(|seen| seen.text.as_ref()) {
        progress.mm2_done += text.progress.mm2_done;
        progress.mm2_before += text.progress.mm2_before;
        progress.mm2_planned += text.progress.mm2_planned;
        progress.nuclei += text.progress.nuclei;
        progress.seconds = progress.seconds.max(text.progress.seconds);
    }
    for record in records {
        progress.mm2_done += record.mm2_done;
        progress.mm2_before += record.mm2_done;
        progress.mm2_planned += record.mm2_planned;
    }
    let text = latest
        .text
        .clone()
        .map(|text| ClaimText { progress, ..text });
    Some(Seen {
        text,
        age: latest.age,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ended(state: State, seconds: f64) -> Place {
        Place::Ended(Box::new(Record {
            state,
            seconds,
            mm2_done: 2.0,
            mm2_planned: 2.0,
            ..Record::default()
        }))
    }

    fn seen(age_s: u64, mm2_done: f64) -> Seen {
        let progress = Progress {
            mm2_done,
            mm2_planned: 4.0,
            ..Progress::default()
        };
        let text = ClaimText {
            progress,
            ..ClaimText::default()
        };
        Seen {
            text: Some(text),
            age: Duration::from_secs(age_s),
        }
    }

    fn state(parts: &[Place]) -> (State, f64, String) {
        match joined(parts.iter()) {
            Place::Ended(record) => (record.state, record.seconds, record.reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_row_is_done_when_one_has_joined_it_and_half_done_before() {
        let share = || ended(State::Share, 1.0);
        let done = [share(), ended(State::Done, 5.0), share()];
        assert_eq!(state(&done), (State::Done, 7.0, String::new()));
        let (half, _, reason) = state(&[share(), Place::NeverStarted, share()]);
        assert_eq!(half, State::Stopped);
        assert!(reason.starts_with("2 of 3 parts are done"), "{reason}");
        let (half, _, reason) = state(&[ended(State::Stopped, 1.0), Place::NeverStarted]);
        assert_eq!(half, State::Stopped);
        assert!(reason.starts_with("0 of 2 parts"), "{reason}");
        assert_eq!(
            state(&[share(), ended(State::Failed, 1.0)]).0,
            State::Failed
        );
        let none = [Place::NeverStarted, Place::NeverStarted];
        assert_eq!(joined(none.iter()), Place::NeverStarted);
    }

    #[test]
    fn parts_in_work_are_one_claim_with_what_all_have_done() {
        let parts = [
            ended(State::Share, 1.0),
            Place::Running(seen(9, 1.0)),
            Place::Running(seen(3, 3.0)),
            ended(State::Failed, 1.0),
        ];
        let Place::Running(all) = joined(parts.iter()) else {
            panic!("it runs");
        };
        let progress = all.text.unwrap().progress;
        assert_eq!(all.age, Duration::from_secs(3));
        assert_eq!((progress.mm2_done, progress.mm2_planned), (8.0, 12.0));
        let stale = [ended(State::Share, 1.0), Place::Stale(seen(900, 1.0))];
        assert!(matches!(joined(stale.iter()), Place::Stale(_)));
    }
}

//! How ranks find out that they are of one mind: each tells the others a few named numbers, and
//! all compare them alike, so that all end alike.

use super::group::Group;
use crate::comm::{Failure, Transfer, Turn};
use crate::error::{Error, Status, listed};
use std::thread;
use std::time::Duration;

/// What one rank says of itself.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// What it is about to do.
    occasion: Occasion,
    /// Whether it can: the status that it will answer if not.
    status: Status,
    words: Vec<Word>,
}

/// When ranks compare what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A projection takes a communicator.
    Join = 1,
    /// Weights are committed.
    Commit = 2,
    /// A forward with transfers.
    Forward = 3,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    name: &'static str,
    value: i64,
    /// Whether it must be the same on all ranks.
    is_common: bool,
}

/// Numbers of a statement on the board: the occasion, the status, and room for words.
const NUMBERS: usize = 48;
const HEAD: usize = 2;

/// Bytes that each rank's statement takes.
const STATEMENT_BYTES: usize = NUMBERS * size_of::<i64>();

/// Bytes of a board for so many ranks.
pub(super) fn board_bytes(rank_count: usize) -> usize {
    rank_count * STATEMENT_BYTES
}

impl Statement {
    /// Of a rank that can do what it is about to do, unless there is an error.
    pub(super) fn new(occasion: Occasion, error: Option<&Error>) -> Self {
        let status = error.map_or(Status::Ok, |error| error.status);
        Self { occasion, status, words: Vec::new() }
    }

    /// Says something that must be the same on all ranks.
    pub(super) fn common(mut self, name: &'static str, value: i64) -> Self {
        self.words.push(Word { name, value, is_common: true });
        self
    }

    /// Says something of this rank.
    pub(super) fn own(mut self, name: &'static str, value: i64) -> Self {
        self.words.push(Word { name, value, is_common: false });
        self
    }

    fn numbers(&self) -> [i64; NUMBERS] {
        assert!(HEAD + self.words.len() <= NUMBERS, "a statement has room for all of its words");
        let mut numbers = [0; NUMBERS];
        (numbers[0], numbers[1]) = (self.occasion as i64, self.status as i64);
        numbers[HEAD..].iter_mut().zip(&self.words).for_each(|(number, word)| *number = word.value);
        numbers
    }
}

/// Tells the others and hears them. Gives what each rank said, or how they differ.
pub(super) fn agree(
    group: &Group,
    turn: &mut Turn<'_>,
    statement: &Statement,
) -> Result<Vec<[i64; NUMBERS]>, Error> {
    let said = tell(group, turn, &statement.numbers())?;
    differences(statement, &said)?;
    Ok(said)
}

/// What the other ranks said of an own word.
pub(super) fn word(said: &[i64; NUMBERS], at: usize) -> i64 {
    said[HEAD + at]
}

fn tell(
    group: &Group,
    turn: &mut Turn<'_>,
    numbers: &[i64; NUMBERS],
) -> Result<Vec<[i64; NUMBERS]>, Error> {
    const OPERATION: &str = "the agreement";
    let (wire, seat) = (&group.wire, turn.seat());
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    if wire.is_streamed() {
        // What is written waits for the stream, which may wait for ranks that do not come.
        wait(group, turn, OPERATION)?;
    }
    wire.write(seat.rank * STATEMENT_BYTES, &bytes)?;
    let sizes = vec![STATEMENT_BYTES; seat.rank_count];
    let transfer = Transfer::AllGather { buffer: wire.board(), bytes: &sizes };
    // SAFETY: the board has room for all ranks, and only this turn's holder uses it.
    unsafe { turn.start(OPERATION, &transfer, wire.stream()) }?;
    if wire.is_streamed() {
        wait(group, turn, OPERATION)?
    } else {
        turn.finish(OPERATION)?
    }
    let said = wire.read(board_bytes(seat.rank_count))?;
    Ok(said.chunks_exact(STATEMENT_BYTES).map(numbers_of).collect())
}

/// Waits for a stream without being held by it.
fn wait(group: &Group, turn: &mut Turn<'_>, operation: &str) -> Result<(), Error> {
    let until = turn.deadline();
    while !group.wire.is_done()? {
        turn.poll(operation)?;
        if until.is_over() {
            return Err(turn.fail(operation, &Failure::Late(Vec::new())));
        }
        thread::sleep(Duration::from_micros(50));
    }
    turn.poll(operation)
}

fn numbers_of(bytes: &[u8]) -> [i64; NUMBERS] {
    let mut numbers = [0; NUMBERS];
    for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(size_of::<i64>())) {
        *number = i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    numbers
}

/// Refuses ranks at different things, then ranks that cannot do them, then words that differ.
fn differences(statement: &Statement, said: &[[i64; NUMBERS]]) -> Result<(), Error> {
    let column = |at: usize| said.iter().map(move |numbers| numbers[at]);
    if let Some(differ) = differ("the call", column(0), occasion_name) {
        return Err(mismatch(&[differ]));
    }
    refusals(column(1))?;
    let common = statement.words.iter().enumerate().filter(|(_, word)| word.is_common);
    let differing: Vec<String> = common
        .filter_map(|(at, word)| differ(word.name, column(HEAD + at), |value| value.to_string()))
        .collect();
    if differing.is_empty() { Ok(()) } else { Err(mismatch(&differing)) }
}

fn refusals(statuses: impl Iterator<Item = i64>) -> Result<(), Error> {
    let refused = statuses.enumerate().filter(|(_, status)| *status != 0);
    let refused: Vec<String> = refused
        .map(|(rank, status)| format!("rank {rank} refused it with {}", status_name(status)))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let message = format!("the call was not made: {}; see its own message", listed(&refused));
    Err(Error::new(Status::Mismatch, message))
}

fn mismatch(differing: &[String]) -> Error {
    let message = format!("the ranks do not agree: {}; make them the same", listed(differing));
    Error::new(Status::Mismatch, message)
}

/// "rows is 5 on ranks 0, 2 and 7 on rank 1", or None where all are alike.
fn differ(
    name: &str,
    values: impl Iterator<Item = i64>,
    words: impl Fn(i64) -> String,
) -> Option<String> {
    let mut groups: Vec<(i64, Vec<String>)> = Vec::new();
    for (rank, value) in values.enumerate() {
        match groups.iter_mut().find(|(known, _)| *known == value) {
            Some((_, ranks)) => ranks.push(rank.to_string()),
            None => groups.push((value, vec![rank.to_string()])),
        }
    }
    let on = |(value, ranks): &(i64, Vec<String>)| {
        let plural = if ranks.len() == 1 { "" } else { "s" };
        format!("{} on rank{plural} {}", words(*value), listed(ranks))
    };
    let groups: Vec<String> = groups.iter().map(on).collect();
    (groups.len() > 1).then(|| format!("{name} is {}", groups.join(" and ")))
}

fn occasion_name(value: i64) -> String {
    let known = [Occasion::Join, Occasion::Commit, Occasion::Forward];
    match known.iter().find(|known| **known as i64 == value) {
        Some(Occasion::Join) => "giving a projection its communicator".into(),
        Some(Occasion::Commit) => "a commit".into(),
        Some(Occasion::Forward) => "a forward".into(),
        None => format!("unknown ({value})"),
    }
}

fn status_name(value: i64) -> String {
    let known = Status::ALL.iter().find(|known| **known as i64 == value);
    known.map_or_else(|| value.to_string(), |known| known.name().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(rows: i64, heads: i64) -> Statement {
        Statement::new(Occasion::Forward, None).common("encoder_rows", rows).own("heads", heads)
    }

    fn compared(statements: &[Statement]) -> Result<(), Error> {
        let said: Vec<_> = statements.iter().map(Statement::numbers).collect();
        differences(&statements[0], &said)
    }

    #[test]
    fn what_is_a_rank_s_own_may_differ() {
        compared(&[statement(5, 1), statement(5, 2), statement(5, 3)]).unwrap();
    }

    #[test]
    fn what_differs_is_named_with_the_ranks() {
        let error = compared(&[statement(5, 1), statement(0, 1), statement(5, 1)]).unwrap_err();
        assert_eq!(error.status, Status::Mismatch);
        let expected = "encoder_rows is 5 on ranks 0, 2 and 0 on rank 1";
        assert!(error.message.contains(expected), "{error}");
    }

    #[test]
    fn ranks_at_different_calls_are_told_so_before_their_words_are_compared() {
        let commit = Statement::new(Occasion::Commit, None).common("weights_version", 1);
        let error = compared(&[statement(5, 1), commit]).unwrap_err();
        let expected = "the call is a forward on rank 0 and a commit on rank 1";
        assert!(error.message.contains(expected), "{error}");
    }

    #[test]
    fn a_rank_that_refuses_its_call_is_named_with_its_status() {
        let refused = Error::new(Status::Overlap, "");
        let refused = Statement::new(Occasion::Forward, Some(&refused));
        let error = compared(&[statement(5, 1), refused]).unwrap_err();
        assert!(error.message.contains("rank 1 refused it with XQKV_STATUS_OVERLAP"), "{error}");
    }
}

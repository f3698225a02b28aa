//! Ranks of one process: what they transfer, and what each is told when one of them fails.

use super::{Comm, Deadline, Failure, Message, Options, Transfer, Turn};
use crate::error::{Error, Status};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

fn options(milliseconds: u64) -> Options {
    let deadline = Duration::from_millis(milliseconds);
    Options { deadline, checks_calls: false, has_watchdog: false }
}

/// Runs each rank on a thread of its own, and gives what they answered.
fn each<T: Send>(comms: &[Comm], run: impl Fn(&Comm) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let run = &run;
        let ranks: Vec<_> = comms.iter().map(|comm| scope.spawn(move || run(comm))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn rank_of(comm: &Comm) -> usize {
    comm.seat().rank
}

/// Starts one transfer and waits for it.
fn transfer(turn: &mut Turn<'_>, transfer: &Transfer<'_>) -> Result<(), Error> {
    // SAFETY: the tests' own memory, which stays to the end of the turn.
    unsafe { turn.start("a test", transfer, 0) }?;
    turn.finish("a test")
}

fn gather(comm: &Comm, buffer: &mut [u8], bytes: &[usize]) -> Result<(), Error> {
    let buffer = buffer.as_mut_ptr() as usize;
    transfer(&mut comm.turn()?, &Transfer::AllGather { buffer, bytes })
}

fn broadcast(comm: &Comm, buffer: &mut [u8], root: usize) -> Result<(), Error> {
    let (bytes, buffer) = (buffer.len(), buffer.as_mut_ptr() as usize);
    transfer(&mut comm.turn()?, &Transfer::Broadcast { buffer, bytes, root })
}

/// A rank's bytes, unlike any other's.
fn bytes_of(rank: usize, count: usize) -> Vec<u8> {
    (0..count).map(|at| (rank * 37 + at * 5 + 1) as u8).collect()
}

/// The statuses and messages of the ranks that failed, which all must have.
fn errors(outcomes: Vec<Result<(), Error>>) -> Vec<(Status, String)> {
    let parts = |outcome: Result<(), Error>| outcome.map_err(|error| (error.status, error.message));
    outcomes.into_iter().map(|outcome| parts(outcome).unwrap_err()).collect()
}

#[test]
fn every_rank_gathers_all_ranks_bytes_also_where_some_have_none() {
    for count in 1..=8 {
        for sizes in [vec![16; count], (0..count).map(|r| r * 7 % 5).collect(), vec![0; count]] {
            let all: Vec<u8> = (0..count).flat_map(|rank| bytes_of(rank, sizes[rank])).collect();
            let gathered = each(&Comm::threads(count, options(10_000)), |comm| {
                let rank = rank_of(comm);
                let mut buffer = vec![0xee; all.len()];
                let begin: usize = sizes[..rank].iter().sum();
                buffer[begin..begin + sizes[rank]].copy_from_slice(&bytes_of(rank, sizes[rank]));
                gather(comm, &mut buffer, &sizes).unwrap();
                buffer
            });
            gathered.iter().for_each(|buffer| assert_eq!(*buffer, all));
        }
    }
}

#[test]
fn every_rank_gets_the_roots_bytes() {
    for count in 1..=8 {
        for root in 0..count {
            each(&Comm::threads(count, options(10_000)), |comm| {
                let mut buffer = bytes_of(rank_of(comm), 33);
                broadcast(comm, &mut buffer, root).unwrap();
                assert_eq!(buffer, bytes_of(root, 33));
            });
        }
    }
}

/// Rank r sends r + 1 bytes to each rank above it, and nothing to the others; in two messages.
fn messages(rank: usize, rank_count: usize, buffers: &[Vec<u8>]) -> Vec<Message> {
    let halves = |peer: usize, buffer: &[u8], is_sent| {
        let (address, half) = (buffer.as_ptr() as usize, buffer.len() / 2);
        let second = (address + half, buffer.len() - half);
        [(address, half), second].map(|(address, bytes)| Message { peer, address, bytes, is_sent })
    };
    (0..rank_count)
        .filter(|&peer| peer != rank)
        .flat_map(|peer| halves(peer, &buffers[peer], peer > rank))
        .collect()
}

#[test]
fn ranks_exchange_messages_in_the_order_that_they_are_sent() {
    for count in 1..=8 {
        each(&Comm::threads(count, options(10_000)), |comm| {
            let rank = rank_of(comm);
            let sent =
                |peer| if peer > rank { bytes_of(rank, rank + 1) } else { vec![0; peer + 1] };
            let buffers: Vec<Vec<u8>> = (0..count).map(sent).collect();
            let messages = messages(rank, count, &buffers);
            transfer(&mut comm.turn().unwrap(), &Transfer::Exchange { messages: &messages })
                .unwrap();
            (0..rank).for_each(|peer| assert_eq!(buffers[peer], bytes_of(peer, peer + 1)));
        });
    }
}

#[test]
fn several_transfers_are_started_before_any_is_waited_for() {
    each(&Comm::threads(3, options(10_000)), |comm| {
        let rank = rank_of(comm);
        let mut buffers = [vec![rank as u8; 3], vec![rank as u8 + 10; 3]];
        let mut turn = comm.turn().unwrap();
        for buffer in &mut buffers {
            let buffer = buffer.as_mut_ptr() as usize;
            let all_gather = Transfer::AllGather { buffer, bytes: &[1, 1, 1] };
            // SAFETY: the buffers stay to the end of the turn.
            unsafe { turn.start("a test", &all_gather, 0) }.unwrap();
        }
        turn.finish("a test").unwrap();
        assert_eq!(buffers, [[0, 1, 2], [10, 11, 12]]);
        assert_eq!((turn.moved().transfers, turn.moved().received_bytes), (2, 4));
        assert_eq!(comm.transfer_count(), 2);
    });
}

#[test]
fn ranks_at_different_transfers_are_told_of_both() {
    let comms = Comm::threads(3, options(10_000));
    let outcomes = each(&comms, |comm| match rank_of(comm) {
        1 => broadcast(comm, &mut [0; 8], 0),
        _ => gather(comm, &mut [0; 8], &[4, 4, 0]),
    });
    for (status, message) in errors(outcomes) {
        assert_eq!(status, Status::PeerLost, "{message}");
        assert!(message.contains("all-gather of [4, 4, 0] bytes"), "{message}");
        assert!(message.contains("a broadcast of 8 bytes from rank 0"), "{message}");
    }
}

#[test]
fn messages_of_other_lengths_than_expected_are_refused() {
    let outcomes = each(&Comm::threads(2, options(10_000)), |comm| {
        let (rank, memory) = (rank_of(comm), [0_u8; 8]);
        let (peer, address) = (1 - rank, memory.as_ptr() as usize);
        let message = Message { peer, address, bytes: 8 - 3 * rank, is_sent: rank == 0 };
        transfer(&mut comm.turn()?, &Transfer::Exchange { messages: &[message] })
    });
    let told = errors(outcomes);
    assert!(told.iter().all(|(status, _)| *status == Status::PeerLost));
    assert!(told[1].1.contains("rank 1 expects messages of [5] bytes, rank 0 sends [8]"));
}

#[test]
fn a_rank_that_does_not_come_is_named_by_all_others_at_the_deadline() {
    const DEADLINE_MS: u64 = 500;
    let comms = Comm::threads(4, options(DEADLINE_MS));
    let outcomes = each(&comms[1..], |comm| {
        let begin = Instant::now();
        (gather(comm, &mut [0; 4], &[1; 4]), begin.elapsed().as_millis() as u64)
    });
    for (outcome, waited) in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(error.status, Status::TimedOut, "{}", error.message);
        assert!(error.message.contains("rank 0 was not there after 500 ms"), "{}", error.message);
        assert!((DEADLINE_MS * 9 / 10..=DEADLINE_MS * 12 / 10).contains(&waited), "{waited} ms");
    }
    let late = gather(&comms[0], &mut [0; 4], &[1; 4]).unwrap_err();
    assert_eq!(late.status, Status::PeerLost);
    assert!(late.message.contains("gave up waiting for this rank"), "{}", late.message);
}

#[test]
fn a_failed_communicator_answers_every_later_call_with_the_first_cause() {
    let comms = Comm::threads(2, options(50));
    let first = gather(&comms[0], &mut [0; 2], &[1, 1]).unwrap_err();
    for later in [gather(&comms[0], &mut [0; 2], &[1, 1]), comms[0].poll()] {
        let later = later.unwrap_err();
        assert_eq!(later.status, Status::CommPoisoned);
        assert!(later.message.contains(&first.message), "{}", later.message);
    }
    assert!(comms[0].is_poisoned() && !comms[1].is_poisoned());
    assert_eq!(comms[1].poll().unwrap_err().status, Status::PeerLost);
}

#[test]
fn a_rank_whose_seat_is_given_up_is_lost_to_those_that_wait_for_it() {
    let mut comms = Comm::threads(3, options(20_000));
    drop(comms.remove(1));
    let begin = Instant::now();
    for (status, message) in errors(each(&comms, |comm| gather(comm, &mut [0; 3], &[1; 3]))) {
        assert_eq!(status, Status::PeerLost);
        assert!(message.contains("rank 1 is lost: its communicator was destroyed"), "{message}");
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_rank_that_took_part_may_leave_before_the_others_are_done() {
    for _ in 0..50 {
        let comms = Comm::threads(4, options(20_000));
        thread::scope(|scope| {
            for comm in comms {
                scope.spawn(move || gather(&comm, &mut [0; 4], &[1; 4]).unwrap());
            }
        });
    }
}

#[test]
fn an_abort_from_another_thread_ends_the_waits_of_all_ranks() {
    let comms = Comm::threads(3, options(20_000));
    let begin = Instant::now();
    let outcomes = thread::scope(|scope| {
        let aborted = &comms[1];
        scope.spawn(|| (thread::sleep(Duration::from_millis(50)), aborted.abort()));
        each(&comms[..2], |comm| gather(comm, &mut [0; 3], &[1; 3]))
    });
    let told = errors(outcomes);
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(told.iter().all(|(status, _)| *status == Status::PeerLost));
    assert!(told[0].1.contains("rank 1 is lost"), "{}", told[0].1);
    assert!(told[1].1.contains("the communicator was aborted"), "{}", told[1].1);
}

#[test]
fn no_memory_of_a_call_that_returned_is_read_although_others_still_come() {
    let comms = Comm::threads(2, options(30));
    let mut late = [0xee_u8; 64];
    let mut turn = comms[1].turn().unwrap();
    let all_gather = Transfer::AllGather { buffer: late.as_mut_ptr() as usize, bytes: &[32, 32] };
    // SAFETY: the buffer stays to the end of the turn.
    unsafe { turn.start("a test", &all_gather, 0) }.unwrap();
    gather(&comms[0], &mut [7; 64], &[32, 32]).unwrap_err();
    turn.finish("a test").unwrap_err();
    drop(turn);
    assert_eq!(late, [0xee; 64]);
}

/// While one rank gives up at a moment of its own, another may be copying from it.
#[test]
fn a_rank_that_gives_up_waits_for_those_that_are_copying_from_it() {
    const BYTES: usize = 1 << 25;
    for round in 0..5 {
        let comms = Comm::threads(2, options(20_000));
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            let (first, second, barrier) = (&comms[0], &comms[1], &barrier);
            scope.spawn(move || {
                let mut lent = vec![7_u8; BYTES];
                let mut turn = first.turn().unwrap();
                let (buffer, bytes) = (lent.as_mut_ptr() as usize, BYTES);
                let transfer = Transfer::Broadcast { buffer, bytes, root: 0 };
                // SAFETY: the memory stays to the end of the turn, and is then another's.
                unsafe { turn.start("a test", &transfer, 0) }.unwrap();
                barrier.wait();
                thread::sleep(Duration::from_millis(round));
                drop(turn);
                lent.fill(9);
            });
            barrier.wait();
            let mut taken = vec![0_u8; BYTES];
            let _ = broadcast(second, &mut taken, 0);
            assert!(!taken.contains(&9), "round {round}: read after the call had returned");
        });
    }
}

#[test]
fn a_call_that_panics_ends_the_transfers_of_all() {
    let comms = Comm::threads(2, options(20_000));
    let begin = Instant::now();
    let outcomes = each(&comms, |comm| {
        let run = std::panic::AssertUnwindSafe(|| {
            let _turn = comm.turn()?;
            assert!(rank_of(comm) != 0, "a test's own panic");
            drop(_turn);
            gather(comm, &mut [0; 2], &[1, 1])
        });
        std::panic::catch_unwind(run).unwrap_or_else(|_| comm.poll())
    });
    assert!(begin.elapsed() < Duration::from_secs(5));
    let told = errors(outcomes);
    assert_eq!((told[0].0, told[1].0), (Status::CommPoisoned, Status::PeerLost));
}

#[test]
fn a_second_call_of_a_rank_waits_its_turn_until_the_deadline() {
    let comm = Comm::alone(options(60));
    let turn = comm.turn().unwrap();
    let second = thread::scope(|scope| scope.spawn(|| comm.turn().err().unwrap()).join().unwrap());
    assert_eq!(second.status, Status::TimedOut);
    assert!(second.message.contains("another call of this rank"), "{}", second.message);
    drop(turn);
    assert!(comm.is_poisoned(), "the status says so");
}

#[test]
fn turns_follow_each_other() {
    let comm = Comm::alone(options(20_000));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop(comm.turn().unwrap())));
        }
    });
    assert!(!comm.is_poisoned());
}

#[test]
fn a_failure_found_by_the_caller_reaches_the_other_ranks() {
    let comms = Comm::threads(2, options(20_000));
    let words = Failure::Broken("a copy failed".into());
    let error = comms[0].turn().unwrap().fail("a copy", &words);
    assert!(error.message.contains("a copy, rank 0 of 2: a copy failed"), "{}", error.message);
    let other = gather(&comms[1], &mut [0; 2], &[1, 1]).unwrap_err();
    assert!(other.message.contains("rank 0 is lost"), "{}", other.message);
}

#[test]
fn a_deadline_is_over_when_its_time_has_passed() {
    assert!(!Deadline::after(Duration::from_secs(60)).is_over());
    assert!(Deadline::after(Duration::ZERO).is_over());
}

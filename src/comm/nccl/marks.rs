//! Which transfers are still on their streams, and until when they may be: the device has no
//! deadlines, so somebody has to look.

use super::super::medium::{Deadline, Failure};
use crate::device::{Device, MARKS};
use crate::error::Error;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a transfer is called in messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Title {
    pub(super) kind: &'static str,
    pub(super) bytes: usize,
}

/// Marks behind the transfers under way. Where there are more transfers than marks, the newest
/// moves the last mark, so that the oldest ones keep their deadlines.
pub(super) struct Marks {
    device: Arc<dyn Device>,
    under_way: Mutex<VecDeque<Mark>>,
}

#[derive(Clone, Copy)]
struct Mark {
    number: usize,
    title: Title,
    until: Deadline,
}

impl Marks {
    pub(super) fn new(device: Arc<dyn Device>) -> Self {
        Self { device, under_way: Mutex::new(VecDeque::with_capacity(MARKS)) }
    }

    /// Puts a mark behind a transfer that was just put on a stream.
    pub(super) fn put(&self, title: Title, stream: usize, until: Deadline) -> Result<(), Error> {
        let mut under_way = self.lock();
        self.drop_past(&mut under_way)?;
        let number = match under_way.len() {
            MARKS => under_way.pop_back().map_or(0, |last| last.number),
            _ => free_number(&under_way),
        };
        if self.device.mark(number, stream)? {
            under_way.push_back(Mark { number, title, until });
        }
        Ok(())
    }

    /// A failure if a transfer is under way that should be done by now. Whether any is.
    pub(super) fn look(&self) -> Result<bool, Failure> {
        let mut under_way = self.lock();
        self.drop_past(&mut under_way).map_err(|error| Failure::Broken(error.message))?;
        match under_way.iter().find(|mark| mark.until.is_over()) {
            Some(late) => Err(late.failure()),
            None => Ok(!under_way.is_empty()),
        }
    }

    /// Transfers on different streams may be done in any order.
    fn drop_past(&self, under_way: &mut VecDeque<Mark>) -> Result<(), Error> {
        let mut failed = Ok(());
        under_way.retain(|mark| match self.device.is_past(mark.number) {
            Ok(is_past) => !is_past,
            Err(error) => {
                failed = Err(error);
                true
            }
        });
        failed
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Mark>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn free_number(under_way: &VecDeque<Mark>) -> usize {
    let is_free = |number: &usize| under_way.iter().all(|mark| mark.number != *number);
    (0..MARKS).find(is_free).unwrap_or(0)
}

impl Mark {
    fn failure(&self) -> Failure {
        let Title { kind, bytes } = self.title;
        Failure::Stuck(format!(
            "{kind} of {bytes} bytes that was started {} ms ago is not done on its stream; a rank \
             did not start it, or what lies before it on the stream of a rank takes as long",
            self.until.elapsed().as_millis()
        ))
    }
}

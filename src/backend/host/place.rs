//! A place through which threads that the library does not know come to what lies on a caller's
//! stack. It outlives every content, and each visit says which content it is meant for: a visit
//! that comes too late finds the place closed or newly opened, and goes away.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// Holds one content at a time.
pub(super) struct Place<T: Sync> {
    /// From the top: which opening this is, whether it lasts, and how many visitors are inside.
    state: AtomicU64,
    content: AtomicPtr<T>,
    is_taken: AtomicBool,
}

/// The bits of the state that count visitors.
const VISITORS: u64 = OPEN - 1;
/// The bit that says that visitors are let in.
const OPEN: u64 = 1 << 15;
/// One opening more.
const NEXT: u64 = OPEN << 1;

/// A content that visitors may come to until it is closed, which it is at the latest when dropped.
pub(super) struct Opened<'a, T: Sync> {
    place: &'a Place<T>,
    /// Which opening of the place this is.
    pub(super) number: u64,
}

/// Keeps a content alive while it is being visited.
pub(super) struct Visit<'a, T: Sync> {
    place: &'a Place<T>,
    content: &'a T,
}

impl<T: Sync> Place<T> {
    pub(super) const fn new() -> Self {
        Place {
            state: AtomicU64::new(0),
            content: AtomicPtr::new(null_mut()),
            is_taken: AtomicBool::new(false),
        }
    }

    /// Lets visitors in to a content, if the place holds no other.
    pub(super) fn open<'a>(&'a self, content: &'a T) -> Option<Opened<'a, T>> {
        if self.is_taken.swap(true, Ordering::Acquire) {
            return None;
        }
        self.content.store(std::ptr::from_ref(content).cast_mut(), Ordering::Relaxed);
        // Nobody else writes it: visitors are let in only between this and the closing.
        let state = self.state.load(Ordering::Relaxed) + NEXT;
        self.state.store(state | OPEN, Ordering::Release);
        Some(Opened { place: self, number: state / NEXT })
    }

    /// The content of this opening, unless that is over.
    pub(super) fn visit(&self, number: u64) -> Option<Visit<'_, T>> {
        let one_more = |state: u64| {
            let is_open = state / NEXT == number && state & OPEN != 0;
            (is_open && state & VISITORS < VISITORS).then_some(state + 1)
        };
        self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more).ok()?;
        // SAFETY: the opening lasts while a visitor is inside, and the content as long as that.
        let content = unsafe { &*self.content.load(Ordering::Relaxed) };
        Some(Visit { place: self, content })
    }

    /// Lets nobody in any more, waits for those inside, and tells how many those were.
    fn close(&self) -> u64 {
        let inside = self.state.fetch_and(!OPEN, Ordering::Acquire) & VISITORS;
        // An engine that keeps to its contract has nobody inside by now.
        while self.state.load(Ordering::Acquire) & VISITORS > 0 {
            std::thread::yield_now();
        }
        self.is_taken.store(false, Ordering::Release);
        inside
    }
}

impl<T: Sync> Opened<'_, T> {
    /// Ends it, once every visitor has left; tells how many were still inside.
    pub(super) fn close(self) -> u64 {
        std::mem::ManuallyDrop::new(self).place.close()
    }
}

impl<T: Sync> Drop for Opened<'_, T> {
    fn drop(&mut self) {
        self.place.close();
    }
}

impl<T: Sync> Drop for Visit<'_, T> {
    fn drop(&mut self) {
        self.place.state.fetch_sub(1, Ordering::Release);
    }
}

impl<T: Sync> std::ops::Deref for Visit<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_finds_the_content_of_its_own_opening_or_nothing() {
        let place = Place::new();
        let opened = place.open(&1).unwrap();
        let number = opened.number;
        assert!(place.open(&2).is_none());
        assert_eq!(place.visit(number).map(|visit| *visit), Some(1));
        assert_eq!(opened.close(), 0);
        assert!(place.visit(number).is_none());
        let again = place.open(&2).unwrap();
        assert!(place.visit(number).is_none());
        assert_eq!(place.visit(again.number).map(|visit| *visit), Some(2));
    }

    #[test]
    fn closing_waits_for_visitors_and_lets_no_more_in() {
        let (place, is_done) = (Place::new(), AtomicBool::new(false));
        let opened = place.open(&is_done).unwrap();
        let (number, visit) = (opened.number, place.visit(opened.number).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let visit = visit;
                while place.visit(number).is_some() {
                    std::thread::yield_now();
                }
                visit.store(true, Ordering::Relaxed);
            });
            assert!(opened.close() >= 1);
            assert!(is_done.load(Ordering::Relaxed));
        });
    }
}

//! The one value that all readers take now and a writer may replace, read without a lock.
//!
//! A reader enters the current place, looks whether it still is, and stays for as long as it needs
//! the value; a writer fills a place that is empty, makes it current, and shuts the one before,
//! which its last reader empties. Neither waits for the other.

use crate::gate::Gate;
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A value that is replaced as a whole.
pub(super) struct Current<T> {
    current: AtomicPtr<Place<T>>,
    /// All that were ever needed, which is one more than versions that were read at a time.
    places: Mutex<Vec<Arc<Place<T>>>>,
}

struct Place<T> {
    gate: Gate,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: a value is written only while its place is shut without users, by the one writer or by
// whoever left it last; everyone else reads it between entering and leaving.
unsafe impl<T: Send + Sync> Sync for Place<T> {}
// SAFETY: it is no more than its value.
unsafe impl<T: Send> Send for Place<T> {}

/// A value that stays for as long as this lives.
pub(super) struct Reading<'a, T> {
    place: &'a Place<T>,
    value: NonNull<T>,
}

/// The right to replace the value; writers come one after the other.
pub(super) struct Writer<'a, T> {
    owner: &'a Current<T>,
    places: MutexGuard<'a, Vec<Arc<Place<T>>>>,
}

impl<T> Current<T> {
    /// Begins with this value.
    pub(super) fn new(value: T) -> Self {
        let place = Place::empty();
        // SAFETY: just made.
        unsafe { place.fill(value) };
        let current = AtomicPtr::new(Arc::as_ptr(&place).cast_mut());
        Self { current, places: Mutex::new(vec![place]) }
    }

    /// The value that is current.
    pub(super) fn read(&self) -> Reading<'_, T> {
        loop {
            let at = self.current.load(Acquire);
            // SAFETY: places stay as long as self.
            let reading = unsafe { &*at }.enter();
            // A place may have been emptied and filled again, and not be current yet.
            if let Some(reading) = reading
                && self.current.load(Acquire) == at
            {
                return reading;
            }
        }
    }

    /// Waits for other writers.
    pub(super) fn write(&self) -> Writer<'_, T> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Writer { owner: self, places }
    }
}

impl<T> Writer<'_, T> {
    /// The value that is current.
    pub(super) fn read(&self) -> Reading<'_, T> {
        self.owner.read()
    }

    /// Makes another value current; readers that are inside the old one keep it alive.
    pub(super) fn replace(mut self, value: T) {
        let before = self.owner.read();
        let place = self.vacant();
        // SAFETY: empty, and only this writer fills.
        unsafe { place.fill(value) };
        self.owner.current.store(Arc::as_ptr(&place).cast_mut(), Release);
        let was_open = before.place.gate.shut();
        debug_assert!(was_open, "only the one writer shuts");
    }

    fn vacant(&mut self) -> Arc<Place<T>> {
        if let Some(place) = self.places.iter().find(|place| place.gate.is_empty()) {
            return place.clone();
        }
        let place = Place::empty();
        self.places.push(place.clone());
        place
    }
}

impl<T> Place<T> {
    fn empty() -> Arc<Self> {
        Arc::new(Self { gate: Gate::new(0), value: UnsafeCell::new(None) })
    }

    /// Puts a value in and lets readers in.
    ///
    /// # Safety
    /// The place is empty, and nobody else fills it.
    unsafe fn fill(&self, value: T) {
        // SAFETY: the caller's promise; nobody enters before the place is opened.
        unsafe { *self.value.get() = Some(value) };
        self.gate.open();
    }

    fn enter(&self) -> Option<Reading<'_, T>> {
        if !self.gate.enter() {
            return None;
        }
        // SAFETY: between entering and leaving nobody empties the place.
        let value = unsafe { &*self.value.get() }.as_ref().map(NonNull::from);
        value.map(|value| Reading { place: self, value })
    }
}

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody empties the place before this user leaves it.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Reading<'_, T> {
    fn drop(&mut self) {
        if self.place.gate.leave() {
            // SAFETY: shut, and its last user is this thread.
            let value = unsafe { (*self.place.value.get()).take() };
            self.place.gate.emptied();
            drop(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    #[test]
    fn readers_see_whole_values_in_order_while_a_writer_replaces_them() {
        let (current, done) = (Current::new([0u64; 4]), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(SeqCst) {
                        let value = current.read();
                        assert!(value.iter().all(|&element| element == value[0]));
                        assert!(value[0] >= last);
                        last = value[0];
                    }
                });
            }
            (1..2000).for_each(|number| current.write().replace([number; 4]));
            done.store(true, SeqCst);
        });
        assert_eq!(*current.read(), [1999; 4]);
    }

    #[test]
    fn a_replaced_value_is_dropped_with_its_last_reader() {
        let current = Current::new(Arc::new(()));
        let held = current.read();
        let counted = Arc::downgrade(&held);
        current.write().replace(Arc::new(()));
        assert_eq!(counted.strong_count(), 1);
        drop(held);
        assert_eq!(counted.strong_count(), 0);
    }

    #[test]
    fn a_writer_waits_for_no_reader_and_fills_emptied_places_again() {
        let current = Current::new(0);
        let first = current.read();
        (1..100).for_each(|number| current.write().replace(number));
        assert_eq!((*first, *current.read()), (0, 99));
        assert_eq!(current.places.lock().unwrap().len(), 3);
        drop(first);
        current.write().replace(100);
        assert_eq!(current.places.lock().unwrap().len(), 3);
    }
}

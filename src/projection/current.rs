//! The one value that all readers take now and a writer may replace, read without a lock.
//!
//! Two places, of which one is current. A reader counts itself into the current place, looks
//! whether it still is, takes a reference, and counts itself out; a writer fills the other place
//! once nobody is counted there, makes it current, and empties the first in the same way. Readers
//! stay for one reference count, so a writer waits for nanoseconds, and a reader never waits.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A value that is replaced as a whole.
pub(super) struct Current<T> {
    places: [Place<T>; 2],
    current: AtomicUsize,
    /// Writers come one after the other.
    writing: Mutex<()>,
}

struct Place<T> {
    readers: AtomicUsize,
    value: UnsafeCell<Option<Arc<T>>>,
}

// SAFETY: a value is replaced only while no reader is counted into its place, by the one writer.
unsafe impl<T: Send + Sync> Sync for Current<T> {}

/// The right to replace the value.
pub(super) struct Writer<'a, T> {
    owner: &'a Current<T>,
    _one_at_a_time: MutexGuard<'a, ()>,
}

impl<T> Current<T> {
    /// Begins with this value.
    pub(super) fn new(value: T) -> Self {
        let place = |value| Place { readers: AtomicUsize::new(0), value: UnsafeCell::new(value) };
        let places = [place(Some(Arc::new(value))), place(None)];
        Self { places, current: AtomicUsize::new(0), writing: Mutex::new(()) }
    }

    /// The value that is current.
    pub(super) fn read(&self) -> Arc<T> {
        loop {
            let at = self.current.load(SeqCst);
            let place = &self.places[at];
            place.readers.fetch_add(1, SeqCst);
            // SAFETY: counted in and still current, so no writer touches this place.
            let value = (self.current.load(SeqCst) == at)
                .then(|| unsafe { (*place.value.get()).clone() })
                .flatten();
            place.readers.fetch_sub(1, SeqCst);
            if let Some(value) = value {
                return value;
            }
        }
    }

    /// Waits for other writers.
    pub(super) fn write(&self) -> Writer<'_, T> {
        let guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        Writer { owner: self, _one_at_a_time: guard }
    }
}

impl<T> Writer<'_, T> {
    /// The value that is current.
    pub(super) fn read(&self) -> Arc<T> {
        self.owner.read()
    }

    /// Makes another value current; readers that hold the old one keep it alive.
    pub(super) fn replace(self, value: T) {
        let old = self.owner.current.load(SeqCst);
        self.put(1 - old, Some(Arc::new(value)));
        self.owner.current.store(1 - old, SeqCst);
        self.put(old, None);
    }

    fn put(&self, at: usize, value: Option<Arc<T>>) {
        let place = &self.owner.places[at];
        while place.readers.load(SeqCst) != 0 {
            std::thread::yield_now();
        }
        // SAFETY: the place is not current and was seen empty of readers. One that counts itself
        // in from here on finds that it is not current and leaves without looking; when the place
        // becomes current again, what was written is seen with it.
        let before = unsafe { std::mem::replace(&mut *place.value.get(), value) };
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

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
}

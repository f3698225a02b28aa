//! The registry behind every opaque pointer. A handle is a number that names a slot and the
//! slot's generation; it is looked up, never dereferenced, so a stale, foreign or truncated one is
//! an error and not a crash. Slots live in chunks that never move, and finding one takes no lock:
//! each slot has a gate.
//!
//! ```text
//! handle   generation 32 | slot 24 | kind 7 | 1     odd, so never the address of an object
//! ```
//!
//! A call stays in the slots of the handles that it was given for as long as it runs on their
//! objects, or copies their references and leaves at once. Destroying shuts the slot, and whoever
//! leaves a shut slot last empties it: without a lock, since that may be a forward.

use super::comm::xqkv_comm;
use super::context::xqkv_context;
use super::plan::xqkv_plan;
use super::projection::xqkv_projection;
use super::update::xqkv_update;
use crate::error::{Error, Status, ensure};
use crate::gate::Gate;
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How many handles are alive: made and not yet destroyed, of every kind, in this process. 0 when
/// an engine has cleaned up; the registry hides a forgotten one from leak checkers. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn xqkv_handle_count() -> i64 {
    super::boundary::value(0, || LIVE.load(Ordering::Relaxed))
}

/// An opaque pointer type of the header.
pub(super) trait Opaque {
    /// The noun for messages.
    const NOUN: &'static str;
    /// The number that tells its handles from the others'.
    const KIND: u64;
    /// What its handles stand for.
    type Object: Send + Sync + 'static;
    /// This kind's reference, if the object is of this kind.
    fn of(object: &Object) -> Option<&Arc<Self::Object>>;
    /// The object for this kind's reference.
    fn wrap(reference: Arc<Self::Object>) -> Object;
}

/// What a slot holds.
pub(super) enum Object {
    Context(Arc<super::context::Context>),
    Projection(Arc<super::projection::Held>),
    Update(Arc<super::update::Held>),
    Plan(Arc<super::brief::Planned>),
    Comm(Arc<crate::comm::Comm>),
}

macro_rules! opaque {
    ($opaque:ident, $noun:literal, $kind:literal, $variant:ident, $object:ty) => {
        impl Opaque for $opaque {
            const NOUN: &'static str = $noun;
            const KIND: u64 = $kind;
            type Object = $object;

            fn of(object: &Object) -> Option<&Arc<$object>> {
                match object {
                    Object::$variant(reference) => Some(reference),
                    _ => None,
                }
            }

            fn wrap(reference: Arc<$object>) -> Object {
                Object::$variant(reference)
            }
        }
    };
}

opaque!(xqkv_context, "context", 1, Context, super::context::Context);
opaque!(xqkv_projection, "projection", 2, Projection, super::projection::Held);
opaque!(xqkv_update, "update", 3, Update, super::update::Held);
opaque!(xqkv_plan, "plan", 4, Plan, super::brief::Planned);
opaque!(xqkv_comm, "comm", 5, Comm, crate::comm::Comm);

/// An object that stays where it is for as long as this lives: its slot counts this as a user.
pub(super) struct Borrowed<T: Opaque> {
    slot: &'static Slot,
    index: usize,
    reference: NonNull<Arc<T::Object>>,
}

impl<T: Opaque> Borrowed<T> {
    fn reference(&self) -> &Arc<T::Object> {
        // SAFETY: nobody empties the slot before this user leaves it.
        unsafe { self.reference.as_ref() }
    }
}

impl<T: Opaque> Deref for Borrowed<T> {
    type Target = T::Object;

    fn deref(&self) -> &T::Object {
        self.reference()
    }
}

impl<T: Opaque> Drop for Borrowed<T> {
    fn drop(&mut self) {
        leave(self.slot, self.index);
    }
}

/// Puts an object into the registry.
pub(super) fn insert<T: Opaque>(reference: Arc<T::Object>) -> Result<*mut T, Error> {
    let index = vacant()?;
    let slot = slot_at(index).ok_or_else(full)?;
    // SAFETY: a vacant slot is shut without users, and its index was given to this call alone.
    unsafe { *slot.object.get() = Some(T::wrap(reference)) };
    let generation = slot.gate.generation();
    slot.gate.open();
    LIVE.fetch_add(1, Ordering::Relaxed);
    let handle = generation | (index as u64) << 8 | T::KIND << 1 | 1;
    Ok(handle as usize as *mut T)
}

/// Puts all of the objects into the registry, or none.
pub(super) fn insert_all<T: Opaque>(
    references: impl Iterator<Item = Arc<T::Object>>,
) -> Result<Vec<*mut T>, Error> {
    let mut handles = Vec::new();
    for reference in references {
        match insert::<T>(reference) {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                handles.into_iter().try_for_each(|handle| remove::<T>(handle))?;
                return Err(error);
            }
        }
    }
    Ok(handles)
}

/// The object that a handle stands for, for the length of a call.
pub(super) fn borrow<T: Opaque>(handle: *const T) -> Result<Borrowed<T>, Error> {
    let (slot, index) = locate(handle)?;
    if !slot.gate.enter_generation(handle as u64) {
        return Err(dead::<T>());
    }
    // SAFETY: between entering and leaving nobody empties the slot.
    let object = unsafe { &*slot.object.get() };
    let Some(reference) = object.as_ref().and_then(T::of).map(NonNull::from) else {
        leave(slot, index);
        return Err(dead::<T>());
    };
    Ok(Borrowed { slot, index, reference })
}

/// The object that a handle stands for; it stays alive as long as the reference.
pub(super) fn get<T: Opaque>(handle: *const T) -> Result<Arc<T::Object>, Error> {
    borrow(handle).map(|borrowed| borrowed.reference().clone())
}

/// Makes a handle invalid. The object goes when the last call that runs on it returns.
pub(super) fn remove<T: Opaque>(handle: *mut T) -> Result<(), Error> {
    if handle.is_null() {
        return Ok(());
    }
    // Borrowed first, so that a handle whose kind was forged cannot remove another's object.
    let borrowed = borrow(handle.cast_const())?;
    if !borrowed.slot.gate.shut() {
        return Err(dead::<T>());
    }
    LIVE.fetch_sub(1, Ordering::Relaxed);
    Ok(())
}

const CHUNK: usize = 256;
const CHUNKS: usize = 256;

static LIVE: AtomicI64 = AtomicI64::new(0);
static SLOTS: [OnceLock<Box<[Slot]>>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
/// How many indices were ever given. Only making handles takes its lock.
static FRESH: Mutex<usize> = Mutex::new(0);
/// The top of the stack of indices that were given back, plus 1; 0 is none.
static FREED: AtomicUsize = AtomicUsize::new(0);

struct Slot {
    gate: Gate,
    object: UnsafeCell<Option<Object>>,
    /// In the stack of freed indices the next one, as in FREED.
    below: AtomicUsize,
}

// SAFETY: the object is written only while the slot is shut without users, by the one thread that
// took its index or left it last; everyone else reads it between entering and leaving.
unsafe impl Sync for Slot {}
// SAFETY: an Object is Send.
unsafe impl Send for Slot {}

/// Counts this user out; the last one out of a shut slot empties it.
fn leave(slot: &'static Slot, index: usize) {
    if slot.gate.leave() {
        empty(slot, index);
    }
}

/// Takes the object out, moves the slot to its next generation and gives its index back.
#[cold]
fn empty(slot: &'static Slot, index: usize) {
    // SAFETY: the slot is shut, and its last user is this thread.
    let object = unsafe { (*slot.object.get()).take() };
    slot.gate.emptied();
    let push = |top| {
        slot.below.store(top, Ordering::Relaxed);
        Some(index + 1)
    };
    let _ = FREED.fetch_update(Ordering::Release, Ordering::Relaxed, push);
    drop(object);
}

fn locate<T: Opaque>(handle: *const T) -> Result<(&'static Slot, usize), Error> {
    ensure!(!handle.is_null(), NullArgument, "{} is NULL", T::NOUN);
    let handle = handle as u64;
    if handle & 0xff != T::KIND << 1 | 1 {
        return Err(dead::<T>());
    }
    let index = (handle >> 8 & 0xff_ffff) as usize;
    let chunk = SLOTS.get(index / CHUNK).and_then(OnceLock::get).ok_or_else(dead::<T>)?;
    Ok((&chunk[index % CHUNK], index))
}

fn dead<T: Opaque>() -> Error {
    let message = format!(
        "{noun} is not a live {noun} handle; it was destroyed, is of another kind, or was never \
         made by this library",
        noun = T::NOUN
    );
    Error::new(Status::InvalidHandle, message)
}

fn full() -> Error {
    let message = format!("{} handles are alive; destroy what is no longer used", CHUNK * CHUNKS);
    Error::new(Status::TooManyHandles, message)
}

/// An index that holds nothing.
fn vacant() -> Result<usize, Error> {
    let mut fresh = FRESH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = freed() {
        return Ok(index);
    }
    ensure!(*fresh < CHUNK * CHUNKS, TooManyHandles, "{}", full().message);
    *fresh += 1;
    Ok(*fresh - 1)
}

/// Takes the top of the stack, under the lock: a top that nobody else can take stays what it is
/// until it is taken, so that what lies below it is right.
fn freed() -> Option<usize> {
    let below = |top: usize| Some(slot_at(top.checked_sub(1)?)?.below.load(Ordering::Relaxed));
    let top = FREED.fetch_update(Ordering::Acquire, Ordering::Acquire, below).ok()?;
    Some(top - 1)
}

fn slot_at(index: usize) -> Option<&'static Slot> {
    let chunk =
        SLOTS.get(index / CHUNK)?.get_or_init(|| (0..CHUNK).map(|_| fresh_slot()).collect());
    chunk.get(index % CHUNK)
}

/// The first generation differs between copies of the library in one process, so that one copy's
/// handle is foreign to the other.
fn fresh_slot() -> Slot {
    let salt = (&raw const LIVE as u64 >> 12) & 0x3fff_ffff;
    Slot {
        gate: Gate::new((salt + 1) << 32),
        object: UnsafeCell::new(None),
        below: AtomicUsize::new(0),
    }
}

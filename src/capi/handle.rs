//! The registry behind every opaque pointer. A handle is a number that names a slot and the
//! slot's generation; it is looked up, never dereferenced, so a stale, foreign or truncated one is
//! an error and not a crash. Slots live in chunks that never move, and finding one takes no lock:
//! each slot is one atomic word.
//!
//! ```text
//! handle   generation 32 | slot 24 | kind 7 | 1     odd, so never the address of an object
//! slot     generation 32 | retired 1 | users 31
//! ```
//!
//! `users` counts the threads that are just then copying the slot's reference, not the calls that
//! run on the object: those hold the reference itself. Destroying retires the slot, and whoever
//! leaves a retired slot last empties it.

use super::context::xqkv_context;
use super::plan::xqkv_plan;
use super::projection::xqkv_projection;
use super::update::xqkv_update;
use crate::error::{Error, Status, ensure};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
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
    Plan(Arc<crate::projection::Plan>),
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
opaque!(xqkv_plan, "plan", 4, Plan, crate::projection::Plan);

/// Puts an object into the registry.
pub(super) fn insert<T: Opaque>(reference: Arc<T::Object>) -> Result<*mut T, Error> {
    let index = vacant()?;
    let slot = slot_at(index).ok_or_else(full)?;
    // SAFETY: a vacant slot is retired without users, and its index was given to this call alone.
    unsafe { *slot.object.get() = Some(T::wrap(reference)) };
    let generation = slot.state.load(Ordering::Relaxed) & GENERATION;
    slot.state.store(generation, Ordering::Release);
    LIVE.fetch_add(1, Ordering::Relaxed);
    let handle = generation | (index as u64) << 8 | T::KIND << 1 | 1;
    Ok(handle as usize as *mut T)
}

/// The object that a handle stands for; it stays alive as long as the reference.
pub(super) fn get<T: Opaque>(handle: *const T) -> Result<Arc<T::Object>, Error> {
    let (slot, generation) = locate(handle)?;
    slot.enter(generation).ok_or_else(|| dead::<T>())?;
    // SAFETY: between enter and leave nobody empties the slot.
    let object = unsafe { &*slot.object.get() };
    let reference = object.as_ref().and_then(T::of).cloned();
    leave(slot, handle as u64);
    reference.ok_or_else(|| dead::<T>())
}

/// Makes a handle invalid. The object goes when the last call that runs on it returns.
pub(super) fn remove<T: Opaque>(handle: *mut T) -> Result<(), Error> {
    if handle.is_null() {
        return Ok(());
    }
    // Looked up first, so that a handle whose kind was forged cannot remove another's object.
    let _object = get(handle.cast_const())?;
    let (slot, generation) = locate(handle.cast_const())?;
    let users = slot.retire(generation).ok_or_else(|| dead::<T>())?;
    LIVE.fetch_sub(1, Ordering::Relaxed);
    if users == 0 {
        empty(slot, handle as u64);
    }
    Ok(())
}

const GENERATION: u64 = !0 << 32;
const RETIRED: u64 = 1 << 31;
const USERS: u64 = RETIRED - 1;
const CHUNK: usize = 256;
const CHUNKS: usize = 256;

static LIVE: AtomicI64 = AtomicI64::new(0);
static SLOTS: [OnceLock<Box<[Slot]>>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
static VACANT: Mutex<Vacant> = Mutex::new(Vacant { fresh: 0, freed: Vec::new() });

/// Indices that hold nothing. Only making and destroying handles takes its lock.
struct Vacant {
    fresh: usize,
    freed: Vec<usize>,
}

struct Slot {
    state: AtomicU64,
    object: UnsafeCell<Option<Object>>,
}

// SAFETY: the object is written only while the slot is retired without users, by the one thread
// that took its index or left it last; everyone else reads it between enter and leave.
unsafe impl Sync for Slot {}
// SAFETY: an Object is Send.
unsafe impl Send for Slot {}

impl Slot {
    /// Counts this thread in, unless the generation is over or the slot is retired.
    fn enter(&self, generation: u64) -> Option<()> {
        let add_user = |state: u64| live_at(state, generation).then_some(state + 1);
        let order = (Ordering::Acquire, Ordering::Acquire);
        self.state.fetch_update(order.0, order.1, add_user).ok().map(|_| ())
    }

    /// Retires the slot and tells how many users are still inside.
    fn retire(&self, generation: u64) -> Option<u64> {
        let retire = |state: u64| live_at(state, generation).then_some(state | RETIRED);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        self.state.fetch_update(order.0, order.1, retire).ok().map(|state| state & USERS)
    }
}

fn live_at(state: u64, generation: u64) -> bool {
    state & GENERATION == generation && state & RETIRED == 0
}

/// Counts this thread out; the last one out of a retired slot empties it.
fn leave(slot: &Slot, handle: u64) {
    let before = slot.state.fetch_sub(1, Ordering::AcqRel);
    if before & (RETIRED | USERS) == RETIRED | 1 {
        empty(slot, handle);
    }
}

/// Takes the object out, moves the slot to its next generation and gives its index back.
fn empty(slot: &Slot, handle: u64) {
    // SAFETY: the slot is retired, and its last user is gone or is this thread.
    let object = unsafe { (*slot.object.get()).take() };
    let next = (slot.state.load(Ordering::Relaxed) & GENERATION).wrapping_add(1 << 32).max(1 << 32);
    slot.state.store(next | RETIRED, Ordering::Release);
    lock_vacant().freed.push(index_of(handle));
    drop(object);
}

fn index_of(handle: u64) -> usize {
    (handle >> 8 & 0xff_ffff) as usize
}

fn locate<T: Opaque>(handle: *const T) -> Result<(&'static Slot, u64), Error> {
    ensure!(!handle.is_null(), NullArgument, "{} is NULL", T::NOUN);
    let handle = handle as u64;
    if handle & 0xff != T::KIND << 1 | 1 {
        return Err(dead::<T>());
    }
    let index = index_of(handle);
    let chunk = SLOTS.get(index / CHUNK).and_then(OnceLock::get).ok_or_else(|| dead::<T>())?;
    Ok((&chunk[index % CHUNK], handle & GENERATION))
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

fn lock_vacant() -> std::sync::MutexGuard<'static, Vacant> {
    VACANT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn vacant() -> Result<usize, Error> {
    let mut vacant = lock_vacant();
    if let Some(index) = vacant.freed.pop() {
        return Ok(index);
    }
    ensure!(vacant.fresh < CHUNK * CHUNKS, TooManyHandles, "{}", full().message);
    vacant.fresh += 1;
    Ok(vacant.fresh - 1)
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
    Slot { state: AtomicU64::new((salt + 1) << 32 | RETIRED), object: UnsafeCell::new(None) }
}

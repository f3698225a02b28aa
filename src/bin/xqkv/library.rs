//! The library as an engine sees it: the exported functions, their handles unmade when dropped,
//! and their errors as text.

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};
use xqkv::capi::checkpoint::{xqkv_checkpoint, xqkv_checkpoint_init, xqkv_checkpoint_report};
use xqkv::capi::collectives::xqkv_collectives;
use xqkv::capi::comm::*;
use xqkv::capi::context::*;
use xqkv::capi::error::xqkv_error;
use xqkv::capi::forward::{xqkv_forward, xqkv_forward_init};
use xqkv::capi::nccl::*;
use xqkv::capi::plan::*;
use xqkv::capi::projection::*;
use xqkv::capi::shard::{xqkv_shard, xqkv_shard_init};
use xqkv::capi::spec::{xqkv_spec, xqkv_spec_init, xqkv_spec_read_checkpoint};
use xqkv::capi::stats::{xqkv_stats, xqkv_stats_init};
use xqkv::capi::status::xqkv_status_name;
use xqkv::capi::tensor::{xqkv_tensor, xqkv_tensor_init};
use xqkv::capi::update::*;
use xqkv::dtype::Dtype;
use xqkv::error::Status;

use crate::tensors::Tensor;

pub use crate::tensors::Outcome;

/// Makes a call and turns its status and message into text.
fn checked(call: impl FnOnce(*mut xqkv_error) -> Status) -> Outcome<()> {
    let mut error = xqkv_error { status: 0, message: [0; 508] };
    match call(&mut error) {
        Status::Ok => Ok(()),
        status => Err(format!(
            "{}: {}",
            text(xqkv_status_name(status as i32)),
            text(error.message.as_ptr())
        )),
    }
}

/// A copy of a string of the library's.
pub fn text(string: *const c_char) -> String {
    // SAFETY: the library's strings are terminated.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// A plain struct as its `_init` function leaves it.
macro_rules! initialised {
    ($name:ident, $init:ident) => {{
        let mut plain = std::mem::MaybeUninit::<$name>::uninit();
        // SAFETY: as many bytes as the size says, all written when the call succeeds.
        let status = unsafe { $init(plain.as_mut_ptr(), size_of::<$name>()) };
        assert!(status == Status::Ok, "the library knows its own structs");
        // SAFETY: just initialised.
        unsafe { plain.assume_init() }
    }};
}

/// A checkpoint's place, with the path that it points to.
pub struct Checkpoint {
    plain: xqkv_checkpoint,
    _directory: CString,
}

impl Checkpoint {
    pub fn new(directory: &Path) -> Outcome<Self> {
        let path =
            CString::new(directory.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        let mut plain = initialised!(xqkv_checkpoint, xqkv_checkpoint_init);
        plain.directory = path.as_ptr();
        Ok(Self { plain, _directory: path })
    }

    pub fn spec(&self) -> Outcome<xqkv_spec> {
        let mut spec = initialised!(xqkv_spec, xqkv_spec_init);
        // SAFETY: initialised structs, alive during the call.
        checked(|error| unsafe { xqkv_spec_read_checkpoint(&mut spec, &self.plain, error) })?;
        Ok(spec)
    }

    /// The report, as the library's JSON.
    pub fn report(&self, spec: &xqkv_spec) -> Outcome<serde_json::Value> {
        let (mut needed, plain) = (0, &self.plain);
        // SAFETY: asks for the size only.
        checked(|error| unsafe {
            xqkv_checkpoint_report(plain, spec, null_mut(), 0, &mut needed, error)
        })?;
        let mut bytes = vec![0u8; needed as usize];
        let target = bytes.as_mut_ptr().cast();
        // SAFETY: as many bytes as were asked for.
        checked(|error| unsafe {
            xqkv_checkpoint_report(plain, spec, target, needed, &mut needed, error)
        })?;
        serde_json::from_str(&text(bytes.as_ptr().cast())).map_err(|error| error.to_string())
    }
}

/// A context on the host.
pub struct Context(*mut xqkv_context);

impl Context {
    pub fn new(thread_count: i32) -> Outcome<Self> {
        Self::create(BackendChoice::Host, |options| options.thread_count = thread_count)
    }

    pub fn with_instruction_set(instruction_set: i32) -> Outcome<Self> {
        Self::create(BackendChoice::Host, |options| {
            (options.thread_count, options.instruction_set) = (1, instruction_set);
        })
    }

    /// On a CUDA device.
    pub fn on_cuda(device: i32) -> Outcome<Self> {
        Self::create(BackendChoice::Cuda, |options| options.device = device)
    }

    fn create(
        backend: BackendChoice,
        choose: impl FnOnce(&mut xqkv_context_options),
    ) -> Outcome<Self> {
        let mut options = initialised!(xqkv_context_options, xqkv_context_options_init);
        options.backend = backend as i32;
        choose(&mut options);
        let mut context = null_mut();
        // SAFETY: an initialised struct and a place for the handle.
        checked(|error| unsafe { xqkv_context_create(&options, &mut context, error) })?;
        Ok(Self(context))
    }

    pub fn info(&self) -> Outcome<xqkv_context_info> {
        let mut info = initialised!(xqkv_context_info, xqkv_context_info_init);
        // SAFETY: a live handle and an initialised struct.
        checked(|error| unsafe { xqkv_context_get_info(self.0, &mut info, error) })?;
        Ok(info)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: this object's own handle.
        unsafe { xqkv_context_destroy(self.0, null_mut()) };
    }
}

/// An id by which NCCL's ranks find each other.
pub fn unique_id() -> Outcome<xqkv_unique_id> {
    let mut id = xqkv_unique_id { bytes: [0; 128] };
    // SAFETY: a place for the id.
    checked(|error| unsafe { xqkv_unique_id_create(&mut id, error) })?;
    Ok(id)
}

/// One rank's communicator.
pub struct Comm {
    handle: *mut xqkv_comm,
    /// Whether somebody else unmakes it.
    is_lent: bool,
}

// SAFETY: handles may go to any thread.
unsafe impl Send for Comm {}

impl Comm {
    /// One for each of so many threads.
    pub fn threads(rank_count: usize) -> Outcome<Vec<Self>> {
        let mut comms = vec![null_mut(); rank_count];
        // SAFETY: room for all of the handles.
        checked(|error| unsafe {
            xqkv_comm_create_threads(null(), rank_count as i64, comms.as_mut_ptr(), error)
        })?;
        Ok(comms.into_iter().map(Self::own).collect())
    }

    /// Over collectives, whose user must live longer; waits so many milliseconds, or 0 for the
    /// default.
    pub fn collectives(
        collectives: &xqkv_collectives,
        (rank, rank_count): (usize, usize),
        deadline_ms: i64,
    ) -> Outcome<Self> {
        let mut options = initialised!(xqkv_comm_options, xqkv_comm_options_init);
        options.deadline_ms = deadline_ms;
        let (rank, rank_count, mut comm) = (rank as i64, rank_count as i64, null_mut());
        // SAFETY: initialised structs and a place for the handle.
        checked(|error| unsafe {
            xqkv_comm_create_collectives(&options, collectives, rank, rank_count, &mut comm, error)
        })?;
        Ok(Self::own(comm))
    }

    /// Over NCCL; the other ranks' threads or processes do the same with the same id.
    pub fn nccl(
        context: &Context,
        id: &xqkv_unique_id,
        (rank, rank_count): (usize, usize),
    ) -> Outcome<Self> {
        let (rank, rank_count, mut comm) = (rank as i64, rank_count as i64, null_mut());
        // SAFETY: a live handle and places for what is asked.
        checked(|error| unsafe {
            xqkv_comm_create_nccl(context.0, null(), id, rank, rank_count, &mut comm, error)
        })?;
        Ok(Self::own(comm))
    }

    /// One that its maker unmakes.
    pub fn lent(handle: *mut xqkv_comm) -> Self {
        Self { handle, is_lent: true }
    }

    fn own(handle: *mut xqkv_comm) -> Self {
        Self { handle, is_lent: false }
    }

    pub fn handle(&self) -> *const xqkv_comm {
        self.handle
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        if !self.is_lent {
            // SAFETY: this object's own handle.
            unsafe { xqkv_comm_destroy(self.handle, null_mut()) };
        }
    }
}

/// The split of one rank among so many, as even as it can be.
pub fn balanced(spec: &xqkv_spec, rank: i64, rank_count: i64) -> Outcome<xqkv_projection_options> {
    let mut options = whole();
    // SAFETY: initialised structs.
    checked(|error| unsafe {
        xqkv_projection_options_balance(&mut options, spec, rank, rank_count, error)
    })?;
    Ok(options)
}

/// Options for the whole.
pub fn whole() -> xqkv_projection_options {
    initialised!(xqkv_projection_options, xqkv_projection_options_init)
}

/// One rank's projection, with its weights.
pub struct Projection(*mut xqkv_projection);

impl Projection {
    /// Makes a projection and fills it in one update.
    pub fn load(
        context: &Context,
        spec: &xqkv_spec,
        options: &xqkv_projection_options,
        fill: impl FnOnce(&Update) -> Outcome<()>,
    ) -> Outcome<Self> {
        let mut handle = null_mut();
        // SAFETY: live handles and initialised structs.
        checked(|error| unsafe {
            xqkv_projection_create(context.0, spec, options, &mut handle, error)
        })?;
        let projection = Self(handle);
        projection.update(fill)?;
        Ok(projection)
    }

    /// Commits one update.
    pub fn update(&self, fill: impl FnOnce(&Update) -> Outcome<()>) -> Outcome<()> {
        let mut update = null_mut();
        // SAFETY: a live handle and a place for the update.
        checked(|error| unsafe { xqkv_update_begin(self.0, &mut update, error) })?;
        let update = Update(update);
        fill(&update)?;
        // SAFETY: a live handle.
        checked(|error| unsafe { xqkv_update_commit(update.0, null_mut(), error) })
    }

    #[allow(dead_code, reason = "a rank's version is of interest where commits can fail")]
    pub fn weights_version(&self) -> Outcome<i64> {
        let mut version = 0;
        // SAFETY: a live handle and a place for the number.
        checked(|error| unsafe {
            xqkv_projection_get_weights_version(self.0, &mut version, error)
        })?;
        Ok(version)
    }

    /// Takes part in another communicator, or in none.
    #[allow(dead_code, reason = "only where ranks are lost do the others join anew")]
    pub fn set_comm(&self, comm: Option<&Comm>) -> Outcome<()> {
        let comm = comm.map_or(null(), Comm::handle);
        // SAFETY: live handles.
        checked(|error| unsafe { xqkv_projection_set_comm(self.0, comm, error) })
    }

    pub fn shard(&self) -> Outcome<xqkv_shard> {
        let mut shard = initialised!(xqkv_shard, xqkv_shard_init);
        // SAFETY: a live handle and an initialised struct.
        checked(|error| unsafe { xqkv_projection_get_shard(self.0, &mut shard, error) })?;
        Ok(shard)
    }

    /// A plan for calls like this one, whose addresses are multiples of `alignment`.
    pub fn plan(&self, example: &xqkv_forward, alignment: usize) -> Outcome<Plan> {
        let mut options = initialised!(xqkv_plan_options, xqkv_plan_options_init);
        options.alignment_bytes = alignment as i64;
        let mut plan = null_mut();
        // SAFETY: a live handle, initialised structs and a place for the handle.
        checked(|error| unsafe { xqkv_plan_create(self.0, example, &options, &mut plan, error) })?;
        Ok(Plan(plan))
    }

    /// Runs one call and tells what it did.
    ///
    /// # Safety
    /// The call describes memory truly.
    pub unsafe fn forward(&self, call: &xqkv_forward) -> Outcome<xqkv_stats> {
        let mut stats = initialised!(xqkv_stats, xqkv_stats_init);
        // SAFETY: passed on.
        checked(|error| unsafe { xqkv_projection_forward(self.0, call, &mut stats, error) })?;
        Ok(stats)
    }
}

impl Drop for Projection {
    fn drop(&mut self) {
        // SAFETY: this object's own handle.
        unsafe { xqkv_projection_destroy(self.0, null_mut()) };
    }
}

/// Weights that are not committed yet.
pub struct Update(*mut xqkv_update);

impl Update {
    /// All that the spec has.
    pub fn read(&self, checkpoint: &Checkpoint) -> Outcome<()> {
        let plain = &checkpoint.plain;
        // SAFETY: a live handle and an initialised struct.
        checked(|error| unsafe { xqkv_update_read_checkpoint(self.0, plain, error) })
    }

    /// What a commit would take.
    #[allow(dead_code, reason = "of interest to who measures")]
    pub fn commit_bytes(&self) -> Outcome<i64> {
        let mut bytes = 0;
        // SAFETY: a live handle and a place for the number.
        checked(|error| unsafe { xqkv_update_get_commit_bytes(self.0, &mut bytes, error) })?;
        Ok(bytes)
    }

    /// One tensor of the uncut layer.
    pub fn put(
        &self,
        layer: i64,
        part: PartChoice,
        kind: KindChoice,
        elements: &Tensor,
    ) -> Outcome<()> {
        let mut tensor = initialised!(xqkv_tensor, xqkv_tensor_init);
        (tensor.dtype, tensor.convert) = (Dtype::F32 as i32, 1);
        tensor.data = elements.elements.as_ptr().cast();
        tensor.rows = elements.rows as i64;
        tensor.columns = (elements.elements.len() / elements.rows.max(1)) as i64;
        let (part, kind) = (part as i32, kind as i32);
        // SAFETY: a live handle, and a tensor as long as it says.
        checked(|error| unsafe { xqkv_update_put(self.0, layer, part, kind, &tensor, error) })
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        // SAFETY: this object's own handle, which a commit has unmade already.
        unsafe { xqkv_update_abandon(self.0, null_mut()) };
    }
}

/// A plan, by which calls run that point to it.
pub struct Plan(*mut xqkv_plan);

impl Plan {
    pub fn handle(&self) -> *const xqkv_plan {
        self.0
    }

    /// Bytes that each call must be lent.
    pub fn workspace_bytes(&self) -> Outcome<usize> {
        let mut workspace = initialised!(xqkv_workspace, xqkv_workspace_init);
        // SAFETY: a live handle and an initialised struct.
        checked(|error| unsafe { xqkv_plan_get_workspace(self.0, &mut workspace, error) })?;
        Ok(workspace.minimum_bytes as usize)
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: this object's own handle.
        unsafe { xqkv_plan_destroy(self.0, null_mut()) };
    }
}

/// A call of one layer, both of its inputs absent.
pub fn call(layer: i64) -> xqkv_forward {
    let mut call = initialised!(xqkv_forward, xqkv_forward_init);
    call.layer = layer;
    (call.stream, call.plan) = (null_mut::<c_void>(), null());
    call
}

/// A spec as it is before anything is said of it.
#[allow(dead_code, reason = "others read theirs from checkpoints")]
pub fn spec() -> xqkv_spec {
    initialised!(xqkv_spec, xqkv_spec_init)
}

/// What a spec gives to a rank, without making anything.
pub fn cut(spec: &xqkv_spec, options: &xqkv_projection_options) -> Outcome<xqkv_shard> {
    let mut shard = initialised!(xqkv_shard, xqkv_shard_init);
    // SAFETY: initialised structs.
    checked(|error| unsafe { xqkv::capi::spec::xqkv_spec_cut(spec, options, &mut shard, error) })?;
    Ok(shard)
}

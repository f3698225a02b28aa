//! Our own kernels, for what no matmul can do: rows picked by a list, and results that go through
//! a norm or to places that are not one stride apart. `kernels/xqkv.cu` says how, and is compiled
//! to the text beside it by `cargo xtask kernels`.

#[cfg(test)]
mod tests;

use super::driver::{Driver, Handle};
use crate::error::Error;
use crate::view::{Indices, View};
use std::ffi::{CStr, c_uint, c_void};
use std::ptr::{from_ref, null, null_mut};

const IMAGE: &str = concat!(include_str!("kernels/xqkv.ptx"), "\0");

/// Threads of a block along a row, and warps of a block; both are the sources' own.
const GATHER_THREADS: u32 = 256;
const TILE: u32 = 32;
const WARPS: u32 = 8;

/// No grid is larger in a dimension, as devices have it; the kernels take the rest in more turns.
const MOST_BLOCKS: u64 = 65535;

/// `staged[rows, width]` = the rows of `source` that `list` names, each `list[row] * row_stride`
/// elements behind its first. A row that is not in `0..buffer_rows` becomes NaN, and nothing is
/// read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    pub(super) source: u64,
    /// An i64 for each row.
    pub(super) list: u64,
    pub(super) staged: u64,
    pub(super) rows: i64,
    pub(super) buffer_rows: i64,
    pub(super) width: i64,
    pub(super) row_stride: i64,
    /// 2 or 4, of source and staged alike.
    pub(super) element_bytes: i64,
}

/// Writes `staged[rows, heads, width]`, which has the bias, and without a norm the scale, to
/// element (row r, head h, lane d) of a view, at
///
/// ```text
/// (p / group_rows) * group_stride + (p % group_rows) * row_stride
///     + h * head_stride + d * width_stride
/// ```
///
/// elements behind `destination`, where p is `first_row + r`, or its slot. All strides are those of
/// a view: none is negative, and no element is written twice.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Store {
    pub(super) staged: u64,
    pub(super) destination: u64,
    /// An i64 for each of the view's rows, or 0. A row whose slot is not in `0..slot_count` is left
    /// out.
    pub(super) slots: u64,
    /// An f32 for each lane, or 0. Each head is then divided by the root of its mean square plus
    /// `epsilon`, as 1 / sqrt in f32, and multiplied by these.
    pub(super) norm_weight: u64,
    pub(super) rows: i64,
    /// Which of the view's rows the first one is.
    pub(super) first_row: i64,
    pub(super) slot_count: i64,
    pub(super) heads: i64,
    pub(super) width: i64,
    /// From one staged row to the next; heads are packed.
    pub(super) staged_row_stride: i64,
    pub(super) row_stride: i64,
    pub(super) head_stride: i64,
    pub(super) width_stride: i64,
    /// 0 has no groups.
    pub(super) group_rows: i64,
    pub(super) group_stride: i64,
    /// The last factor of what is written.
    pub(super) scale: f32,
    pub(super) epsilon: f32,
    /// A `Dtype`, of what is staged.
    pub(super) staged_dtype: i32,
    /// A `Dtype`, of the view.
    pub(super) dtype: i32,
    /// A `Dtype` that is rounded to between a norm's division and its weight, or 0.
    pub(super) round_dtype: i32,
    /// 1 adds to what is there, in f32, and rounds the sum.
    pub(super) accumulate: i32,
}

impl Store {
    /// All of a layer of a view from packed rows of its dtype, as they are.
    pub(super) fn whole(view: &View<'_>, layer: usize) -> Self {
        let (shape, strides) = (view.shape(), view.strides());
        Self {
            staged: 0,
            destination: view.address(layer) as u64,
            slots: view.slots().map_or(0, |slots| slots.address() as u64),
            norm_weight: 0,
            rows: shape.rows,
            first_row: 0,
            slot_count: view.slots().map_or(0, Indices::bound),
            heads: shape.heads,
            width: shape.width,
            staged_row_stride: shape.heads * shape.width,
            row_stride: strides.row,
            head_stride: strides.head,
            width_stride: strides.width,
            group_rows: view.group_rows().unwrap_or(0),
            group_stride: strides.group,
            scale: 1.0,
            epsilon: 0.0,
            staged_dtype: view.dtype() as i32,
            dtype: view.dtype() as i32,
            round_dtype: 0,
            accumulate: view.accumulates().into(),
        }
    }
}

/// The kernels in a context. Nothing of them changes until they are unloaded.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    driver: &'static Driver,
    module: Handle,
    gather: Handle,
    store: Handle,
}

// SAFETY: modules and functions may be used from any thread.
unsafe impl Send for Kernels {}
// SAFETY: as above.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Compiles the kernels for the current context's device, which may wait and allocate.
    pub(super) fn load(driver: &'static Driver) -> Result<Self, Error> {
        let mut kernels =
            Self { driver, module: null_mut(), gather: null_mut(), store: null_mut() };
        let image = IMAGE.as_ptr().cast();
        // SAFETY: a place for the module, and a text that ends with a NUL.
        let status = unsafe { (driver.functions.module_load)(&mut kernels.module, image) };
        driver.check("cuModuleLoadData", status)?;
        let found = kernels.find();
        // SAFETY: nobody has the module yet.
        found.inspect_err(|_| unsafe { kernels.unload() })?;
        Ok(kernels)
    }

    fn find(&mut self) -> Result<(), Error> {
        self.gather = self.function(c"xqkv_gather_rows")?;
        self.store = self.function(c"xqkv_store")?;
        Ok(())
    }

    /// Asking for a function is what puts it onto the device.
    fn function(&self, name: &CStr) -> Result<Handle, Error> {
        let (driver, mut function) = (self.driver, null_mut());
        // SAFETY: a place for the function of our own module.
        let status = unsafe {
            (driver.functions.module_get_function)(&mut function, self.module, name.as_ptr())
        };
        driver.check("cuModuleGetFunction", status).map(|()| function)
    }

    /// # Safety
    /// The context is current, and nothing that was launched from the module runs any more, nor is
    /// launched by anyone who holds a copy of this.
    pub(super) unsafe fn unload(&self) {
        // SAFETY: the caller's promise.
        unsafe { (self.driver.functions.module_unload)(self.module) };
    }

    /// Puts a gathering on the stream.
    ///
    /// # Safety
    /// The context is current. The device's memory has the list and the rows that it names, and
    /// room for the staged ones, aligned to their elements, in the order of the stream.
    pub(super) unsafe fn gather(&self, call: &Gather, stream: Handle) -> Result<(), Error> {
        let blocks = [call.rows as u64, (call.width as u64).div_ceil(GATHER_THREADS.into())];
        let threads = [GATHER_THREADS, 1];
        // SAFETY: the kernel takes this struct; the rest is the caller's promise.
        unsafe { self.launch(self.gather, blocks, threads, from_ref(call).cast(), stream) }
    }

    /// Puts a storing on the stream.
    ///
    /// # Safety
    /// The context is current. The device's memory has what the fields describe, aligned to its
    /// elements, in the order of the stream.
    pub(super) unsafe fn store(&self, call: &Store, stream: Handle) -> Result<(), Error> {
        let tiles = (call.rows as u64).div_ceil(TILE.into());
        let blocks = [tiles.saturating_mul(call.heads as u64), 1];
        let threads = [TILE, WARPS];
        // SAFETY: as above.
        unsafe { self.launch(self.store, blocks, threads, from_ref(call).cast(), stream) }
    }

    /// A grid of no blocks is not launched: the driver refuses one.
    unsafe fn launch(
        &self,
        function: Handle,
        blocks: [u64; 2],
        threads: [u32; 2],
        call: *const c_void,
        stream: Handle,
    ) -> Result<(), Error> {
        let [x, y] = blocks.map(|count| count.min(MOST_BLOCKS) as c_uint);
        if x == 0 || y == 0 {
            return Ok(());
        }
        let [across, down] = threads;
        // SAFETY: the caller's promise; the driver copies the parameter before it returns.
        let status = unsafe {
            (self.driver.functions.launch_kernel)(
                function,
                x,
                y,
                1,
                across,
                down,
                1,
                0,
                stream,
                &call,
                null(),
            )
        };
        self.driver.check("cuLaunchKernel", status)
    }
}

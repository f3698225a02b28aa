//! Ranks that mpirun started, each of which is a whole command. MPI comes with a plug-in
//! (`bindings/mpi/plugin.c`), which a compiler of MPI's makes, so that the command needs none.

use super::Arguments;
use super::member::{self, Ran};
use crate::library::{Comm, Outcome};
use std::ffi::{CStr, c_void};
use std::ptr::null_mut;
use xqkv::capi::comm::xqkv_comm;
use xqkv::library::{Library, Names};

const PLUGIN: Names = Names {
    title: "the plug-in for MPI",
    variable: "XQKV_MPI_PLUGIN",
    sonames: &[c"libxqkv_mpi_plugin.so"],
};

/// This rank among those that mpirun started.
pub struct Mpi {
    pub rank: usize,
    rank_count: usize,
    comm: *mut xqkv_comm,
    sum: unsafe extern "C" fn(i64) -> i64,
    close: unsafe extern "C" fn(),
}

impl Mpi {
    /// Joins the others, of which there must be so many.
    pub fn open(rank_count: usize) -> Outcome<Self> {
        let library = Library::open(&PLUGIN).map_err(|error| error.message)?;
        let symbol = |name: &CStr| library.symbol(name).map_err(|error| error.message);
        type Open = unsafe extern "C" fn(*mut i64, *mut i64, *mut *mut xqkv_comm) -> i32;
        // SAFETY: the plug-in's source has the functions under these names, of these types.
        let (open, sum, close) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Open>(symbol(c"xqkv_mpi_plugin_open")?),
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(i64) -> i64>(symbol(
                    c"xqkv_mpi_plugin_sum",
                )?),
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(symbol(
                    c"xqkv_mpi_plugin_close",
                )?),
            )
        };
        let (mut rank, mut count, mut comm) = (0, 0, null_mut());
        // SAFETY: places for what it tells.
        let status = unsafe { open(&mut rank, &mut count, &mut comm) };
        if status != 0 {
            return Err(format!("the plug-in for MPI answered {status}"));
        }
        if count as usize != rank_count {
            return Err(format!("mpirun started {count} ranks, and --ranks is {rank_count}"));
        }
        Ok(Self { rank: rank as usize, rank_count, comm, sum, close })
    }

    /// This rank's calls.
    pub fn run(&self, arguments: &Arguments) -> Outcome<Vec<Ran>> {
        member::run(arguments, self.rank, self.rank_count, |_| Ok(Comm::lent(self.comm)))
    }

    /// The sum of all ranks' values.
    pub fn sum(&self, value: i64) -> i64 {
        // SAFETY: all ranks call it in the same order.
        unsafe { (self.sum)(value) }
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // SAFETY: nothing uses the communicator any more.
        unsafe { (self.close)() };
    }
}

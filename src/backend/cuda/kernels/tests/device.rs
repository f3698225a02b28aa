//! A simulated device with some memory, and the functions of the simulator for tests.

use super::super::{Gather, Store};
use crate::backend::cuda::context::Context;
use crate::error::Error;
use crate::library::{Library, Names};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;

/// Bytes on both sides of a buffer that nobody may write.
const MARGIN: usize = 64;

pub(super) struct Device {
    pub(super) context: Context,
}

/// Memory of the device, between margins. It goes with the context.
pub(super) struct Buffer {
    base: u64,
    bytes: usize,
}

impl Device {
    pub(super) fn open() -> Self {
        Self { context: Context::open(0, 0, 0).unwrap() }
    }

    /// A buffer with these contents.
    pub(super) fn buffer(&self, contents: &[u8]) -> Buffer {
        let (context, mut base) = (&self.context, 0);
        let framed = [&[0xFF; MARGIN], contents, &[0xFF; MARGIN]].concat();
        let _entered = context.enter().unwrap();
        let functions = &context.driver.functions;
        // SAFETY: places for the answer, as many bytes, and our own stream.
        unsafe {
            assert_eq!((functions.allocate)(&mut base, framed.len()), 0);
            let source = framed.as_ptr().cast();
            let status = (functions.copy_to_device)(base, source, framed.len(), context.stream);
            assert_eq!(status, 0);
        }
        Buffer { base, bytes: contents.len() }
    }

    /// What a buffer has once all work is over; its margins are as they were.
    pub(super) fn read(&self, buffer: &Buffer) -> Vec<u8> {
        let context = &self.context;
        let mut framed = vec![0u8; buffer.bytes + 2 * MARGIN];
        let _entered = context.enter().unwrap();
        let target = framed.as_mut_ptr().cast();
        let copy = context.driver.functions.copy_to_host;
        // SAFETY: as many bytes in both memories.
        assert_eq!(unsafe { copy(target, buffer.base, framed.len(), context.stream) }, 0);
        context.synchronize().unwrap();
        let contents = framed[MARGIN..MARGIN + buffer.bytes].to_vec();
        framed.drain(MARGIN..MARGIN + buffer.bytes);
        assert!(framed.iter().all(|byte| *byte == 0xFF), "a margin was written");
        contents
    }

    pub(super) fn free(&self, buffers: &[&Buffer]) {
        let _entered = self.context.enter().unwrap();
        self.context.synchronize().unwrap();
        for buffer in buffers {
            // SAFETY: memory of ours, which nothing uses any more.
            assert_eq!(unsafe { (self.context.driver.functions.free)(buffer.base) }, 0);
        }
    }

    pub(super) fn gather(&self, call: &Gather) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        // SAFETY: the simulator looks at every address.
        unsafe { self.context.kernels()?.gather(call, self.context.stream) }
    }

    pub(super) fn store(&self, call: &Store) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        // SAFETY: as above.
        unsafe { self.context.kernels()?.store(call, self.context.stream) }
    }
}

impl Buffer {
    pub(super) fn address(&self) -> u64 {
        self.base + MARGIN as u64
    }
}

type Fail = unsafe extern "C" fn(*const c_char, i64, c_int);
type Live = unsafe extern "C" fn(*const c_char) -> i64;

/// The simulator's functions for tests.
pub(super) struct Simulator {
    fail: Fail,
    live: Live,
}

impl Simulator {
    pub(super) fn open() -> Self {
        let names = Names { title: "gpusim", variable: "XQKV_CUDA_LIBRARY", sonames: &[] };
        let library = Library::open(&names).unwrap();
        let symbol = |name| library.symbol(name).unwrap();
        // SAFETY: the functions as gpusim.h declares them; what dlopen found stays loaded.
        unsafe {
            Self {
                fail: transmute::<*mut c_void, Fail>(symbol(c"gpusim_fail")),
                live: transmute::<*mut c_void, Live>(symbol(c"gpusim_live")),
            }
        }
    }

    /// The nth call of the function from now answers that an argument is invalid.
    pub(super) fn fail(&self, function: &CStr, nth: i64) {
        // SAFETY: a terminated text.
        unsafe { (self.fail)(function.as_ptr(), nth, 1) };
    }

    pub(super) fn live(&self, kind: &CStr) -> i64 {
        // SAFETY: as above.
        unsafe { (self.live)(kind.as_ptr()) }
    }
}

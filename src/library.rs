//! Vendor libraries, looked for when they are first needed: none has to be there for this library
//! to load. A missing one is a status that lists the names tried.

use crate::error::{Error, Status};
use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStringExt;

/// What a library is called.
pub struct Names {
    /// For messages.
    pub title: &'static str,
    /// An environment variable that names the file to use instead of all others.
    pub variable: &'static str,
    /// In the order in which they are tried.
    pub sonames: &'static [&'static CStr],
}

/// A library that the process has open. It is never closed, since vendors' libraries start threads
/// and register handlers that would outlive their code.
pub struct Library {
    handle: *mut c_void,
    name: String,
}

// SAFETY: dlsym may be called from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens the file that the variable names; else the copy that the process already holds, so
    /// that the engine's own is shared; else the first name that the loader finds.
    pub fn open(names: &Names) -> Result<Library, Error> {
        if let Some(path) = std::env::var_os(names.variable) {
            let path = CString::new(path.into_vec()).unwrap_or_default();
            return open(&path, 0).map_err(|reason| missing(names, &[reason]));
        }
        let held = names.sonames.iter().find_map(|name| open(name, libc::RTLD_NOLOAD).ok());
        if let Some(library) = held {
            return Ok(library);
        }
        let mut reasons = Vec::new();
        for name in names.sonames {
            match open(name, 0) {
                Ok(library) => return Ok(library),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(missing(names, &reasons))
    }

    /// The name it was found by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of a function.
    pub fn symbol(&self, name: &CStr) -> Result<*mut c_void, Error> {
        // SAFETY: an open library and a terminated name.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        if address.is_null() {
            let message = format!(
                "{} has no {}; install a newer version of it",
                self.name,
                name.to_string_lossy()
            );
            return Err(Error::new(Status::LibraryUnsuitable, message));
        }
        Ok(address)
    }
}

fn open(name: &CStr, more_flags: c_int) -> Result<Library, String> {
    // SAFETY: a terminated name; the initialisers that may run are the vendor's own.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | more_flags) };
    let name = name.to_string_lossy().into_owned();
    if handle.is_null() { Err(last_reason(&name)) } else { Ok(Library { handle, name }) }
}

/// The loader's own words about the last failure.
fn last_reason(name: &str) -> String {
    // SAFETY: NULL or a terminated text that is valid until this thread's next call of its kind.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return format!("{name}: not loaded");
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn missing(names: &Names, reasons: &[String]) -> Error {
    let message = format!(
        "{} was not found: {}; install it, or name its file in {}",
        names.title,
        reasons.join("; "),
        names.variable
    );
    Error::new(Status::LibraryMissing, message)
}

/// Writes a table of a library's functions, each found by its symbol when the table is loaded.
/// Statuses come back as plain integers, since a newer library may answer ones that we do not know.
macro_rules! function_table {
    (
        $(#[$documentation:meta])*
        $table:ident { $($name:ident = $symbol:literal ($($argument:ty),* $(,)?);)+ }
    ) => {
        $(#[$documentation])*
        pub(super) struct $table {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> std::ffi::c_int,)+
        }

        impl $table {
            fn load(library: &crate::library::Library) -> Result<Self, crate::error::Error> {
                Ok(Self {
                    // SAFETY: the vendor documents the function under this symbol with these
                    // arguments and a C integer or enumeration as its answer.
                    $($name: unsafe {
                        std::mem::transmute::<
                            *mut std::ffi::c_void,
                            unsafe extern "C" fn($($argument),*) -> std::ffi::c_int,
                        >(library.symbol($symbol)?)
                    },)+
                })
            }
        }
    };
}
pub(crate) use function_table;

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Names = Names {
        title: "a library that nobody has",
        variable: "XQKV_TEST_NO_SUCH_VARIABLE",
        sonames: &[c"libxqkv-nobody-has.so.7", c"libxqkv-nobody-has.so.6"],
    };

    #[test]
    fn a_missing_library_is_an_error_that_lists_the_names_tried() {
        let error = Library::open(&NOWHERE).err().unwrap();
        assert_eq!(error.status, Status::LibraryMissing);
        for name in ["so.7", "so.6", "XQKV_TEST_NO_SUCH_VARIABLE"] {
            assert!(error.message.contains(name), "{error}");
        }
    }

    #[test]
    fn a_library_that_the_process_holds_is_found_and_lacks_what_it_lacks() {
        let names = Names { sonames: &[c"libc.so.6"], ..NOWHERE };
        let library = Library::open(&names).unwrap();
        assert!(library.symbol(c"malloc").is_ok());
        let error = library.symbol(c"xqkv_no_such_function").unwrap_err();
        assert_eq!(error.status, Status::LibraryUnsuitable);
    }
}

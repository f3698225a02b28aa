//! Gives the shared library its SONAME, and keeps it mapped once loaded.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    // cargo-c sets its own SONAME, and is the one to ask for the `capi` feature.
    let is_cargo_c = std::env::var_os("CARGO_FEATURE_CAPI").is_some();
    if is_linux && !is_cargo_c {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{}", soname());
    }
    if is_linux {
        // Worker threads and the panic hook must not outlive their code after dlclose.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // A plug-in of the command's calls the library that is in the command.
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=xqkv_*");
    }
}

/// Before 1.0 each minor version may break the ABI, so it is part of the name.
fn soname() -> String {
    let part = |name: &str| std::env::var(name).unwrap_or_default();
    let (major, minor) = (part("CARGO_PKG_VERSION_MAJOR"), part("CARGO_PKG_VERSION_MINOR"));
    match major.as_str() {
        "0" => format!("libxqkv.so.0.{minor}"),
        _ => format!("libxqkv.so.{major}"),
    }
}

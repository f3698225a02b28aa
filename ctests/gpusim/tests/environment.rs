//! The settings of the environment, and the report at the process's end. Each needs a process of
//! its own, so the test runs itself again.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod support;

use gpusim::control::*;
use gpusim::driver::{context::*, copy::*, device::*, event::*, memory::*};
use gpusim::status::*;
use std::process::{Command, Output};
use support::*;

/// Runs the named test of this file again, as the child, with the settings.
fn child(test: &str, settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--test-threads=1"]);
    command.envs(settings.iter().copied()).output().unwrap()
}

fn passes(test: &str, settings: &[(&str, &str)]) {
    let output = child(test, settings);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "run by the test beside it"]
fn no_device() {
    unsafe {
        assert_eq!(cuDeviceGetCount(&mut 0), NOT_INITIALIZED);
        assert_eq!(cuCtxSynchronize(), NOT_INITIALIZED);
        assert_eq!(cuInit(0), NO_DEVICE);
        assert_eq!(cuEventQuery(0), NOT_INITIALIZED);
    }
}

#[test]
fn a_machine_may_have_no_device() {
    passes("no_device", &[("GPUSIM_DEVICES", "0")]);
}

#[test]
#[ignore = "run by the test beside it"]
fn settings() {
    let _sim = sim();
    let (mut count, mut version, mut free, mut total) = (0, 0, 0, 0);
    unsafe {
        ok(cuDeviceGetCount(&mut count));
        ok(cuDriverGetVersion(&mut version));
        let address = alloc(600);
        ok(cuMemGetInfo_v2(&mut free, &mut total));
        assert_eq!((count, version, free, total), (5, 11040, 400, 1000));
        assert_eq!(cuMemAlloc_v2(&mut 0, 401), OUT_OF_MEMORY);
        ok(cuMemFree_v2(address));
    }
}

#[test]
fn devices_memory_and_version_are_as_set() {
    let devices = ("GPUSIM_DEVICES", "5");
    let settings = [devices, ("GPUSIM_DRIVER_VERSION", "11040"), ("GPUSIM_MEMORY_BYTES", "1000")];
    passes("settings", &settings);
}

#[test]
#[ignore = "run by the test beside it"]
fn violation() {
    let _sim = sim();
    assert_eq!(unsafe { cuMemsetD8_v2(1, 0, 1) }, INVALID_VALUE);
    assert_eq!(gpusim_violations(), 1);
}

#[test]
fn a_violation_may_abort() {
    let output = child("violation", &[("GPUSIM_ABORT_ON_VIOLATION", "1")]);
    assert!(!output.status.success());
}

#[test]
fn the_report_is_one_line_of_json() {
    let path = std::env::temp_dir().join(format!("gpusim-{}.json", std::process::id()));
    passes("violation", &[("GPUSIM_REPORT", path.to_str().unwrap())]);
    let report = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(report.starts_with("{\"calls\":{") && report.ends_with("}}\n"), "{report}");
    assert!(report.contains("\"cuMemsetD8_v2\":1,") || report.contains("\"cuMemsetD8_v2\":1}"));
    assert!(report.contains("\"violations\":[\"cuMemsetD8_v2: writes 0x1..0x2"), "{report}");
    assert!(report.contains("\"contexts\":0"), "{report}");
}

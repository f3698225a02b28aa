//! The kernels on the simulated GPU, and their structs against the source for the device. The
//! library takes its driver from the environment, so what needs one runs in a process of its own.

mod device;
mod gather;
mod source;
mod store;

use device::{Device, Simulator};
use std::path::PathBuf;
use std::process::Command;

/// The simulated GPU's shared object, built where this test was.
fn simulator() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).expect("the target folder");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", "gpusim", "--target-dir"]).arg(target);
    assert!(command.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    target.join("debug/libgpusim.so")
}

/// Runs the tests whose names begin so again, where the driver is the simulated one.
fn passes(tests: &str) {
    let (name, library) =
        (format!("{}::{tests}", module_path!().split_once("::").unwrap().1), simulator());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&name, "--ignored", "--test-threads=1"]).env("GPUSIM_ABORT_ON_VIOLATION", "1");
    command.env("XQKV_CUDA_LIBRARY", &library).env("XQKV_CUBLASLT_LIBRARY", &library);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ran = !text.contains("running 0 tests");
    assert!(output.status.success() && ran, "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rows_of_a_list_are_gathered_and_others_are_nan() {
    passes("gather");
}

#[test]
fn results_go_where_the_view_has_them_and_nowhere_else() {
    passes("store");
}

#[test]
fn a_driver_that_fails_once_is_an_error_and_then_works() {
    passes("faults");
}

#[test]
#[ignore = "run by the test beside it"]
fn faults() {
    let simulator = Simulator::open();
    for (function, nth) in
        [(c"cuModuleLoadData", 1), (c"cuModuleGetFunction", 1), (c"cuModuleGetFunction", 2)]
    {
        let device = Device::open();
        let _entered = device.context.enter().unwrap();
        simulator.fail(function, nth);
        let error = device.context.kernels().err().unwrap();
        assert!(error.message.contains(function.to_str().unwrap()), "{}", error.message);
        assert_eq!(simulator.live(c"modules"), 0);
        device.context.kernels().unwrap();
        assert_eq!(simulator.live(c"modules"), 1);
        drop(device);
        assert_eq!(simulator.live(c"modules"), 0);
    }
    let device = Device::open();
    simulator.fail(c"cuLaunchKernel", 1);
    let error = gather::one(&device).err().unwrap();
    assert!(error.message.contains("cuLaunchKernel answered"), "{}", error.message);
    gather::one(&device).unwrap();
}

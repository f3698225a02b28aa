//! The tables of docs/waves.md are what docs/waves.py computes.

use std::process::Command;

#[test]
fn the_wave_model_s_tables_are_current() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/waves.py");
    match Command::new("python3").arg(script).arg("--check").output() {
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{message}");
        }
        Err(error) => println!("NOT RUN: python3: {error}"),
    }
}

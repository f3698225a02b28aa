//! Programs that the commands run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project")
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A program about to be run in the project's root.
pub struct Run(Command);

impl Run {
    /// A program with its arguments.
    pub fn new(program: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.current_dir(root()).args(arguments).stdin(Stdio::null());
        Self(command)
    }

    /// The cargo that runs this command.
    pub fn cargo(arguments: &[&str]) -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), arguments)
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    /// Some more arguments.
    pub fn args(mut self, arguments: &[String]) -> Self {
        self.0.args(arguments);
        self
    }

    /// A folder of the project to run in.
    pub fn folder(mut self, folder: &str) -> Self {
        self.0.current_dir(root().join(folder));
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Runs it to its end, what it prints being seen.
    pub fn succeed(mut self) -> Result<(), String> {
        let name = self.0.get_program().to_string_lossy().into_owned();
        let status = self.0.status().map_err(|error| format!("{name} cannot be run: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
    }

    /// Runs it to its end, and gives what it prints.
    pub fn output(mut self) -> Result<String, String> {
        let name = self.0.get_program().to_string_lossy().into_owned();
        let output = self.0.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| format!("{name} cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(format!("{name}: {}", output.status));
        }
        String::from_utf8(output.stdout).map_err(|error| format!("{name}: {error}"))
    }

    /// Whether it can be run and succeeds, what it prints not being seen.
    pub fn can_run(mut self) -> bool {
        let quiet = self.0.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }
}

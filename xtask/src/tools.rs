//! Tools that some checks need, and how to get them.

use crate::run::Run;

/// One tool.
pub struct Tool {
    /// Its program.
    pub name: &'static str,
    probe: &'static [&'static str],
    /// What is not checked without it.
    pub checks: &'static str,
    /// How to install it.
    pub install: &'static str,
}

/// Every tool beyond Rust, a C compiler and Python.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "rustfmt",
        probe: &["--version"],
        checks: "the sources' format",
        install: "rustup component add rustfmt",
    },
    Tool {
        name: "cargo-clippy",
        probe: &["--version"],
        checks: "clippy's lints",
        install: "rustup component add clippy",
    },
    Tool {
        name: "c++",
        probe: &["--version"],
        checks: "the header and its wrapper in C++",
        install: "apt-get install g++",
    },
    Tool {
        name: "clang",
        probe: &["--version"],
        checks: "the header with a second compiler",
        install: "apt-get install clang",
    },
    Tool {
        name: "valgrind",
        probe: &["--version"],
        checks: "the C suite's reads, writes and leaks",
        install: "apt-get install valgrind",
    },
    Tool {
        name: "nm",
        probe: &["--version"],
        checks: "exported symbols, the SONAME, and that sanitizers are linked",
        install: "apt-get install binutils",
    },
    Tool {
        name: "gcc",
        probe: &["--version"],
        checks: "the C suite under the address and thread sanitizers",
        install: "apt-get install gcc",
    },
    Tool {
        name: "mpicc",
        probe: &["--version"],
        checks: "communicators over MPI",
        install: "apt-get install libopenmpi-dev",
    },
    Tool {
        name: "mpicxx",
        probe: &["--version"],
        checks: "communicators over MPI in C++",
        install: "apt-get install libopenmpi-dev g++",
    },
    Tool {
        name: "mpirun",
        probe: &["--version"],
        checks: "communicators of several processes",
        install: "apt-get install openmpi-bin",
    },
    Tool {
        name: "go",
        probe: &["version"],
        checks: "the Go binding",
        install: "apt-get install golang-go (1.21 or later)",
    },
    Tool {
        name: "python3",
        probe: &["-c", "import venv, ensurepip"],
        checks: "the example's data and the Python binding",
        install: "apt-get install python3-venv",
    },
];

impl Tool {
    /// Whether it can be run here.
    pub fn can_run(&self) -> bool {
        Run::new(self.name, self.probe).can_run()
    }
}

/// Whether a tool of this name can be run here.
pub fn has(name: &str) -> bool {
    TOOLS.iter().find(|tool| tool.name == name).is_some_and(Tool::can_run)
}

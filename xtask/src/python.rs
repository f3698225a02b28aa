//! The project's own Python environment, under the target folder.

use crate::run::{Run, root, target};
use std::fs;
use std::path::PathBuf;

/// The environment's interpreter, with the packages that the tests pin.
pub fn interpreter() -> Result<PathBuf, String> {
    let folder = target().join("python");
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.txt"));
    let pinned = fs::read(root().join("tests/python/requirements.txt"))
        .map_err(|error| format!("tests/python/requirements.txt: {error}"))?;
    if fs::read(&stamp).is_ok_and(|installed| installed == pinned) {
        return Ok(python);
    }
    Run::new("python3", &["-m", "venv", "--clear"]).arg(&folder).succeed()?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    Run::new(&python, &install).arg("tests/python/requirements.txt").succeed()?;
    fs::write(stamp, pinned).map_err(|error| error.to_string())?;
    Ok(python)
}

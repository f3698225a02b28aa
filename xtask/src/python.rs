//! The project's own Python environments, under the target folder.

use crate::run::{Run, root, target};
use std::fs;
use std::path::PathBuf;

/// An environment's interpreter, with the packages that a list pins.
pub fn interpreter(name: &str, requirements: &str) -> Result<PathBuf, String> {
    let folder = target().join(name);
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.txt"));
    let pinned =
        fs::read(root().join(requirements)).map_err(|error| format!("{requirements}: {error}"))?;
    if fs::read(&stamp).is_ok_and(|installed| installed == pinned) {
        return Ok(python);
    }
    Run::new("python3", &["-m", "venv", "--clear"]).arg(&folder).succeed()?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    Run::new(&python, &install).arg(requirements).succeed()?;
    fs::write(stamp, pinned).map_err(|error| error.to_string())?;
    Ok(python)
}

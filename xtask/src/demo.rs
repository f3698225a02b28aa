//! `cargo xtask demo`: builds the shared library and examples/c/demo.c, writes the example's data
//! as raw files so that the program need not parse any, and runs it.

use crate::reference::{Finish, Reference};
use crate::run::{Run, root, target};
use crate::tensors::{Archive, Tensor, of_checkpoint};
use std::fs;
use std::path::{Path, PathBuf};
use xqkv::dtype::{Element, bf16};

/// Builds and runs the program; its exit status is the command's.
pub fn run() -> Result<(), String> {
    let folder = library()?;
    let checkpoint = root().join("examples/whisper");
    write_data(&checkpoint, &folder)?;
    let program = compile(&folder)?;
    Run::new(program, &[]).arg(checkpoint).arg(folder).succeed()
}

/// Builds the shared library, and gives a folder in which it has the name that programs linked
/// against it look for.
pub fn library() -> Result<PathBuf, String> {
    Run::cargo(&["build", "--release", "--package", "xqkv", "--lib"]).succeed()?;
    let folder = target().join("demo");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let built = target().join("release/libxqkv.so");
    for name in ["libxqkv.so".to_owned(), format!("libxqkv.so.{}", soname_version())] {
        let link = folder.join(name);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).map_err(|error| error.to_string())?;
        }
        std::os::unix::fs::symlink(&built, &link).map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

/// The part of the version that build.rs makes the SONAME of.
pub fn soname_version() -> String {
    use xqkv::capi::version::{XQKV_VERSION_MAJOR, XQKV_VERSION_MINOR};
    match XQKV_VERSION_MAJOR {
        0 => format!("0.{XQKV_VERSION_MINOR}"),
        major => major.to_string(),
    }
}

fn compile(folder: &Path) -> Result<PathBuf, String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let program = folder.join("demo");
    let flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Iinclude"];
    let link = [format!("-L{}", folder.display()), format!("-Wl,-rpath,{}", folder.display())];
    Run::new(compiler, &flags)
        .arg("examples/c/demo.c")
        .args(&link)
        .args(&["-lxqkv", "-lpthread", "-lm", "-o"].map(str::to_owned))
        .arg(&program)
        .succeed()?;
    Ok(program)
}

/// Inputs, the model's own results, and the magnitudes that the error bound takes, layer by layer.
fn write_data(checkpoint: &Path, folder: &Path) -> Result<(), String> {
    let io = Archive::open(&checkpoint.join("io.safetensors"))?;
    let encoder = io.tensor("encoder")?;
    write(folder, "encoder", &floats(&encoder.elements))?;
    (0..2).try_for_each(|layer| write_layer(checkpoint, &io, &encoder, layer, folder))
}

fn write_layer(
    checkpoint: &Path,
    io: &Archive,
    encoder: &Tensor,
    layer: usize,
    folder: &Path,
) -> Result<(), String> {
    let decoder = io.tensor(&format!("layers.{layer}.decoder"))?;
    write(folder, &format!("layer{layer}_decoder"), &floats(&decoder.elements))?;
    let mut fused = Fused::default();
    for (part, rows) in [("query", &decoder), ("key", encoder), ("value", encoder)] {
        let stem = format!("model.decoder.layers.{layer}.encoder_attn.{}_proj", &part[..1]);
        let weight = of_checkpoint(checkpoint, &format!("{stem}.weight"))?;
        let bias = of_checkpoint(checkpoint, &format!("{stem}.bias")).ok();
        let bias = bias.map(|bias| bias.elements);
        let inner = weight.elements.len() / weight.rows;
        let plain = Finish { scale: 1.0, norm: None };
        let exact = Reference::new(
            &rows.elements,
            inner,
            &weight.elements,
            bias.as_deref(),
            weight.rows,
            &plain,
        );
        let magnitudes = exact.magnitudes.iter().flat_map(|size| size.to_ne_bytes());
        let expected = io.tensor(&format!("layers.{layer}.{part}"))?;
        write(folder, &format!("layer{layer}_{part}"), &floats(&expected.elements))?;
        write(folder, &format!("layer{layer}_{part}_magnitude"), &magnitudes.collect::<Vec<_>>())?;
        fused.add(&weight.elements, bias, weight.rows);
    }
    write(folder, &format!("layer{layer}_fused_weight"), &fused.weight)?;
    write(folder, &format!("layer{layer}_fused_bias"), &floats(&fused.bias))
}

/// [Wq; Wk; Wv] in bf16 and its bias, zeros where the checkpoint has none.
#[derive(Default)]
struct Fused {
    weight: Vec<u8>,
    bias: Vec<f32>,
}

impl Fused {
    fn add(&mut self, weight: &[f32], bias: Option<Vec<f32>>, rows: usize) {
        weight.iter().for_each(|&element| bf16::round(element).append_to(&mut self.weight));
        self.bias.extend(bias.unwrap_or_else(|| vec![0.0; rows]));
    }
}

fn floats(elements: &[f32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_ne_bytes()).collect()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let path = folder.join(name).with_extension("bin");
    fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

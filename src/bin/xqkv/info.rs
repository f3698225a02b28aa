//! `xqkv info`.

use crate::library::{Context, Outcome, text};
use xqkv::capi::context::InstructionSetChoice;
use xqkv::capi::version::{xqkv_version_abi, xqkv_version_string};

/// Prints what the library is and what it found.
pub fn run() -> Outcome<bool> {
    let info = Context::new(0)?.info()?;
    let set = InstructionSetChoice::from_integer(info.instruction_set, "instruction_set");
    println!("version          {} (ABI {})", text(xqkv_version_string()), xqkv_version_abi());
    println!("host backend     {} threads", info.thread_count);
    println!("instruction set  {}", set.map_or("unknown", InstructionSetChoice::name));
    println!("CUDA backend     not in this version");
    println!("NCCL             not in this version");
    Ok(true)
}

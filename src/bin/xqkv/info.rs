//! `xqkv info`.

use crate::library::{Context, Outcome, text};
use xqkv::capi::context::InstructionSetChoice;
use xqkv::capi::version::{xqkv_version_abi, xqkv_version_string};

/// Prints what the library is and what it found.
pub fn run() -> Outcome<bool> {
    let info = Context::new(0)?.info()?;
    println!("version           {} (ABI {})", text(xqkv_version_string()), xqkv_version_abi());
    println!("host backend      {} threads", info.thread_count);
    for &set in InstructionSetChoice::ALL.iter().filter(|&&set| set != InstructionSetChoice::Auto) {
        let state = match Context::with_instruction_set(set as i32) {
            Ok(_) if set as i32 == info.instruction_set => "in use".to_owned(),
            Ok(_) => "available".to_owned(),
            Err(reason) => reason,
        };
        println!("instruction set   {}: {state}", set.name());
    }
    match Context::on_cuda(0).and_then(|context| context.info()) {
        Ok(found) => println!(
            "CUDA backend      device {}, compute capability {}, {} multiprocessors, driver {}, \
             cuBLASLt {}",
            found.device,
            found.compute_capability,
            found.multiprocessor_count,
            found.driver_version,
            found.cublaslt_version
        ),
        Err(reason) => println!("CUDA backend      {reason}"),
    }
    println!("NCCL              not in this version");
    Ok(true)
}

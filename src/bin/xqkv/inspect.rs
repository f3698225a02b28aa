//! `xqkv inspect`: what a checkpoint holds, and how ranks would share it.

use crate::library::{Checkpoint, Outcome, balanced, cut};
use crate::numbers::grouped;
use serde_json::Value;
use std::path::PathBuf;
use xqkv::capi::spec::{Norm, xqkv_spec};
use xqkv::dtype::Dtype;

#[derive(clap::Args)]
pub struct Arguments {
    /// A Hugging Face folder with config.json and safetensors files
    directory: PathBuf,
    /// Show how so many ranks would share it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=4096))]
    ranks: i64,
}

/// Prints family, spec, tensors and shards; false if a tensor is missing or misshaped.
pub fn run(arguments: &Arguments) -> Outcome<bool> {
    let checkpoint = Checkpoint::new(&arguments.directory)?;
    let spec = checkpoint.spec()?;
    let report = checkpoint.report(&spec)?;
    print_spec(&spec, &report);
    let is_complete = print_tensors(&report);
    print_shards(&spec, arguments.ranks)?;
    Ok(is_complete)
}

fn print_spec(spec: &xqkv_spec, report: &Value) {
    let dtype =
        Dtype::from_integer(spec.weight_dtype, "weight_dtype").map_or("unknown", Dtype::name);
    let has = |bias: i32| if bias == 1 { "yes" } else { "no" };
    println!("family           {}", report["family"].as_str().unwrap_or("unknown"));
    println!("layers           {} with cross-attention: {}", spec.layer_count, layers(report));
    println!("decoder width    {}", spec.decoder_width);
    println!("encoder width    {}", spec.encoder_width);
    println!("query heads      {} of {}", spec.query_heads, spec.head_width);
    println!("key/value heads  {} of {}", spec.key_value_heads, spec.head_width);
    println!("weights          {dtype}");
    println!(
        "biases           query {}, key {}, value {}",
        has(spec.query_bias),
        has(spec.key_bias),
        has(spec.value_bias)
    );
    if spec.norm == Norm::Rms as i32 {
        println!("norm             of query and key heads, epsilon {:e}", spec.norm_epsilon);
    }
}

/// The checkpoint's own numbers of its layers.
fn layers(report: &Value) -> String {
    let lists = ["used", "missing", "misshaped"].map(|list| report[list].as_array());
    let tensors = lists.into_iter().flatten().flatten();
    let mut numbers: Vec<i64> =
        tensors.filter_map(|tensor| tensor["checkpoint_layer"].as_i64()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

fn print_tensors(report: &Value) -> bool {
    let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    println!("tensors          {} used", list("used").len());
    for tensor in list("missing") {
        println!("  missing        {} {}", string(&tensor["name"]), tensor["needed_shape"]);
    }
    for tensor in list("misshaped") {
        let (name, shape) = (string(&tensor["name"]), &tensor["shape"]);
        let needed = &tensor["needed_shape"];
        println!("  misshaped      {name} is {shape}, needed {needed}");
    }
    for name in list("unused") {
        println!("  unused         {}", string(&name));
    }
    list("missing").is_empty() && list("misshaped").is_empty()
}

fn print_shards(spec: &xqkv_spec, ranks: i64) -> Outcome<()> {
    println!("\nrank  query heads  key/value heads  bytes of weights");
    for rank in 0..ranks {
        let shard = cut(spec, &balanced(spec, rank, ranks)?)?;
        let heads = |begin: i64, count: i64| match count {
            0 => "none".to_owned(),
            _ => format!("{begin} to {}", begin + count - 1),
        };
        println!(
            "{rank:>4}  {:>11}  {:>15}  {:>16}",
            heads(shard.query_head_begin, shard.query_head_count),
            heads(shard.key_value_head_begin, shard.key_value_head_count),
            grouped(shard.weight_bytes)
        );
    }
    Ok(())
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

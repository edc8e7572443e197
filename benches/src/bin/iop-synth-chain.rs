//! The `iop-synth-chain` program: writes a synthetic chain as a block file for measurements.
//!
//! Next to `FILE` it writes `FILE.network.toml`, the network file for `iop-node`, `FILE.env`, the same for a build of
//! IoP Core whose regtest reads its licensing from the environment, and `FILE.tip`, the newest block's hash. The same
//! arguments produce the same bytes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use iop_benches::synth::{self, Shape, Spec};

/// Makes a synthetic licensed chain as a block file
#[derive(Debug, Parser)]
#[command(name = "iop-synth-chain", version)]
struct Args {
    /// What the blocks carry
    #[arg(long, value_enum, default_value = "signatures")]
    shape: Carry,
    /// Blocks that carry something; 110 more come before them
    #[arg(long, value_name = "N", default_value = "3110")]
    blocks: u32,
    /// Inputs in all of them together [default: 60,000 for signatures, 440,000 for coins]
    #[arg(long, value_name = "N")]
    inputs: Option<u32>,
    /// Blocks at the end that carry nothing: 2,016 bury the others deep enough for --assume-valid
    #[arg(long, value_name = "N", default_value = "0")]
    tail: u32,
    /// Decides every key, coin and amount
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// The file to write
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Carry {
    /// Signed P2PKH inputs
    Signatures,
    /// Many coins that need no signature
    Coins,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match write(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "iop-synth-chain: {}: {error}", args.file.display());
            ExitCode::FAILURE
        }
    }
}

fn write(args: &Args) -> std::io::Result<()> {
    let (shape, inputs) = match args.shape {
        Carry::Signatures => (Shape::Signatures, 60_000),
        Carry::Coins => (Shape::Coins, 440_000),
    };
    let inputs = args.inputs.unwrap_or(inputs);
    let spec = Spec { shape, seed: args.seed, blocks: args.blocks, inputs, tail: args.tail };
    let magic = synth::network().magic;
    let mut file = BufWriter::new(File::create(&args.file)?);
    let genesis = synth::network().genesis.block();
    file.write_all(&synth::frame(&genesis, magic))?;
    let mut bytes = 0;
    let summary = synth::generate(&spec, |block| {
        let framed = synth::frame(block, magic);
        bytes += framed.len() as u64;
        file.write_all(&framed)
    })?;
    file.into_inner()?.sync_all()?;
    std::fs::write(beside(&args.file, "network.toml"), synth::network_file())?;
    std::fs::write(beside(&args.file, "env"), synth::reference_environment() + "\n")?;
    std::fs::write(beside(&args.file, "tip"), format!("{}\n", summary.tip))?;
    writeln!(
        std::io::stdout(),
        "{}: {} blocks, {} inputs, {} outputs, {:.1} MB",
        args.file.display(),
        summary.height,
        summary.inputs,
        summary.outputs,
        bytes as f64 / 1e6
    )
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

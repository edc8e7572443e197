//! The `iop-pool` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    iop_pool::cli::main()
}

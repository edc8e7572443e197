//! The program `iop-node`.

use std::process::ExitCode;

fn main() -> ExitCode {
    iop_node::cli::main()
}

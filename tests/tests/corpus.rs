//! Replays the corpora of the fuzz targets: what a fuzzer once found stays fixed.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use iop_fuzz_targets::{TARGETS, seeds};

#[test]
fn every_input_of_every_corpus_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
            let path = entry.unwrap().path();
            // A panic does not name its input.
            println!("{}", path.display());
            target(&std::fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= seeds::seeds(name).len() && inputs > 0, "{name} has {inputs} inputs");
    }
}

#[test]
fn every_target_can_be_run_by_cargo_fuzz() {
    let glue = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = std::fs::read_to_string(glue.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(glue.join(format!("fuzz_targets/{name}.rs")).is_file(), "{name}");
    }
    // Cargo reads the manifests of the cargo-fuzz glue and the targets only if each finds its own workspace.
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(glue.join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
}

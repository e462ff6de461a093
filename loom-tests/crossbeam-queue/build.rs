//! Finds upstream's `array_queue.rs` where cargo keeps the sources of crates, and has it compiled as it is.
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Returns where the sources of the crate of this version lie.
fn upstream(version: &str) -> Option<PathBuf> {
    if let Some(given) = env::var_os("CROSSBEAM_QUEUE_SRC") {
        return Some(given.into());
    }
    let cargo = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")))?;
    let registries = fs::read_dir(cargo.join("registry/src")).ok()?;
    let folders = registries.flatten().map(|entry| entry.path().join(format!("crossbeam-queue-{version}")));
    folders.into_iter().find(|folder| folder.join("src/array_queue.rs").is_file())
}

fn main() {
    println!("cargo:rerun-if-env-changed=CROSSBEAM_QUEUE_SRC");
    let version = env::var("CARGO_PKG_VERSION").unwrap();
    let Some(folder) = upstream(&version) else {
        panic!("crossbeam-queue {version} is not in cargo's registry: run `cargo fetch` in forebay first");
    };
    let source = folder.join("src/array_queue.rs");
    println!("cargo:rerun-if-changed={}", source.display());
    let module = format!("#[path = {source:?}]\npub mod array_queue;\n");
    fs::write(Path::new(&env::var_os("OUT_DIR").unwrap()).join("upstream.rs"), module).unwrap();
}

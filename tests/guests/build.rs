//! Gives the test kernels, and only them, the linker script that puts the image where the loader wants it.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=link.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
        println!("cargo:rustc-link-arg-bins=-T{}", here.join("link.ld").display());
    }
}

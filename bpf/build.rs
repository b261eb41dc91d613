//! Compiles the eBPF program and generates its libbpf skeleton.

use std::ffi::OsString;
use std::path::PathBuf;
use std::{env, process};

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "src/bpf/steer.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed=src/bpf");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut arguments: Vec<OsString> = ["-Wall", "-Wextra", "-Werror"].map(OsString::from).into();

    // Debian keeps <asm/types.h> in a directory per architecture, which clang
    // searches for its own target, never for `bpf`.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let multiarch = PathBuf::from(format!("/usr/include/{arch}-linux-gnu"));
    if multiarch.is_dir() {
        arguments.push("-idirafter".into());
        arguments.push(multiarch.into());
    }

    let built = SkeletonBuilder::new()
        .source(SOURCE)
        .clang_args(arguments)
        .build_and_generate(out_dir.join("steer.skel.rs"));
    if let Err(error) = built {
        println!("cargo::error=cannot compile {SOURCE}: {error:#}");
        println!("cargo::error=on Debian: apt install clang llvm libelf-dev zlib1g-dev libbpf-dev");
        process::exit(1);
    }
}

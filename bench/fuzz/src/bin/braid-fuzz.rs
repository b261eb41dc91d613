//! libFuzzer around the bodies in the library. One program for all of them: the target is
//! named by `BRAID_FUZZ_TARGET`, because libFuzzer owns the command line.
#![no_main]

use std::sync::OnceLock;

use braid_fuzz::{Target, target};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("BRAID_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        eprintln!("BRAID_FUZZ_TARGET names no target: {name:?}");
        std::process::exit(2);
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (TARGET.get_or_init(chosen).run)(data);
});

//! The real `braidd` and `braid` on configurations and machines that they must refuse.
//! Needs no privilege: everything here fails before anything is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn braidd(config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_braidd"))
        .arg("--config")
        .arg(config)
        .output()
        .expect("braidd runs")
}

fn braid(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_braid"))
        .args(arguments)
        .output()
        .expect("braid runs")
}

fn file(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("braid.toml");
    fs::write(&path, text).expect("a writable folder");
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[test]
fn a_bad_config_is_status_2_with_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    for (config, line, rest) in [
        ("[[interface]\n", 1, ""),
        (
            "[[interface]]\nname = \"v\"\nmode = \"fast\"\n",
            3,
            "interface.mode: \"fast\" is not known; allowed: auto, zero-copy, native, generic, superframe",
        ),
        (
            "[dataplane]\nframs = 1\n",
            2,
            "dataplane.frams: unknown key; allowed: cores, idle, frames, frame-size, rx-ring, tx-ring, memory-limit, hugepages",
        ),
        (
            "[[interface]]\nname = \"v\"\n[[service]]\nname = \"e\"\nlisten = \"*:0\"\napp = \"echo\"\n",
            5,
            "service.listen: \"0\" is not a port; allowed: 1 to 65535",
        ),
    ] {
        let path = file(&dir, config);
        let out = braidd(&path);
        assert_eq!(out.status.code(), Some(2), "{config}");
        assert_eq!(text(&out.stdout), "", "ready must not be said");
        let expected = format!("braidd: {}:{line}: {rest}", path.display());
        let error = text(&out.stderr);
        assert!(error.starts_with(&expected), "{error}\nis not\n{expected}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_missing_config_is_status_2() {
    let out = braidd(Path::new("/nonexistent/braid.toml"));
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(
        text(&out.stderr),
        "braidd: /nonexistent/braid.toml: cannot be read: No such file or directory (os error 2); name the file with --config FILE"
    );
}

/// Without privilege that is what is told (status 1), with it the interface (status 2):
/// one line and nothing left behind in both cases.
#[test]
fn what_the_machine_lacks_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("c.sock");
    let config = format!(
        "[dataplane]\ncores = [0]\n[[interface]]\nname = \"no-such-if\"\n[control]\nsocket = \"{}\"\n",
        socket.display()
    );
    let path = file(&dir, &config);
    let out = braidd(&path);
    let error = text(&out.stderr);
    match out.status.code() {
        Some(1) => assert!(error.contains("missing; run it as root"), "{error}"),
        Some(2) => assert!(
            error.starts_with(&format!(
                "braidd: {}:4: interface.name: \"no-such-if\" does not exist",
                path.display()
            )),
            "{error}"
        ),
        other => panic!("{other:?}: {error}"),
    }
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(!socket.exists() && !dir.path().join("c.sock.dataplane").exists());
}

#[test]
fn check_tells_a_bad_config_with_status_2_and_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "[[interface]]\nname = \"v\"\nmtu = 9000\n");
    let out = braid(&["check", "--config", path.to_str().unwrap(), "--json"]);
    assert_eq!(out.status.code(), Some(2));
    let checks: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(checks[0]["status"], "fail");
    assert_eq!(
        checks[0]["message"],
        format!(
            "{}:3: interface.mtu: unknown key; allowed: name, queues, mode, rx-checksum",
            path.display()
        )
    );
}

#[test]
fn commands_without_a_daemon_say_how_to_start_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("c.sock");
    for command in [
        &["status"][..],
        &["conns"],
        &["monitor"],
        &["endpoint", "show"],
    ] {
        let out = braid(&[command, &["--socket", socket.to_str().unwrap()]].concat());
        assert_eq!(out.status.code(), Some(1));
        assert_eq!(
            text(&out.stderr),
            format!(
                "braid: braidd is not running on {}; start it with: braidd --config FILE (or name its socket with --socket)",
                socket.display()
            )
        );
    }
}

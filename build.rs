//! Puts what `lb --version` says of the build into the program: commit, target and features.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LB_COMMIT");
    println!("cargo:rustc-env=LB_BUILD_COMMIT={}", commit());
    println!("cargo:rustc-env=LB_BUILD_TARGET={}", target());
    println!("cargo:rustc-env=LB_BUILD_FEATURES={}", features());
}

/// `LB_COMMIT`, for sources without their repository, else git's. A debug build has none: it would be compiled anew
/// after each commit.
fn commit() -> String {
    if let Ok(commit) = env::var("LB_COMMIT") {
        return commit;
    }
    if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return "not recorded in a debug build".to_owned();
    }
    // HEAD's log grows with each commit and checkout. Cargo would build anew each time for a file that is not there.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
    git(&["describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]).unwrap_or_else(|| "unknown".to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn target() -> String {
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|all| all.split(',').any(|one| one == "crt-static"));
    let target = env::var("TARGET").unwrap_or_default();
    if is_static { format!("{target}, static") } else { target }
}

/// Those of Cargo.toml that are on, of all that there are.
fn features() -> String {
    let all = ["mimalloc"];
    let is_on = |feature: &&str| env::var_os(format!("CARGO_FEATURE_{}", feature.to_uppercase())).is_some();
    let shown = all.iter().map(|feature| format!("{}{feature}", if is_on(feature) { "+" } else { "-" }));
    shown.collect::<Vec<_>>().join(" ")
}

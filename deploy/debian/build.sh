#!/usr/bin/env bash
# Builds the Debian package of a static program, which any Debian can install: target/debian/lb_*.deb.
#
#   deploy/debian/build.sh [TARGET]      TARGET: such as aarch64-unknown-linux-gnu; default: this machine's
#
# Needs cargo-deb, and for another processor Rust's target and its C compiler (docs/guide/installing.md). PROGRAM names a
# program that is built already, and RUN one that can run it here (qemu-aarch64-static).
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
folder=${CARGO_TARGET_DIR:-target}
program=${PROGRAM:-$folder/$target/release/lb}
shipped=target/package

if [[ -z ${PROGRAM:-} ]]; then
  RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin lb --target "$target"
fi
rm -rf "$shipped"
mkdir -p "$shipped/man"
cp "$program" "$shipped/lb"
run() { ${RUN:-} "$shipped/lb" "$@"; }
for shell in bash zsh fish; do run completions "$shell" >"$shipped/lb.$shell"; done
run man --output "$shipped/man"
run schema >"$shipped/lb.schema.json"
cargo deb --no-build --no-strip --target "$target"

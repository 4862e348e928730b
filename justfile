# Tasks of every day; `just` alone lists them. Each is one command that also works without just.

_list:
    @just --list --unsorted

# See it work: two small servers and the balancer in front of them
demo *ARGS:
    cargo run --release -- demo {{ ARGS }}

# Unit tests, and tests through the real binary
test *ARGS:
    cargo test --locked {{ ARGS }}

# Churn, resets, slow readers and bulk for so long; nothing may be left of it
soak SECONDS="600":
    LB_SOAK_SECONDS={{ SECONDS }} cargo test --locked --test it soak::

# Format and lints, as .ci/run has them
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# Licences, sources and known advisories of the dependencies (needs cargo-deny)
deny:
    cargo deny --locked check

# Parts by themselves: picks, table rebuilds, access log lines, relay steps (Criterion)
bench *ARGS:
    cargo bench --locked {{ ARGS }}

# System calls of one connection's life: lb, nginx, HAProxy (docs/syscalls.md)
syscalls:
    cargo build --release
    benches/syscalls.sh

# Whole processes: lb beside nginx, HAProxy, Envoy and others, on this machine
peers *ARGS:
    python3 benches/peers/run.py {{ ARGS }}

# The container image (needs docker, or ENGINE=podman)
image:
    ${ENGINE:-docker} build -t lb .

# Fuzz one parser: http_head or http_chunks (needs nightly and cargo-fuzz)
fuzz TARGET SECONDS='600':
    cargo +nightly fuzz run --fuzz-dir fuzz {{ TARGET }} -- -max_total_time={{ SECONDS }}

# Everything that must hold before a change goes in; as root it installs the packages that the tests want
ci:
    .ci/run

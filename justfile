# Tasks of every day; `just` alone lists them. Each is one command that also works without just.

_list:
    @just --list --unsorted

# See it work: two small servers and the balancer in front of them
demo *ARGS:
    cargo run --release -- demo {{ ARGS }}

# Unit tests, and tests through the real binary
test *ARGS:
    cargo test --locked {{ ARGS }}

# Churn, resets, slow readers, bulk, reloads and outages for so long; nothing may be lost, or left of it (docs/internals/soak.md)
soak SECONDS="1800":
    LB_SOAK_SECONDS={{ SECONDS }} cargo test --locked --test it a_soak -- --nocapture

# Format and lints, as .ci/run has them
lint:
    cargo fmt --all --check
    cargo clippy --locked --all-targets -- -D warnings

# Licences, sources and known advisories of the dependencies (needs cargo-deny)
deny:
    cargo deny --locked check

# Parts by themselves: picks, table rebuilds, access log lines, relay steps (Criterion)
bench *ARGS:
    cargo bench --locked {{ ARGS }}

# System calls of one connection's life: lb, nginx, HAProxy (docs/explanation/syscalls.md)
syscalls:
    cargo build --release
    benches/syscalls.sh

# What attackers cost: memory a connection of each kind, CPU time; with --peers lb,nginx,haproxy beside others (docs/internals/faults.md)
attackers *ARGS:
    cargo build --release
    python3 benches/attackers/run.py {{ ARGS }}

# Whole processes: lb beside nginx, HAProxy, Envoy and others, on this machine
peers *ARGS:
    python3 benches/peers/run.py {{ ARGS }}

# Files of deploy/: alerts, dashboard, compose, Kubernetes, systemd
deploy-check:
    cargo build
    deploy/check.sh target/debug/lb

# The admin API against its own description (schemathesis from PyPI)
openapi:
    cargo build
    tests/openapi.sh target/debug/lb

# The Debian package: target/debian/lb_*.deb (needs cargo-deb)
package *ARGS:
    deploy/debian/build.sh {{ ARGS }}

# The book as a site (needs mdbook)
book:
    mdbook serve docs

# The container image (needs docker, or ENGINE=podman)
image:
    ${ENGINE:-docker} build -t lb .

# Fuzz a parser (http_head, http_chunks, proxy_header, client_hello, tls_session, names, config, import) for some seconds; what it finds new stays out of the seeds (needs cargo-fuzz, nightly)
fuzz TARGET SECONDS="600":
    mkdir -p fuzz/target/found/{{ TARGET }}
    cargo +nightly fuzz run {{ if TARGET =~ "config|import" { "--features config" } else if TARGET =~ "tls" { "--features tls" } else { "" } }} {{ TARGET }} fuzz/target/found/{{ TARGET }} fuzz/corpus/{{ TARGET }} -- -max_total_time={{ SECONDS }} -max_len=2048

# Tests with the address sanitizer, without the allocator that it can't see into (needs nightly). Those of memory and CPU time fail: they measure the sanitizer
asan *ARGS:
    RUSTFLAGS="-Zsanitizer=address" cargo +nightly test --target x86_64-unknown-linux-gnu --target-dir target/asan --no-default-features {{ ARGS }}

# Everything that must hold before a change goes in; as root it installs the packages that the tests want
ci:
    .ci/run

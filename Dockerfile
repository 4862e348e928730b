# A static `lb` on an empty root: no shell, no package, no user database.
#
#   docker build -t lb .
#   docker run --rm --network host lb --backend 127.0.0.1:3001 --backend 127.0.0.1:3002
#
# BUILD_IMAGE must bring cargo and a C linker (gcc, libc6-dev); any Debian-like image with both will do.
ARG BUILD_IMAGE=rust:1.95-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# The dependencies are a layer of their own, built again only when these files change: of the sources, benches and tests
# that the manifest names there are only empty ones yet.
COPY Cargo.toml Cargo.lock ./
COPY tests/attribute tests/attribute
RUN mkdir -p src benches tests/it && touch src/lib.rs tests/it/main.rs && echo 'fn main() {}' >src/main.rs \
 && for bench in $(sed -n '/^\[\[bench]]/{n;s/name = "\(.*\)"/\1/p}' Cargo.toml); do touch "benches/$bench.rs"; done \
 && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --lib --target "$(rustc -vV | sed -n 's/^host: //p')" \
 && rm -r src benches tests
COPY . .
# The commit that `lb --version` shows: the repository itself is not copied.
ARG REVISION=unknown
# With --target, the flag holds for the program alone and not for build scripts and macros, which can't be static.
# Static glibc is safe here: names are resolved by a library of its own, not by the parts of glibc that are loaded shared.
# The last command fails the build if the program needs a loader, which the final image doesn't have.
RUN export LB_COMMIT="$REVISION"; touch src/lib.rs src/main.rs; target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin lb --target "$target" \
 && mkdir -p /image/etc/lb /run/lb \
 && cp "target/$target/release/lb" /image/lb \
 && cp lb.yaml /image/etc/lb/lb.yaml \
 && chmod 0755 /image /image/etc /image/etc/lb /image/lb && chmod 0644 /image/etc/lb/lb.yaml \
 && if ldd /image/lb | grep '=>'; then echo "lb needs the shared parts listed above" >&2; exit 1; fi

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lb" \
      org.opencontainers.image.description="A TCP load balancer for Linux" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /image/ /
# For the admin server's unix socket: `docker exec lb /lb reload` needs no token. A volume, so that it can be written to
# on a read-only root too.
COPY --from=build --chown=65532:65532 --chmod=0700 /run/lb /run/lb
VOLUME /run/lb
ENV LB_ADMIN_SOCKET=/run/lb/admin.sock
# Reachable from outside the container, so that Prometheus can scrape it. It wins over `admin.bind` of the file.
ENV LB_ADMIN=0.0.0.0:9900
# Containers have memory limits: what connections have left is given back to the system at once.
ENV MIMALLOC_PURGE_DELAY=0
EXPOSE 8080 9900
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=2s --retries=3 CMD ["/lb", "status", "--quiet"]
ENTRYPOINT ["/lb"]

# Provost as an image. `docker build .` compiles it; `--target prebuilt` takes a binary that is compiled already, from
# out/image/provost. Both stages end in the same image: what a node needs of Debian, and one binary.
#
# Base images are build arguments, for registries of one's own and for machines without network. Both must be of one
# release of Debian: the binary uses the C library that it was linked with.
ARG BASE_IMAGE=debian:bookworm-slim
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm

# --- what a node needs of Debian, and nothing else: no package manager, no Perl, nothing that runs as another user
FROM ${BASE_IMAGE} AS system
# A base image that has both needs no network here.
RUN if ! command -v openssl >/dev/null || [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then \
      apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates openssl; \
    fi
COPY deploy/image/pick.sh /pick.sh
RUN bash /pick.sh /image

FROM scratch AS runtime
COPY --from=system /image /
# Folders for volumes: an empty volume takes over who owns the folder that it is put on.
RUN set -e; for dir in /var/lib/provost /srv/provost/keys /srv/provost/admin /srv/provost/upstream \
      /srv/provost/join-control /srv/provost/join-data /srv/provost/join-gpu; do \
      mkdir -p "$dir" && chmod 700 "$dir" && chown 10001:10001 "$dir"; done; \
    mkdir -p /tmp && chmod 1777 /tmp
ENV PATH=/opt/provost:/usr/local/bin:/usr/bin LANG=C.UTF-8 HOME=/tmp
USER 10001:10001
WORKDIR /var/lib/provost
# 8420 agents, 8421 administrators, 8422 metrics, 8423 other nodes.
EXPOSE 8420 8421 8422 8423
# Asks what PROVOST_HEALTH_URL names; without it the data plane's /readyz.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["provost", "health"]
ENTRYPOINT ["provost"]
CMD ["--help"]

# --- a binary from elsewhere
FROM runtime AS prebuilt
# The pattern matches no file where there is none: builders that run every stage get past it.
COPY --chown=0:0 LICENSE out/image/provos[t] /opt/provost/

# --- the binary, compiled here: most of an hour on two cores
FROM ${RUST_IMAGE} AS compile
# The image's own toolchain: clippy and rustfmt, which rust-toolchain.toml asks for, are not needed here.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_TARGET_DIR=/build XDG_CACHE_HOME=/cache
WORKDIR /src
COPY scripts/setup.sh scripts/setup.sh
RUN scripts/setup.sh build
COPY . .
RUN scripts/rocksdb.sh
# 150,000 addresses of a program that may lie anywhere take 24 bytes each, or, packed, about a bit: 3.6 MB of an image that is to
# be below 150 again. It takes glibc 2.36 (Debian 12) to start such a program, which both base images have; packages do without.
RUN ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR="$(scripts/rocksdb.sh)" RUSTFLAGS="-C link-arg=-Wl,-z,pack-relative-relocs" \
      cargo build --locked --release --package provost \
    && mkdir /provost && strip -o /provost/provost /build/release/provost && cp LICENSE /provost/ \
    && rm -rf /build

FROM runtime AS node
COPY --from=compile /provost /opt/provost

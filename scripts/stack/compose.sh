# What the scripts around docker-compose.yml share. Sourced, not run.
# shellcheck shell=bash

API=http://127.0.0.1:8080
# The key that docker-compose.yml makes.
KEY=${MEANWHILE_API_KEY:-mw_developmentonly0_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}
KAFKA=127.0.0.1:9092
REGISTRY=http://127.0.0.1:8081/apis/ccompat/v7
JAEGER=http://127.0.0.1:16686
PROMETHEUS=http://127.0.0.1:9090
GRAFANA=http://127.0.0.1:3000
SHOP=http://127.0.0.1:7002
# Every role that docker-compose.yml runs.
ROLES=(ingest relay workers orchestrator notifier)

me=$(basename "$0")

say() { echo "$me: $*"; }
die() {
  echo "$me: $*" >&2
  exit 1
}
need() { # COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 || die "$1 is missing: install it (Debian, Ubuntu: sudo apt-get install $2)"
}

need_compose() {
  need docker docker.io
  docker compose version >/dev/null 2>&1 ||
    die "this docker has no 'compose': install the plugin (Debian 13: docker-compose, Docker's own packages:" \
      "docker-compose-plugin)"
  docker info >/dev/null 2>&1 || die "the docker engine does not answer: is it running, and may you use it?"
}

# Whether this profile of the compose file is on (the variable, else .env).
has_profile() {
  local profiles
  profiles=${COMPOSE_PROFILES:-$(sed -n 's/^COMPOSE_PROFILES=//p' .env)}
  case ",$profiles," in *",$1,"*) return 0 ;; *) return 1 ;; esac
}

# Repeats a command until it succeeds: SECONDS WHAT COMMAND...
eventually() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || die "gave up waiting: $what"
    sleep 0.5
  done
}

# A request to the API, under its key.
ask() { curl -H "authorization: Bearer $KEY" "$@"; }
http_ok() { curl -fsS -m 5 -o /dev/null "$1" 2>/dev/null; }

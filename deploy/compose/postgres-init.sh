#!/bin/bash
# Runs once, when Postgres makes its data folder: the login and the roles as a database administrator would make them
# (deploy/postgres/roles.sql), and a database of its own for the schema registry.
set -euo pipefail
psql=(psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER")
"${psql[@]}" --dbname "$POSTGRES_DB" -v password="$MEANWHILE_PASSWORD" -f /etc/meanwhile/roles.sql
"${psql[@]}" --dbname postgres -v password="$REGISTRY_PASSWORD" <<'SQL'
create role registry login password :'password';
create database registry owner registry;
SQL

//! What a laptop lacks: a broker, a registry, a private Postgres.

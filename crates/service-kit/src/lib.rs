//! What any process needs: configuration, telemetry, health, shutdown.

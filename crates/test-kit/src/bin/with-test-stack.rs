//! Starts one Kafka, registry and Postgres, runs a command with their addresses in its environment, and stops them.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use test_kit::{Kafka, KafkaOptions, Postgres, PostgresOptions, Registry, variable};

/// All tests together leave some 17,000 partitions: with 512 MiB the broker did nothing but collect garbage at the end,
/// and topics that were created were not seen for a minute.
const HEAP_MIB: u32 = 2_048;

#[expect(clippy::print_stderr, reason = "progress for whoever runs the tests")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else { bail!("usage: with-test-stack COMMAND [ARGUMENT...]") };
    let started_at = Instant::now();
    eprintln!("with-test-stack: starting Kafka, the schema registry and Postgres");
    let (kafka, registry, postgres) = tokio::try_join!(
        Kafka::start(KafkaOptions { heap_mib: HEAP_MIB, ..KafkaOptions::default() }),
        Registry::start(),
        Postgres::start(PostgresOptions::default()),
    )?;
    eprintln!("with-test-stack: ready after {:.1} s", started_at.elapsed().as_secs_f64());
    let status = Command::new(&program)
        .args(arguments)
        .env(variable::KAFKA, kafka.brokers())
        .env(variable::REGISTRY, registry.url())
        .env(variable::POSTGRES, postgres.url("postgres"))
        .status()
        .with_context(|| format!("running {}", program.display()))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

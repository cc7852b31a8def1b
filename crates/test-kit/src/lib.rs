//! The tests' helpers: a real Kafka, registry and Postgres, and the whole system around them.
//!
//! `make test` starts one stack for all test binaries (`scripts/tools/with-test-stack`). A test binary that runs alone
//! starts what it needs once. Tests keep apart by topic prefix ([`prefix`]) and database ([`postgres_database`]).
//! Tests that kill things start their own [`Kafka`], [`Registry`] or [`Postgres`].
//!
//! Invariant: nothing outlives the process that started it, not even after `kill -9`.

#![expect(clippy::disallowed_methods, reason = "what tests stand on takes its surroundings from the environment")]

mod certificates;
mod clock;
mod folder;
mod ground;
mod http;
mod kafka;
mod line;
mod metric;
mod port;
mod postgres;
mod process;
mod prometheus;
mod proxy;
mod registry;
mod role;
mod s3;
mod sample;
mod shared;
mod slow_disk;
mod system;
mod tls_front;
mod tokens;
mod tool;
mod topics;
mod wait;

pub use certificates::{Authority, Leaf};
pub use clock::WallClock;
pub use ground::{Ground, TEST_TRACE, noise};
pub use http::{Answer, Receiver, Request, http_client};
pub use kafka::{GuardedKafka, Kafka, KafkaOptions, Listener, Login, bearer_token};
pub use line::{Line, LineState};
pub use metric::{measure, metric};
pub use port::Port;
pub use postgres::{Backup, Postgres, PostgresOptions, PostgresTls, psql};
pub use process::{Launch, Process};
pub use prometheus::Prometheus;
pub use proxy::{ApiKey, END_TXN, HeldRequest, PRODUCE, ProxiedKafka};
pub use registry::Registry;
pub use role::{MeanwhileProcess, Role, binary, meanwhile};
pub use s3::S3;
pub use sample::{sample_event, sample_job, sample_slip};
pub use shared::{kafka, postgres_database, prefix, registry, variable};
pub use slow_disk::SlowDisk;
pub use system::{Server, TestSystem, TestSystemBuilder, submit};
pub use tls_front::TlsFront;
pub use tokens::{Tokens, assert_one_token};
pub use tool::{kcat, repository, run, tool_path};
pub use topics::{read_topic, topic_names};
pub use wait::eventually;

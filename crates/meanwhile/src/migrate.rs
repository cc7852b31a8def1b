//! `meanwhile migrate`: everything that must be there before the roles start. Safe to repeat.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use ingest::config::commands_tenants;
use process::Base;
use service_kit::config::Sources;
use service_kit::telemetry;
use setup::files;
use store::reader::Way;

use crate::cli::{MigrateArgs, OutboxReader};
use crate::roles::target;

/// `meanwhile migrate`
#[expect(clippy::print_stdout, reason = "progress of a command")]
pub(crate) async fn run(sources: &Sources, arguments: &MigrateArgs) -> anyhow::Result<ExitCode> {
    let base = Base::load(sources)?;
    telemetry::init(&base.shared.log)?;
    // A flow that does not lint stops here, before anything is touched.
    let definitions = match &base.shared.flows_dir {
        Some(folder) => files::read_to_apply(Path::new(folder)).with_context(|| format!("MEANWHILE_FLOWS={folder}"))?,
        None => Vec::new(),
    };
    let target = target(&base)?;
    if arguments.offsets_from_log_start {
        let partitions = target.begin_at_log_start().await?;
        println!("kafka     workers begin at the log's start in {partitions} partitions that had no offset");
    }
    let wanted = arguments.outbox_reader.map(|reader| match reader {
        OutboxReader::Logical => Way::Logical,
        OutboxReader::Polling => Way::Polling,
    });
    println!("{}", setup::prepare(&target, wanted).await?);
    let created = target.create_commands(&commands_tenants(sources)?).await?;
    if created > 0 {
        println!("kafka     {created} topics of tenants' commands created");
    }
    print!("{}", target.apply_flows(&definitions).await?);
    Ok(ExitCode::SUCCESS)
}

//! Signals meet the holds that wait for them, in the transaction that takes in the one that comes second.

use events::release;
use flow::id::JobId;
use flow::slip::ReleasedBy;
use store::holds::NewHold;
use store::signals::{NewSignal, insert, take_signalled};
use store::{Tx, outbox};

/// Keeps the signals, and sends on the tokens whose signals are there: those of these holds, and those that these
/// signals are for. Returns their number.
pub(crate) async fn meet(tx: &mut Tx, holds: &[NewHold], signals: &[NewSignal]) -> Result<u64, store::Error> {
    insert(tx, signals).await?;
    let waiting = holds.iter().filter(|hold| hold.signal.is_some()).map(|hold| hold.token.job);
    let mut jobs: Vec<JobId> = waiting.chain(signals.iter().map(|signal| signal.job)).collect();
    jobs.sort_unstable();
    jobs.dedup();
    let taken = take_signalled(tx, &jobs).await?;
    let records: Vec<_> = taken
        .into_iter()
        .map(|signalled| {
            let mut record = signalled.record;
            release::mark(&mut record, ReleasedBy::Signal, signalled.payload);
            record
        })
        .collect();
    outbox::append(tx, &records).await?;
    Ok(u64::try_from(records.len()).unwrap_or(u64::MAX))
}

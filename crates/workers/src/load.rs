//! The load of a queue or a partition, and its limits.

/// Limits of the slips in flight and of one transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Slips in flight per queue, from delivery to commit; beyond it the queue's partitions are paused.
    pub(crate) queue_slips_max: usize,
    /// The same limit in bytes, counting slips and the records that follow from them.
    pub(crate) queue_bytes_max: usize,
    /// Results per transaction.
    pub(crate) batch_results_max: usize,
    /// Bytes to produce per transaction; the result that passes this limit still goes in.
    pub(crate) batch_bytes_max: usize,
}

/// Slips in flight of one queue or one partition.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) slips: usize,
    pub(crate) bytes: usize,
    /// True from the limit until three quarters of it (hysteresis: no pausing and resuming at the edge).
    pub(crate) full: bool,
}

impl Load {
    pub(crate) fn add(&mut self, slips: usize, bytes: usize) {
        self.slips += slips;
        self.bytes += bytes;
    }

    pub(crate) fn remove(&mut self, slips: usize, bytes: usize) {
        self.slips -= slips;
        self.bytes -= bytes;
    }

    pub(crate) fn is_over(&self, limits: &Limits) -> bool {
        self.slips >= limits.queue_slips_max || self.bytes >= limits.queue_bytes_max
    }

    /// Sets `full` by the limits, with hysteresis.
    pub(crate) fn judge(&mut self, limits: &Limits) {
        let roomy = self.slips <= limits.queue_slips_max / 4 * 3 && self.bytes <= limits.queue_bytes_max / 4 * 3;
        self.full = self.is_over(limits) || (self.full && !roomy);
    }
}

//! An offset to be committed for a consumer group.

/// A transaction commits this for one consumed partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    pub topic: String,
    pub partition: i32,
    /// The first offset that is not done.
    pub next_offset: i64,
    /// Kept beside the offset, at most 4,096 bytes of text.
    pub metadata: Option<String>,
}

//! Places in topics: a partition, and a reader's offset in it. Readers of Kafka and keepers of positions share these
//! types (docs/rules.md, rule 3).

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

impl TopicPartition {
    /// Both in one.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// One partition's move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetAdvance {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The stored offset that this move starts from; none: nothing is stored yet.
    pub expected: Option<i64>,
    /// The next offset to read.
    pub next: i64,
}

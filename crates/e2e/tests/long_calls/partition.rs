//! Which partition a key's slips are in.

/// Of a steps topic, as `deploy/kafka/topics.yaml` has it.
const PARTITIONS: u32 = 6;

/// A partition of the queue's topic: all that a test sends through it has one of its keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Partition(pub(crate) u32);

impl Partition {
    /// Keys whose jobs of this flow have their slips here.
    pub(crate) fn keys(self, flow: &'static str) -> impl Iterator<Item = String> {
        (0_u32..).map(|number| format!("k-{number}")).filter(move |key| Self::of(flow, key) == self.0)
    }

    fn of(flow: &str, key: &str) -> u32 {
        (murmur2(format!("default/{flow}/{key}").as_bytes()) & 0x7fff_ffff) % PARTITIONS
    }
}

/// As Kafka's clients have it (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

//! Words of a later version, kept as they stand.

use std::fmt;

/// The longest word.
pub const WORD_BYTES_MAX: usize = 31;

/// A word that this version does not know: of a status, a kind of event, a reason. It is stored and shown as it stands,
/// and nothing here depends on its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word {
    bytes: [u8; WORD_BYTES_MAX],
    length: u8,
}

impl Word {
    /// The word; none where it cannot be one of ours: 1 to 31 characters out of `a-z0-9._-`.
    pub fn new(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if text.is_empty() || !text.bytes().all(plain) {
            return None;
        }
        let mut bytes = [0; WORD_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    /// As it stands.
    pub const fn as_str(&self) -> &str {
        let (word, _) = self.bytes.split_at(self.length as usize);
        match std::str::from_utf8(word) {
            Ok(word) => word,
            Err(_) => "",
        }
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_reads_as_it_stands_and_noise_is_none() {
        for word in ["a", "step.checked", "needs_attention", "missing-step", &"x".repeat(WORD_BYTES_MAX)] {
            assert_eq!(Word::new(word).map(|word| word.as_str().to_owned()).as_deref(), Some(word));
        }
        for noise in ["", "A", "two words", "é", "\0", &"x".repeat(WORD_BYTES_MAX + 1)] {
            assert_eq!(Word::new(noise), None, "{noise:?}");
        }
    }
}

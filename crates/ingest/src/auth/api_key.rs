//! API keys: `mw_<id>_<secret>`. The id is readable, and finds the key; the secret has 256 bits. Only a keyed hash of
//! the whole is stored.

use ring::hmac;
use service_kit::identity::Ids;

/// Keys begin with this, so that people and scanners for leaked secrets know them.
pub const PREFIX: &str = "mw_";
const ID_CHARACTERS: usize = 16;
const SECRET_CHARACTERS: usize = 64;

/// Hashes keys, under the deployment's secret. An empty one is none: the hash is then one that anybody can compute, of
/// something that nobody can guess.
pub struct HashKey(hmac::Key);

impl HashKey {
    pub fn new(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// The hash of a key.
    pub fn hash(&self, key: &str) -> Vec<u8> {
        hmac::sign(&self.0, key.as_bytes()).as_ref().to_vec()
    }

    /// True if it is the hash of this key. Takes as long for any other.
    pub(super) fn fits(&self, key: &str, hash: &[u8]) -> bool {
        hmac::verify(&self.0, key.as_bytes(), hash).is_ok()
    }
}

/// A new key.
pub fn draw(ids: &Ids) -> String {
    let hex = |words: usize| (0..words).map(|_| format!("{:016x}", ids.random_u64())).collect::<String>();
    format!("{PREFIX}{}_{}", hex(ID_CHARACTERS / 16), hex(SECRET_CHARACTERS / 16))
}

/// The id in a text that has the form of a key.
pub fn id_of(key: &str) -> Option<&str> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let fits = |text: &str, characters: usize| {
        text.len() == characters && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (fits(id, ID_CHARACTERS) && fits(secret, SECRET_CHARACTERS)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_drawn_has_the_form_of_one_and_is_drawn_once() {
        let ids = Ids::seeded(1);
        let (one, other) = (draw(&ids), draw(&ids));
        assert_ne!(one, other);
        let id = id_of(&one).unwrap();
        assert!(one.starts_with(&format!("mw_{id}_")) && one.len() == 84, "{one}");
        for wrong in ["", "mw_", "mw_a_b", &one[1..], &one[..83], &format!("{one}0"), &one.to_uppercase()] {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hash_fits_its_key_under_its_secret_and_nothing_else() {
        let key = draw(&Ids::seeded(1));
        let (secret, none) = (HashKey::new("secret"), HashKey::new(""));
        for hashes in [&secret, &none] {
            let hash = hashes.hash(&key);
            assert!(hashes.fits(&key, &hash) && !hashes.fits(&format!("{key}0"), &hash));
            assert!(!hashes.fits(&key, &hash[1..]) && !hashes.fits(&key, b""));
        }
        assert_ne!(secret.hash(&key), none.hash(&key));
    }
}

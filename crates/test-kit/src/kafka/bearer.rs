//! Tokens for OAUTHBEARER, as Kafka takes them without asking an issuer: JWS without a signature.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// A token of this subject that ends so many seconds from now, or has ended.
///
/// # Panics
/// When the clock stands before 1970.
pub fn bearer_token(subject: &str, ends_in_s: i64) -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs() as i64;
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "sub": subject, "iat": now_s - 600, "exp": now_s + ends_in_s });
    format!("{}.{}.", part(json!({ "alg": "none" })), part(claims))
}

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use ring::{hmac, signature};
use serde_json::json;
use tempfile::TempDir;

use super::super::jws::public_keys;
use super::*;

const NOW_S: i64 = 1_800_000_000;
const NOW_MS: i64 = NOW_S * 1_000;

/// Made for these tests with `openssl genrsa 2048`, as DER in base64: ring makes no keys of RSA.
const RSA_KEY: &str = include_str!("rsa-key.txt");

/// An issuer with three keys, `rsa`, `ec` and `ed`, in a file.
struct Issuer {
    rsa: signature::RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    folder: TempDir,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let rsa: String = RSA_KEY.split_whitespace().collect();
        let rsa = base64::engine::general_purpose::STANDARD.decode(rsa).unwrap();
        let issuer = Self {
            rsa: signature::RsaKeyPair::from_der(&rsa).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        };
        issuer.publish(&["rsa", "ec", "ed"]);
        issuer
    }

    fn publish(&self, kids: &[&str]) {
        let rsa = signature::RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let point = self.ec.public_key().as_ref();
        let part = |bytes: &[u8]| BASE64.encode(bytes);
        let keys = [
            json!({ "kty": "RSA", "kid": "rsa", "use": "sig", "n": part(&rsa.n), "e": part(&rsa.e) }),
            json!({
                "kty": "EC", "kid": "ec", "crv": "P-256", "alg": "ES256",
                "x": part(&point[1..33]), "y": part(&point[33..]),
            }),
            json!({ "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": part(self.ed.public_key().as_ref()) }),
        ];
        let keys: Vec<&Value> = keys.iter().filter(|key| kids.contains(&key["kid"].as_str().unwrap())).collect();
        // A key of another kind is passed over.
        let mut set = json!({ "keys": [{ "kty": "oct", "kid": "mac", "k": "c2VjcmV0" }] });
        set["keys"].as_array_mut().unwrap().extend(keys.into_iter().cloned());
        std::fs::write(self.folder.path().join("jwks.json"), set.to_string()).unwrap();
    }

    fn tokens(&self) -> Tokens {
        Tokens::new(&AuthSettings {
            issuer: "https://login.example.com".to_owned(),
            audience: "meanwhile".to_owned(),
            jwks: self.folder.path().join("jwks.json").to_str().unwrap().to_owned(),
            tenant_claim: "org".to_owned(),
            leeway_s: 30,
            ..AuthSettings::default()
        })
        .unwrap()
    }

    fn sign(&self, algorithm: &str, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({ "alg": algorithm, "typ": "JWT" });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let (bytes, random) = (signed.as_bytes(), SystemRandom::new());
        let signature = match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&signature::RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                signature
            }
            "ES256" => self.ec.sign(&random, bytes).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(bytes).as_ref().to_vec(),
            // A forger who knows the public key can do this.
            "HS256" => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.ed.public_key().as_ref());
                hmac::sign(&key, bytes).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://login.example.com", "aud": ["other", "meanwhile"], "sub": "ada", "org": "acme",
        "exp": NOW_S + 60, "scope": "jobs:read openid", "scp": ["jobs:submit"],
    })
}

async fn why(tokens: &Tokens, token: &str) -> Option<(u16, String)> {
    let refused = tokens.credential(token, NOW_MS).await.err();
    refused.map(|problem| (problem.status().as_u16(), problem.detail().to_owned()))
}

#[tokio::test]
async fn a_token_of_each_algorithm_names_its_caller_with_and_without_a_kid() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    for (algorithm, kid) in [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        for kid in [Some(kid), None] {
            let token = issuer.sign(algorithm, kid, &claims());
            let (caller, credential) = tokens.credential(&token, NOW_MS).await.unwrap();
            let Caller { tenant, scopes, subject } = caller;
            assert_eq!((tenant.as_str(), subject.as_str()), ("acme", "token:ada"), "{algorithm}");
            assert_eq!(scopes, [Scope::JobsRead, Scope::JobsSubmit].into_iter().collect(), "{algorithm}");
            assert_eq!(credential.until_ms, Some(NOW_MS + 90_000));
        }
    }
}

#[tokio::test]
async fn no_other_algorithm_is_taken_whatever_the_token_says() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    for (algorithm, kid) in
        [("none", None), ("None", None), ("HS256", Some("ed")), ("HS256", None), ("HS256", Some("mac"))]
    {
        let token = issuer.sign(algorithm, kid, &claims());
        let (status, said) = why(&tokens, &token).await.unwrap();
        assert!(status == 401 && said.contains("RS256, ES256 or EdDSA"), "{algorithm}: {said}");
    }
    // A right signature under the name of another algorithm, or of another key.
    let right = issuer.sign("EdDSA", Some("ed"), &claims());
    let (_, rest) = right.split_once('.').unwrap();
    for header in [r#"{"alg":"ES256","kid":"ed"}"#, r#"{"alg":"EdDSA","kid":"ec"}"#, r#"{"alg":"RS256"}"#] {
        let (status, said) = why(&tokens, &format!("{}.{rest}", BASE64.encode(header))).await.unwrap();
        assert!(status == 401 && said.contains("not signed with a key"), "{header}: {said}");
    }
    let critical = format!("{}.{rest}", BASE64.encode(r#"{"alg":"EdDSA","kid":"ed","crit":["b64"],"b64":false}"#));
    assert!(why(&tokens, &critical).await.unwrap().1.contains("crit"));
    for no_token in
        ["", "a", "a.b", "a.b.c", "..", &right[..right.len() - 2], &format!("{right}.x"), &format!(".{right}")]
    {
        assert_eq!(why(&tokens, no_token).await.unwrap().0, 401, "{no_token}");
    }
}

#[tokio::test]
async fn a_token_is_taken_only_from_its_issuer_for_us_and_in_its_time() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    for (name, value, said) in [
        ("iss", json!("https://evil.example.com"), Some("iss")),
        ("iss", Value::Null, Some("iss")),
        ("aud", json!("other"), Some("aud")),
        ("aud", json!([]), Some("aud")),
        ("aud", json!("meanwhile"), None),
        ("exp", Value::Null, Some("exp")),
        ("exp", json!("1900000000"), Some("exp")),
        ("exp", json!(-1), Some("exp")),
        ("exp", json!(NOW_S - 29), None),
        ("exp", json!(NOW_S - 30), Some("expired")),
        ("nbf", json!(NOW_S + 30), None),
        ("nbf", json!(NOW_S + 31), Some("nbf")),
        ("nbf", json!("soon"), Some("nbf")),
        ("sub", Value::Null, Some("sub")),
        ("org", json!("a/b"), Some("tenant")),
        ("org", Value::Null, Some("tenant")),
    ] {
        let mut claims = claims();
        claims[name] = value.clone();
        let told = why(&tokens, &issuer.sign("EdDSA", Some("ed"), &claims)).await;
        match said {
            None => assert_eq!(told, None, "{name} {value}"),
            Some(said) => {
                let is_said = told.as_ref().is_some_and(|(status, told)| *status == 401 && told.contains(said));
                assert!(is_said, "{name} {value}: {told:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_for_once_and_not_for_every_token_that_names_one() {
    let issuer = Issuer::new();
    issuer.publish(&["ec"]);
    let tokens = issuer.tokens();
    assert_eq!(why(&tokens, &issuer.sign("ES256", Some("ec"), &claims())).await, None);
    issuer.publish(&["ec", "ed"]);
    let token = issuer.sign("EdDSA", Some("ed"), &claims());
    assert!(why(&tokens, &token).await.is_some(), "the keys were read a moment ago");
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    assert_eq!(why(&tokens, &token).await, None);
    // The issuer is away: its keys stay.
    std::fs::remove_file(issuer.folder.path().join("jwks.json")).unwrap();
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    assert!(why(&tokens, &issuer.sign("RS256", Some("rsa"), &claims())).await.is_some());
    assert_eq!(why(&tokens, &issuer.sign("EdDSA", Some("ed"), &claims())).await, None);
    // Before they were ever read, nothing is known of a token.
    assert_eq!(why(&issuer.tokens(), &token).await.unwrap().0, 503);
}

/// A set with three keys, and tokens that each has signed.
fn signed() -> (Vec<u8>, Vec<String>) {
    let issuer = Issuer::new();
    let set = std::fs::read(issuer.folder.path().join("jwks.json")).unwrap();
    let kinds = [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")];
    (set, kinds.map(|(algorithm, kid)| issuer.sign(algorithm, Some(kid), &claims())).into())
}

/// True if a key of the set has signed the token.
fn is_taken(keys: &[u8], token: &str) -> bool {
    let (Ok(keys), Ok(mut token)) = (public_keys(keys), Unverified::parse(token)) else { return false };
    keys.iter().any(|key| token.verified(key).is_some())
}

#[test]
fn no_damage_makes_a_token_that_the_issuer_has_not_signed() {
    let (set, tokens) = signed();
    assert!(tokens.iter().all(|token| is_taken(&set, token)), "undamaged ones are taken");
    let mut runner = proptest::test_runner::TestRunner::new(fuzz::config());
    let tried = runner.run(&fuzz::damaged_text(&tokens), |token| {
        prop_assert!(!is_taken(&set, &token) || tokens.contains(&token), "{}", token);
        Ok(())
    });
    tried.unwrap();
}

#[test]
fn no_damage_to_the_keys_of_an_issuer_takes_more_than_its_tokens() {
    let (set, tokens) = signed();
    let mut runner = proptest::test_runner::TestRunner::new(fuzz::config());
    let tried = runner.run(&fuzz::damaged(&[set]), |set| {
        prop_assert!(public_keys(&set).unwrap_or_default().len() <= 100);
        prop_assert!(!is_taken(&set, "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"));
        for token in &tokens {
            is_taken(&set, token);
        }
        Ok(())
    });
    tried.unwrap();
}

#[test]
fn of_the_issuers_keys_only_that_of_the_same_name_and_algorithm_may_have_signed() {
    let (issuer, (set, _)) = (Issuer::new(), signed());
    let keys = public_keys(&set).unwrap();
    let may = |algorithm: &str, kid: Option<&str>| -> Vec<String> {
        let token = issuer.sign(algorithm, kid, &claims());
        let token = Unverified::parse(&token).unwrap();
        keys.iter().filter(|key| token.may_be_of(key)).filter_map(|key| key.kid.clone()).collect()
    };
    assert_eq!((may("RS256", Some("rsa")), may("ES256", None)), (vec!["rsa".to_owned()], vec!["ec".to_owned()]));
    assert_eq!((may("EdDSA", Some("rsa")), may("EdDSA", Some("another"))), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_token_has_to_have_an_end_and_is_not_taken_after_it_because_it_was_right_before() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    let (status, said) = why(&tokens, &issuer.sign("EdDSA", Some("ed"), &endless)).await.unwrap();
    assert!(status == 401 && said.contains("exp"), "{said}");
    let token = issuer.sign("EdDSA", Some("ed"), &claims());
    assert_eq!(why(&tokens, &token).await, None);
    let later = tokens.credential(&token, NOW_MS + 90_000).await.err().unwrap();
    assert!(later.detail().contains("expired"), "{}", later.detail());
}

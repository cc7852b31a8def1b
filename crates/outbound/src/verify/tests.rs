//! Known answers of each scheme, and what is none.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::signature::Secret;

/// The outcome of a request with these headers, at this second.
fn at(
    scheme: Scheme,
    secrets: &[&str],
    headers: &[(&'static str, &str)],
    body: &str,
    now_s: i64,
) -> Result<(), Refusal> {
    let map: BTreeMap<&str, &str> = headers.iter().copied().collect();
    let header = |name: &str| map.get(name).copied();
    let signed = Signed { header: &header, body: body.as_bytes() };
    let tolerance_ms = scheme.signs_time().then_some(300_000);
    verify(&Terms { scheme, signature: "x-signature", tolerance_ms, secrets }, &signed, now_s * 1_000)
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIME: &str = "1614265330";
const NOW_S: i64 = 1_614_265_330;
const BODY: &str = r#"{"test": 2432232314}"#;
const GIVEN: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

#[test]
fn the_check_value_of_standard_webhooks_is_taken() {
    let with = |secrets: &[&str], signature: &str, time: &str, now_s: i64| {
        let headers = [("webhook-id", ID), ("webhook-timestamp", time), ("webhook-signature", signature)];
        at(Scheme::Standard, secrets, &headers, BODY, now_s)
    };
    let other = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(with(&[SECRET], GIVEN, TIME, NOW_S), Ok(()));
    assert_eq!(with(&["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], GIVEN, TIME, NOW_S), Ok(()), "without its prefix");
    assert_eq!(with(&["whsec_AAAA", SECRET], &format!("{other} {GIVEN}"), TIME, NOW_S), Ok(()), "of several, one");
    assert_eq!(with(&[SECRET], other, TIME, NOW_S), Err(Refusal::Signature));
    assert_eq!(with(&["whsec_AAAA"], GIVEN, TIME, NOW_S), Err(Refusal::Signature));
    assert_eq!(with(&["", "whsec_"], GIVEN, TIME, NOW_S), Err(Refusal::Signature), "an empty secret signs nothing");
    assert_eq!(with(&[SECRET], &GIVEN.replace("v1,", "v2,"), TIME, NOW_S), Err(Refusal::Signature));
    assert_eq!(with(&[SECRET], "g0hM9SsE", TIME, NOW_S), Err(Refusal::NoSignature));
    for (now_s, outcome) in [(300, Ok(())), (301, Err(Refusal::Time)), (-300, Ok(())), (-301, Err(Refusal::Time))] {
        assert_eq!(with(&[SECRET], GIVEN, TIME, NOW_S + now_s), outcome, "{now_s}");
    }
    for time in ["", "-1614265330", "+1614265330", "1614265330.0", "99999999999999999999"] {
        assert_eq!(with(&[SECRET], GIVEN, time, NOW_S), Err(Refusal::Header("webhook-timestamp")), "{time}");
    }
    assert_eq!(with(&[SECRET], GIVEN, "1614265331", NOW_S), Err(Refusal::Signature), "the time is signed, too");
}

#[test]
fn a_public_key_takes_what_our_own_ed25519_signs() {
    let secret = Secret::Ed25519(&[7; 32]);
    let (public, signature) = (secret.public_key().unwrap().unwrap(), secret.sign(ID, NOW_S, b"{}").unwrap());
    let headers = [("webhook-id", ID), ("webhook-timestamp", TIME), ("webhook-signature", signature.as_str())];
    assert_eq!(at(Scheme::Standard, &[&public], &headers, "{}", NOW_S), Ok(()));
    assert_eq!(at(Scheme::Standard, &[&public], &headers, "{ }", NOW_S), Err(Refusal::Signature));
}

#[test]
fn the_value_of_githubs_documentation_is_taken() {
    // docs.github.com, "Validating webhook deliveries", "Testing the webhook payload validation".
    let given = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let with = |secret: &str, given: &str, body: &str| {
        at(Scheme::Github, &[secret], &[("x-hub-signature-256", given)], body, NOW_S)
    };
    assert_eq!(with("It's a Secret to Everybody", given, "Hello, World!"), Ok(()));
    assert_eq!(with("It's a Secret to Everybody", given, "Hello, World"), Err(Refusal::Signature));
    assert_eq!(with("It's a secret", given, "Hello, World!"), Err(Refusal::Signature));
    for given in ["", "757107ea0eb2509f", "sha1=757107ea0eb2509f", &given[..70], &given.replace('7', "x")] {
        assert_eq!(with("It's a Secret to Everybody", given, "Hello, World!"), Err(Refusal::NoSignature), "{given}");
    }
}

fn hex(key: &str, message: &str) -> String {
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), message.as_bytes());
    mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn stripes_header_has_a_time_and_several_signatures() {
    // The form of docs.stripe.com, "Verify webhook signatures manually".
    let mac = hex("whsec_test", "1614265330.{}");
    let with = |given: &str, now_s: i64| {
        at(Scheme::Stripe, &["whsec_old", "whsec_test"], &[("stripe-signature", given)], "{}", now_s)
    };
    let zeros = "0".repeat(64);
    assert_eq!(with(&format!("t=1614265330,v1={zeros},v1={mac},v0={zeros}"), NOW_S), Ok(()));
    assert_eq!(with(&format!("t=1614265330,v0={mac}"), NOW_S), Err(Refusal::NoSignature), "v0 is for tests of theirs");
    assert_eq!(with(&format!("t=1614265331,v1={mac}"), NOW_S), Err(Refusal::Signature));
    assert_eq!(with(&format!("t=1614265330,v1={mac}"), NOW_S + 301), Err(Refusal::Time));
    assert_eq!(with(&format!("v1={mac}"), NOW_S), Err(Refusal::Header("stripe-signature")));
}

#[test]
fn the_value_of_slacks_documentation_is_taken() {
    // docs.slack.dev, "Verifying requests from Slack".
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
                channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
                response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F\
                96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let given = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    let with = |given: &str, time: &str, now_s: i64| {
        let headers = [("x-slack-signature", given), ("x-slack-request-timestamp", time)];
        at(Scheme::Slack, &["8f742231b10e8888abcd99yyyzzz85a5"], &headers, body, now_s)
    };
    assert_eq!(with(given, "1531420618", 1_531_420_618), Ok(()));
    assert_eq!(with(given, "1531420618", 1_531_420_919), Err(Refusal::Time));
    assert_eq!(with(given, "1531420619", 1_531_420_618), Err(Refusal::Signature));
    assert_eq!(with(&given[3..], "1531420618", 1_531_420_618), Err(Refusal::NoSignature));
}

#[test]
fn a_plain_mac_is_taken_in_digits_and_in_base64() {
    let mac = hex("key", "{}");
    let bytes = from_hex(&mac).unwrap();
    let with = |given: &str| at(Scheme::Hmac, &["key"], &[("x-signature", given)], "{}", NOW_S);
    for given in
        [mac.clone(), mac.to_uppercase(), format!("sha256={mac}"), BASE64.encode(&bytes), LENIENT.encode(&bytes)]
    {
        assert_eq!(with(&given), Ok(()), "{given}");
    }
    assert_eq!(with(&"0".repeat(64)), Err(Refusal::Signature));
    assert_eq!(with(&BASE64.encode(&bytes[..31])), Err(Refusal::Signature), "a part of it is nothing");
    assert_eq!(with("?"), Err(Refusal::NoSignature));
    assert_eq!(at(Scheme::Hmac, &["key"], &[], "{}", NOW_S), Err(Refusal::NoSignature));
}

type Headers = Vec<(&'static str, String)>;

/// A request by each scheme that the secret `key` has signed: its headers, and the MAC as it stands in the last.
fn signed_by_each() -> Vec<(Scheme, Headers, String)> {
    let plain = hex("key", BODY);
    let (stripe, slack) = (hex("key", &format!("{TIME}.{BODY}")), hex("key", &format!("v0:{TIME}:{BODY}")));
    let standard = BASE64.encode(from_hex(&hex("key", &format!("{ID}.{TIME}.{BODY}"))).unwrap());
    let time = |name| (name, TIME.to_owned());
    let of_standard = ("webhook-signature", format!("v1a,AAAA v1,{standard}"));
    let of_slack = ("x-slack-signature", format!("v0={slack}"));
    vec![
        (Scheme::Standard, vec![("webhook-id", ID.to_owned()), time("webhook-timestamp"), of_standard], standard),
        (Scheme::Github, vec![("x-hub-signature-256", format!("sha256={plain}"))], plain.clone()),
        (Scheme::Stripe, vec![("stripe-signature", format!("t={TIME},v1={stripe},v0=00"))], stripe),
        (Scheme::Slack, vec![time("x-slack-request-timestamp"), of_slack], slack),
        (Scheme::Hmac, vec![("x-signature", format!("sha256={plain}"))], plain),
    ]
}

#[test]
fn no_damage_makes_a_header_that_no_secret_has_signed() {
    for (scheme, headers, mac) in signed_by_each() {
        // Standard Webhooks writes its keys in Base64.
        let secrets = if scheme == Scheme::Standard { ["whsec_a2V5"] } else { ["key"] };
        let verified = |headers: &[(&'static str, String)]| {
            let headers: Vec<_> = headers.iter().map(|(name, text)| (*name, text.as_str())).collect();
            at(scheme, &secrets, &headers, BODY, NOW_S).is_ok()
        };
        assert!(verified(&headers), "{scheme:?}: undamaged");
        let seeds: Vec<String> = headers.iter().map(|(_, text)| text.clone()).collect();
        let mut runner = proptest::test_runner::TestRunner::new(fuzz::config());
        let tried = runner.run(&(0..headers.len(), fuzz::damaged_text(&seeds)), |(place, text)| {
            let mut given = headers.clone();
            given[place].1.clone_from(&text);
            // Whatever is taken has the right MAC in its last header, and all else as it was signed.
            let is_last = place + 1 == headers.len();
            let is_signed = match is_last {
                true => text.to_ascii_lowercase().contains(&mac.to_ascii_lowercase().replace('=', "")),
                false => text == headers[place].1,
            };
            prop_assert!(is_signed || !verified(&given), "{:?}: {}", scheme, text);
            Ok(())
        });
        tried.unwrap();
    }
}

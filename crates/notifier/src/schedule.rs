//! Decides what an answer means for a delivery and for its endpoint. No clock, no chance.

use flow::decide::{HttpAnswer, retry_after_ms, spread_ms};

/// Bytes of an answer that are kept for a person.
const ANSWER_BYTES_MAX: usize = 1_024;

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    /// The status of the answer, if one came.
    pub(crate) status: Option<u16>,
    /// A short stable word; none: it was delivered.
    pub(crate) error: Option<&'static str>,
    /// For a person.
    pub(crate) detail: Option<String>,
    /// The first bytes of the answer.
    pub(crate) answer: Vec<u8>,
    /// The pause before the next attempt; none: there is none.
    pub(crate) again_in_ms: Option<u64>,
    /// The receiver asks for fewer deliveries.
    pub(crate) is_slow: bool,
    /// The time for which it asks for none.
    pub(crate) pause_ms: u64,
    /// It wants no deliveries any more.
    pub(crate) is_gone: bool,
}

/// The rules of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// The pauses after the first and further failures.
    pub(crate) pauses_s: Vec<u64>,
    /// The longest pause that a receiver may ask for.
    pub(crate) retry_after_max_s: u64,
}

impl Schedule {
    /// The verdict on this delivery, which had failed so often before.
    pub(crate) fn judge(&self, answer: HttpAnswer, (id, failures): (&str, i32), now_ms: i64) -> Verdict {
        let mut verdict = read(answer, now_ms);
        verdict.answer.truncate(ANSWER_BYTES_MAX);
        if verdict.error.is_none() {
            return Verdict { is_slow: false, pause_ms: 0, ..verdict };
        }
        verdict.pause_ms = verdict.pause_ms.min(self.retry_after_max_s.saturating_mul(1_000));
        let pause_s = usize::try_from(failures).ok().and_then(|failures| self.pauses_s.get(failures));
        verdict.again_in_ms = pause_s.map(|seconds| {
            let pause_ms = seconds.saturating_mul(1_000);
            // From a tenth less to a tenth more, the same for the same attempt.
            let spread_ms = spread_ms(pause_ms / 5, &format!("{id}#{failures}"));
            (pause_ms - pause_ms / 10 + spread_ms).max(verdict.pause_ms)
        });
        verdict
    }
}

fn read(answer: HttpAnswer, now_ms: i64) -> Verdict {
    let failed = |error, detail: String| Verdict { error: Some(error), detail: Some(detail), ..Verdict::default() };
    match answer {
        HttpAnswer::Response { status, retry_after, body, .. } => {
            let pause_ms = retry_after_ms(retry_after.as_deref(), now_ms);
            Verdict { answer: body, pause_ms: pause_ms.unwrap_or_default(), ..answered(status) }
        }
        // Nobody needs more of it than its status.
        HttpAnswer::TooLarge { status, .. }
        | HttpAnswer::Undecodable { status, .. }
        | HttpAnswer::Kept { status, .. } => answered(status),
        HttpAnswer::TimedOut => failed("timed-out", "no answer within the receiver's time".to_owned()),
        HttpAnswer::ConnectFailed(cause) => failed("connection-failed", format!("no connection: {cause}")),
        HttpAnswer::ConnectionLost(cause) => failed("connection-lost", format!("the connection broke: {cause}")),
        HttpAnswer::Unsendable(cause) | HttpAnswer::StoreFailed { cause, .. } | HttpAnswer::NoToken { cause, .. } => {
            failed("refused", format!("it is not sent: {cause}"))
        }
        HttpAnswer::Aborted => failed("aborted", "the attempt was broken off".to_owned()),
    }
}

fn answered(status: u16) -> Verdict {
    let (error, detail) = match status {
        200..300 => (None, None),
        300..400 => (Some("redirect"), Some("a redirect is never followed: register the other URL".to_owned())),
        410 => (Some("gone"), Some("the receiver wants no webhooks any more".to_owned())),
        _ => (Some("status"), Some(format!("the receiver answered with {status}"))),
    };
    let is_slow = matches!(status, 429 | 502 | 504);
    Verdict { status: Some(status), error, detail, is_slow, is_gone: status == 410, ..Verdict::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        Schedule { pauses_s: vec![10, 100], retry_after_max_s: 1_000 }
    }

    fn judge(status: u16, retry_after: Option<&str>, failures: i32) -> Verdict {
        let retry_after = retry_after.map(str::to_owned);
        let body = vec![b'x'; 5_000];
        let answer = HttpAnswer::Response { status, retry_after, content_type: None, headers: vec![], body };
        schedule().judge(answer, ("msg_1", failures), 0)
    }

    #[test]
    fn each_status_has_its_meaning() {
        for status in [200, 204, 299] {
            let verdict = judge(status, Some("60"), 0);
            assert_eq!((verdict.error, verdict.again_in_ms, verdict.pause_ms), (None, None, 0), "{status}");
        }
        for (status, error) in [(301, "redirect"), (308, "redirect"), (400, "status"), (410, "gone"), (500, "status")] {
            assert_eq!(judge(status, None, 0).error, Some(error), "{status}");
        }
        for (status, slow) in [(429, true), (502, true), (504, true), (503, false), (500, false), (410, false)] {
            assert_eq!(judge(status, None, 0).is_slow, slow, "{status}");
        }
        assert!(judge(410, None, 0).is_gone && !judge(404, None, 0).is_gone);
        assert_eq!(judge(200, None, 0).answer.len(), ANSWER_BYTES_MAX);
        let large =
            schedule().judge(HttpAnswer::TooLarge { status: 201, limit_bytes: 1, has_store: false }, ("msg_1", 0), 0);
        assert_eq!((large.status, large.error), (Some(201), None), "a long answer is an answer");
        assert_eq!(schedule().judge(HttpAnswer::TimedOut, ("msg_1", 0), 0).error, Some("timed-out"));
    }

    #[test]
    fn pauses_follow_the_schedule_with_a_spread_of_their_own_and_end() {
        let pause_ms = |failures| judge(500, None, failures).again_in_ms;
        assert!((9_000..=11_000).contains(&pause_ms(0).unwrap()), "{:?}", pause_ms(0));
        assert!((90_000..=110_000).contains(&pause_ms(1).unwrap()), "{:?}", pause_ms(1));
        assert_eq!((pause_ms(0), pause_ms(2)), (pause_ms(0), None));
    }

    #[test]
    fn a_receiver_that_names_its_pause_is_heeded_up_to_a_bound() {
        assert_eq!(judge(503, Some("60"), 0).again_in_ms, Some(60_000));
        assert_eq!((judge(503, Some("60"), 0).pause_ms, judge(503, Some("9999"), 0).pause_ms), (60_000, 1_000_000));
        assert!(judge(503, Some("1"), 0).again_in_ms.unwrap() >= 9_000);
        assert_eq!(judge(429, Some("60"), 2).again_in_ms, None, "the schedule is over");
    }
}

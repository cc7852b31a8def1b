//! More of a service's answer than the output: its status and headers, where the flow reads them; and the answer
//! itself, where it is the job's.

use serde_json::Value;

use crate::answer::{Answer, Body, StepAnswer};
use crate::body::encode;
use crate::definition::key::ANSWER_HEADERS_KEPT;
use crate::definition::limit::HEADER_BYTES_MAX;
use crate::definition::{Definition, seen_as};
use crate::slip::{Phase, Slip};

const CONTENT_TYPE: &str = "content-type";
/// The status of a part, which nobody who waits for a job has asked for (RFC 9110 section 15.3.7).
const PARTIAL_CONTENT: u16 = 206;

/// The answer that a success came with, as far as the flow makes use of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub(super) status: u16,
    /// Those that the step keeps, by the names that expressions have for them.
    pub(super) kept: Vec<(String, String)>,
    /// Those with which a flow that answers as its step does answers, names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// The body, where it is the flow's answer and does not follow from the output.
    pub(super) body: Option<Vec<u8>>,
}

/// An answer's status, its headers by their names on the wire, and its body.
pub(super) type Heard<'a> = (u16, &'a [(String, String)], Option<&'a [u8]>);

/// None where the flow has no use for it. `headers`: all of the answer, by their names on the wire. Without a body it
/// follows from the output, which is a stored document.
pub(super) fn of(
    definition: &Definition,
    slip: &Slip,
    (status, headers, body): Heard<'_>,
    output: &Value,
) -> Option<Box<Reply>> {
    let step = definition.step(&slip.step).filter(|_| slip.phase == Phase::Forward)?;
    let http = step.http()?;
    let is_answer = definition.answers_as_its_step();
    if !is_answer && !step.answer_is_read {
        return None;
    }
    let value = |name: &str| joined(headers, name);
    let kept = http.keep_headers.iter().filter_map(|name| Some((seen_as(name), value(name)?)));
    let names = ANSWER_HEADERS_KEPT.iter().filter(|_| is_answer);
    let headers: Vec<_> = names.filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect();
    let content_type = headers.iter().find(|(name, _)| name == CONTENT_TYPE).map(|(_, value)| value.as_str());
    let follows = |body: &[u8]| encode(content_type, output).is_ok_and(|written| written == body);
    let body = body.filter(|body| is_answer && !follows(body)).map(<[u8]>::to_vec);
    Some(Box::new(Reply { status, kept: kept.collect(), headers, body }))
}

impl Reply {
    /// What expressions read of it.
    pub(super) fn step_answer(&self, slip: &Slip) -> StepAnswer {
        StepAnswer { step: slip.step.clone(), visit: slip.visit, status: self.status, headers: self.kept.clone() }
    }

    /// The job's answer.
    pub(super) fn into_answer(self) -> Answer {
        let body = self.body.map_or(Body::OfResult, Body::Bytes);
        let status = if self.status == PARTIAL_CONTENT { 200 } else { self.status };
        Answer { status, headers: self.headers, body }
    }
}

/// The value of a header, several lines as one (RFC 9110 section 5.3); none for one that is too long to be carried.
fn joined(headers: &[(String, String)], name: &str) -> Option<String> {
    let lines: Vec<&str> = headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.trim()).collect();
    let value = lines.join(", ");
    (!lines.is_empty() && value.len() <= HEADER_BYTES_MAX && !value.chars().any(char::is_control)).then_some(value)
}

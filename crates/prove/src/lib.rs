//! Flows without services: a proof of a flow, and tests of it.
//!
//! Both call the flow's own `start`, `prepare`, `classify` and `advance`, as a worker does; nothing here decides what
//! comes next in a job. [`prove`] walks every combination of outcomes. [`run_cases`] walks the ones that a file names.
//!
//! Invariant: no I/O and no clock.

mod apply;
mod case;
mod case_run;
mod compare;
mod domain;
mod explore;
mod finding;
mod flow_file;
mod happening;
mod hints;
mod probe;
mod proof;
mod sample;
mod scan;
mod state;
mod story;
mod way;
mod world;

pub use case::{Case, CaseFile, read_cases};
pub use case_run::{CaseReport, run_cases};
pub use compare::Difference;
pub use finding::{Accepted, Finding, Kind};
pub use flow_file::FlowFile;
pub use hints::hints;
pub use proof::{Options, Proof, prove};

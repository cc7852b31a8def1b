//! The parts of a stream, whatever its form.

use std::sync::Arc;

use web::problem::Problem;

/// The next thing that a stream sends.
pub(super) enum Item {
    /// An event, as JSON, with the cursor behind it.
    Event {
        cursor: String,
        text: String,
    },
    /// A report of progress, as JSON. It has no cursor: it is never sent again.
    Progress(Arc<str>),
    /// Nothing has happened for a while. The cursor is told where it has moved on without an event.
    Heartbeat {
        cursor: Option<String>,
    },
    End(End),
}

/// The reason for which a stream ends.
pub(super) enum End {
    /// Its job has ended, and all is told.
    Finished,
    /// The client took too long.
    Slow,
    /// The process is shutting down.
    Leaving,
    /// Its connection is needed for others.
    Crowded,
    /// The client's credential has expired or is revoked.
    Unauthorized,
    /// It cannot go on.
    Failed(Problem),
}

impl End {
    /// The word for programs, and for people.
    pub(super) const fn reason(&self) -> (&'static str, &'static str) {
        match self {
            Self::Finished => ("finished", "The job has ended."),
            Self::Slow => ("slow-consumer", "The client did not keep up. Connect again with the last cursor."),
            Self::Leaving => ("leaving", "The instance is shutting down. Connect again with the last cursor."),
            Self::Crowded => ("crowded", "The connection is needed for others. Connect again with the last cursor."),
            Self::Unauthorized => ("unauthorized", "The credential has expired or is revoked."),
            Self::Failed(_) => ("failed", "The stream cannot go on now. Connect again with the last cursor."),
        }
    }
}

//! The terms on which a flow's own address answers.

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answers {
    /// 202 at once, unless the caller prefers to wait.
    #[default]
    Async,
    /// The outcome, as the old service gave it, unless the caller asks for another form.
    Sync,
    /// As `Sync`; a caller that allows it gets 202 at once where the job will probably take long.
    Auto,
}

impl Answers {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Async, Self::Sync, Self::Auto];

    /// The word in flow files and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Sync => "sync",
            Self::Auto => "auto",
        }
    }
}

/// Whether the synchronous form is refused after its sunset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Enforce {
    /// It is answered on.
    #[default]
    Never,
    /// It is refused.
    Always,
    /// It is refused once nobody has used it for some time.
    WhenUnused,
}

impl Enforce {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Never, Self::Always, Self::WhenUnused];

    /// The word in flow files and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Always => "always",
            Self::WhenUnused => "when_unused",
        }
    }
}

/// The end of the synchronous form. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deprecation {
    /// Callers should not use it from then on.
    pub since_ms: i64,
    /// It may be gone from then on.
    pub sunset_ms: Option<i64>,
    /// A page about it.
    pub link: Option<String>,
    /// The address that takes its place.
    pub successor: Option<String>,
    /// Whether it is refused after its sunset.
    pub enforce: Enforce,
}

/// The terms, as far as they are said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The form of an answer.
    pub answer: Option<Answers>,
    /// The longest time that a caller waits for the beginning of a synchronous answer.
    pub hold_ms: Option<u64>,
    /// The longest time that a job may be expected to take where the answer is to be its outcome.
    pub latency_budget_ms: Option<u64>,
    /// The end of the synchronous form.
    pub deprecation: Option<Deprecation>,
}

impl Terms {
    /// These terms, and the others where these say nothing.
    #[must_use]
    pub fn over(&self, others: &Self) -> Self {
        Self {
            answer: self.answer.or(others.answer),
            hold_ms: self.hold_ms.or(others.hold_ms),
            latency_budget_ms: self.latency_budget_ms.or(others.latency_budget_ms),
            deprecation: self.deprecation.clone().or_else(|| others.deprecation.clone()),
        }
    }
}

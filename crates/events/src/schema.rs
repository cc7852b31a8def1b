//! The published Avro schemas (`schemas/`), and the subjects under which they are registered.
//!
//! A published file is never edited: a change is a new file with the next number, whose new fields have defaults
//! (compatibility BACKWARD_TRANSITIVE). Records are written with the latest.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::topic::Topics;

/// The count of the kinds.
pub(crate) const KINDS: usize = 6;

/// The records that are Avro on Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// `meanwhile.steps.<queue>`
    Slip,
    /// `meanwhile.events`
    JobEvent,
    /// `meanwhile.waits`
    Wait,
    /// `meanwhile.cancels`
    Cancel,
    /// `meanwhile.progress`
    Progress,
    /// `meanwhile.audit`
    AuditEntry,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; KINDS] =
        [Self::Slip, Self::JobEvent, Self::Wait, Self::Cancel, Self::Progress, Self::AuditEntry];

    /// The schema's full name.
    pub const fn full_name(self) -> &'static str {
        match self {
            Self::Slip => "meanwhile.Slip",
            Self::JobEvent => "meanwhile.JobEvent",
            Self::Wait => "meanwhile.Wait",
            Self::Cancel => "meanwhile.Cancel",
            Self::Progress => "meanwhile.Progress",
            Self::AuditEntry => "meanwhile.AuditEntry",
        }
    }

    /// The folder under `schemas/`.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Slip => "slip",
            Self::JobEvent => "job-event",
            Self::Wait => "wait",
            Self::Cancel => "cancel",
            Self::Progress => "progress",
            Self::AuditEntry => "audit-entry",
        }
    }

    /// The published schemas, as their files have them, from version 1 on.
    pub const fn published(self) -> &'static [&'static str] {
        match self {
            Self::Slip => &[
                include_str!("../../../schemas/slip/1.avsc"),
                include_str!("../../../schemas/slip/2.avsc"),
                include_str!("../../../schemas/slip/3.avsc"),
                include_str!("../../../schemas/slip/4.avsc"),
            ],
            Self::JobEvent => &[
                include_str!("../../../schemas/job-event/1.avsc"),
                include_str!("../../../schemas/job-event/2.avsc"),
                include_str!("../../../schemas/job-event/3.avsc"),
            ],
            Self::Wait => &[
                include_str!("../../../schemas/wait/1.avsc"),
                include_str!("../../../schemas/wait/2.avsc"),
                include_str!("../../../schemas/wait/3.avsc"),
                include_str!("../../../schemas/wait/4.avsc"),
                include_str!("../../../schemas/wait/5.avsc"),
            ],
            Self::Cancel => {
                &[include_str!("../../../schemas/cancel/1.avsc"), include_str!("../../../schemas/cancel/2.avsc")]
            }
            Self::Progress => &[include_str!("../../../schemas/progress/1.avsc")],
            Self::AuditEntry => &[include_str!("../../../schemas/audit-entry/1.avsc")],
        }
    }

    /// The latest of them.
    pub const fn latest(self) -> &'static str {
        let published = self.published();
        published[published.len() - 1]
    }

    /// The path of a version's file in the repository, and below the address of `asyncapi.yaml`: `schemas/slip/1.avsc`.
    pub fn path(self, version: u32) -> String {
        format!("schemas/{}/{version}.avsc", self.folder())
    }

    /// The path of the latest one.
    pub fn latest_path(self) -> String {
        self.path(self.latest_version())
    }

    /// Its number: the file's name.
    pub const fn latest_version(self) -> u32 {
        self.published().len() as u32
    }

    /// The kind that a topic carries; none for the JSON topics, dead letters and strangers.
    pub fn of_topic(topics: &Topics, topic: &str) -> Option<Self> {
        if topics.queue_of(topic).is_some() {
            return Some(Self::Slip);
        }
        let flat = [
            (topics.events(), Self::JobEvent),
            (topics.waits(), Self::Wait),
            (topics.cancels(), Self::Cancel),
            (topics.progress(), Self::Progress),
            (topics.audit(), Self::AuditEntry),
        ];
        flat.into_iter().find(|(name, _)| name == topic).map(|(_, kind)| kind)
    }

    pub(crate) fn parsed(self) -> &'static Schema {
        static PARSED: LazyLock<[Schema; KINDS]> = LazyLock::new(|| {
            RecordKind::ALL.map(|kind| Schema::parse_str(kind.latest()).expect("published schemas parse: tested"))
        });
        &PARSED[self as usize]
    }

    pub(crate) fn writer(self) -> &'static GenericDatumWriter<'static> {
        static WRITERS: LazyLock<[GenericDatumWriter<'static>; KINDS]> = LazyLock::new(|| {
            RecordKind::ALL.map(|kind| {
                GenericDatumWriter::builder(kind.parsed())
                    .build()
                    .expect("published schemas hold no references: tested")
            })
        });
        &WRITERS[self as usize]
    }
}

/// One schema to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `<topic>-value`
    pub name: String,
    /// The topic.
    pub topic: String,
    /// The records of the topic.
    pub kind: RecordKind,
    /// The latest published schema.
    pub avsc: &'static str,
}

/// The subjects to register for these topics and queues. One kind may stand under several subjects (each queue has its
/// own); readers go by the id in the record, so any of the ids that the registry gives to them serves the writer.
pub fn subjects<'a>(topics: &Topics, queues: impl IntoIterator<Item = &'a str>) -> Vec<Subject> {
    let flat = [
        (topics.events(), RecordKind::JobEvent),
        (topics.waits(), RecordKind::Wait),
        (topics.cancels(), RecordKind::Cancel),
        (topics.progress(), RecordKind::Progress),
        (topics.audit(), RecordKind::AuditEntry),
    ];
    let steps = queues.into_iter().map(|queue| (topics.steps(queue), RecordKind::Slip));
    let subject = |(topic, kind): (String, RecordKind)| Subject {
        name: format!("{topic}-value"),
        topic,
        kind,
        avsc: kind.latest(),
    };
    steps.chain(flat).map(subject).collect()
}

/// The registry's id of the latest schema of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterIds {
    /// The id of `Slip`.
    pub slip: u32,
    /// The id of `JobEvent`.
    pub job_event: u32,
    /// The id of `Wait`.
    pub wait: u32,
    /// The id of `Cancel`.
    pub cancel: u32,
    /// The id of `Progress`.
    pub progress: u32,
    /// The id of `AuditEntry`.
    pub audit_entry: u32,
}

impl WriterIds {
    /// The id of one kind.
    pub const fn of(&self, kind: RecordKind) -> u32 {
        match kind {
            RecordKind::Slip => self.slip,
            RecordKind::JobEvent => self.job_event,
            RecordKind::Wait => self.wait,
            RecordKind::Cancel => self.cancel,
            RecordKind::Progress => self.progress,
            RecordKind::AuditEntry => self.audit_entry,
        }
    }

    /// Asks for the id of each kind, in the order of [`RecordKind::ALL`].
    pub fn try_from_fn<E>(mut id_of: impl FnMut(RecordKind) -> Result<u32, E>) -> Result<Self, E> {
        Ok(Self {
            slip: id_of(RecordKind::Slip)?,
            job_event: id_of(RecordKind::JobEvent)?,
            wait: id_of(RecordKind::Wait)?,
            cancel: id_of(RecordKind::Cancel)?,
            progress: id_of(RecordKind::Progress)?,
            audit_entry: id_of(RecordKind::AuditEntry)?,
        })
    }
}

//! Removing what no job needs any more: documents of jobs that are gone, and those that no record ever referred to, as
//! a process was killed between the one and the other.

use std::collections::HashSet;

use events::time::DAY_MS;
use flow::id::JobId;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore as _;
use object_store::path::Path;

use crate::{Documents, Error, key};

/// Documents looked at together: as many as one request lists and deletes.
const PAGE_DOCUMENTS: usize = 1_000;

/// The old documents, page by page.
pub struct Old {
    documents: Documents,
    pages: BoxStream<'static, object_store::Result<Vec<Path>>>,
}

/// Some of them.
pub struct Page(Vec<(JobId, Path)>);

impl Documents {
    /// The documents of days before yesterday. Younger ones are left alone: the job of an upload is accepted after it.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn old(&self, now_ms: i64) -> Result<Old, Error> {
        let before = key::day(now_ms - DAY_MS);
        let days = self.seen("list", self.store.list_with_delimiter(Some(&self.prefix)).await)?.common_prefixes;
        // Days sort as texts do. What is no day of ours has no job in it.
        let old = days.into_iter().filter(|day| day.filename().is_some_and(|day| day < before.as_str()));
        let listed: Vec<_> = old.map(|day| self.store.list(Some(&day))).collect();
        let places = stream::iter(listed).flatten().map_ok(|found| found.location);
        let pages = places.try_chunks(PAGE_DOCUMENTS).map_err(|error| error.1).boxed();
        Ok(Old { documents: self.clone(), pages })
    }

    /// Removes the documents of a page but those of these jobs. Returns their count.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn remove_but_for(&self, page: Page, needed: &HashSet<JobId>) -> Result<u64, Error> {
        let gone = page.0.into_iter().filter(|(job, _)| !needed.contains(job)).map(|(_, place)| Ok(place));
        let mut removing = self.store.delete_stream(stream::iter(gone.collect::<Vec<_>>()).boxed());
        let mut removed = 0;
        while let Some(outcome) = removing.next().await {
            match outcome {
                // Another process was faster.
                Err(object_store::Error::NotFound { .. }) => {}
                outcome => {
                    self.seen("delete", outcome)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

impl Old {
    /// The next page; none at the end.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn page(&mut self) -> Result<Option<Page>, Error> {
        let Some(page) = self.pages.next().await else { return Ok(None) };
        let places = self.documents.seen("list", page)?;
        let of_job = |place| Some((key::job_of(&self.documents.prefix, &place)?, place));
        Ok(Some(Page(places.into_iter().filter_map(of_job).collect())))
    }
}

impl Page {
    /// The jobs that its documents belong to, each once.
    pub fn jobs(&self) -> Vec<JobId> {
        let jobs: HashSet<JobId> = self.0.iter().map(|(job, _)| *job).collect();
        jobs.into_iter().collect()
    }
}

use std::collections::HashSet;

use bytes::Bytes;
use flow::document::{StoredDocument, sha256};
use flow::id::JobId;
use futures_util::TryStreamExt as _;
use service_kit::identity::{Clock, Ids};

use super::*;

const DAY_MS: i64 = 86_400_000;
const NOW_MS: i64 = 1_700_000_000_000;

fn open(folder: &std::path::Path) -> Documents {
    let url = format!("file://{}", folder.display());
    let settings =
        DocumentSettings { url, inline_bytes_max: 10, bytes_max: 20_000_000, transfers_max: 2, options: vec![] };
    Documents::open(&settings, Readiness::new(Clock::manual(0), "workers")).unwrap().unwrap()
}

fn job(at_ms: i64) -> JobId {
    JobId::new(Ids::seeded(at_ms.unsigned_abs()).uuid_v7(at_ms))
}

const fn owner(job: JobId) -> Owner<'static> {
    Owner { tenant: "a/../b", job }
}

async fn write(documents: &Documents, job: JobId, name: &str, chunks: &[Bytes]) -> Result<StoredDocument, Error> {
    let mut writing = documents.write(owner(job), name.to_owned()).await;
    for chunk in chunks {
        writing.add(chunk.clone()).await?;
    }
    writing.end("application/pdf").await
}

async fn read(documents: &Documents, job: JobId, document: &StoredDocument) -> Result<Vec<u8>, Error> {
    let chunks: Vec<Bytes> = documents.read(owner(job), document, None).await?.try_collect().await?;
    Ok(chunks.concat())
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_document_reads_back_as_it_was_written_whole_and_in_part() {
    let folder = tempfile::tempdir().unwrap();
    let (documents, job) = (open(folder.path()), job(NOW_MS));
    // Less than a part, a part to the byte, and two parts and a half.
    for (number, size) in [(0, 100), (1, 5 * 1024 * 1024), (2, 13_000_000)] {
        let bytes: Vec<u8> = (0..size).map(|at: usize| (at * 7 % 251) as u8).collect();
        let chunks: Vec<Bytes> = bytes.chunks(70_001).map(Bytes::copy_from_slice).collect();
        let document = write(&documents, job, &format!("x-{number}"), &chunks).await.unwrap();
        assert_eq!((document.size, &document.sha256), (size as u64, &sha256(&bytes)));
        assert!(read(&documents, job, &document).await.unwrap() == bytes, "{size} bytes");
        let part = documents.read(owner(job), &document, Some(10..size as u64 - 1)).await.unwrap();
        let part: Vec<Bytes> = part.try_collect().await.unwrap();
        assert!(part.concat() == bytes[10..size - 1], "a part of {size} bytes");
    }
    assert_eq!(files(folder.path()).len(), 3);
}

#[tokio::test]
async fn other_bytes_are_never_given_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let (documents, job) = (open(folder.path()), job(NOW_MS));
    let document = write(&documents, job, "x-1", &[Bytes::from_static(b"the bytes as they were")]).await.unwrap();
    let file = files(folder.path()).pop().unwrap();
    std::fs::write(&file, b"other bytes as they are").unwrap();
    assert!(matches!(documents.read(owner(job), &document, None).await, Err(Error::Changed)), "another size");
    std::fs::write(&file, b"the bytes as they wer3").unwrap();
    let chunks = documents.read(owner(job), &document, None).await.unwrap();
    assert!(matches!(chunks.try_collect::<Vec<_>>().await, Err(Error::Changed)), "another digest");
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(read(&documents, job, &document).await, Err(Error::Gone)));
}

#[tokio::test]
async fn the_last_bytes_come_only_once_all_are_known_to_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let (documents, job) = (open(folder.path()), job(NOW_MS));
    let bytes = Bytes::from(vec![7; 3_000_000]);
    let document = write(&documents, job, "x-1", std::slice::from_ref(&bytes)).await.unwrap();
    let mut other = bytes.to_vec();
    other[0] ^= 1;
    std::fs::write(files(folder.path()).pop().unwrap(), other).unwrap();
    let (mut chunks, mut given) = (documents.read(owner(job), &document, None).await.unwrap(), 0);
    let end = loop {
        match chunks.try_next().await {
            Ok(Some(chunk)) => given += chunk.len(),
            end => break end,
        }
    };
    assert!(matches!(end, Err(Error::Changed)) && given < bytes.len(), "{given} bytes, {end:?}");
}

#[tokio::test]
async fn a_document_may_have_as_many_bytes_as_its_limit_and_none_more() {
    let folder = tempfile::tempdir().unwrap();
    let (documents, job) = (open(folder.path()), job(NOW_MS));
    for (name, size, fits) in [("x-1", 1_000, true), ("x-2", 1_001, false)] {
        let mut writing = documents.write(owner(job), name.to_owned()).await.of_at_most(1_000);
        writing.add(Bytes::from(vec![7; 999])).await.unwrap();
        let added = writing.add(Bytes::from(vec![7; size - 999])).await;
        assert_eq!(added.is_ok(), fits, "{size} bytes: {added:?}");
        if fits {
            assert_eq!(writing.end("x/y").await.unwrap().size, 1_000);
        }
    }
    assert_eq!(files(folder.path()).len(), 1);
}

#[tokio::test]
async fn what_is_broken_off_or_too_large_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (documents, job) = (open(folder.path()), job(NOW_MS));
    let part = Bytes::from(vec![7; 6_000_000]);
    let mut writing = documents.write(owner(job), "x-1".to_owned()).await;
    writing.add(part.clone()).await.unwrap();
    assert_eq!(files(folder.path()).len(), 1, "a part is there");
    drop(writing);
    let too_large = write(&documents, job, "x-2", &vec![part; 4]).await;
    assert!(matches!(too_large, Err(Error::TooLarge(20_000_000))), "{too_large:?}");
    for _ in 0..1_000 {
        if files(folder.path()).is_empty() {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{:?}", files(folder.path()));
}

#[tokio::test]
async fn a_document_belongs_to_its_job_alone_and_can_be_given_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let (documents, one, other) = (open(folder.path()), job(NOW_MS), job(NOW_MS + 1));
    let document = write(&documents, one, "x-1", &[Bytes::from_static(b"bytes")]).await.unwrap();
    assert!(matches!(read(&documents, other, &document).await, Err(Error::Gone)));
    let elsewhere = Owner { tenant: "b", job: one };
    assert!(matches!(documents.read(elsewhere, &document, None).await, Err(Error::Gone)), "nor to another tenant");
    documents.copy(&document, owner(one), owner(other)).await.unwrap();
    assert_eq!(read(&documents, other, &document).await.unwrap(), b"bytes");
    documents.remove(&document, owner(one)).await;
    assert!(matches!(read(&documents, one, &document).await, Err(Error::Gone)));
}

#[tokio::test]
async fn documents_go_that_no_job_needs_and_those_of_today_and_yesterday_stay() {
    let folder = tempfile::tempdir().unwrap();
    let documents = open(folder.path());
    let (gone, needed, young) = (job(NOW_MS - 2 * DAY_MS), job(NOW_MS - 3 * DAY_MS + 1), job(NOW_MS));
    for job in [gone, needed, job(NOW_MS - DAY_MS), young] {
        write(&documents, job, "x-1", &[Bytes::from_static(b"bytes")]).await.unwrap();
    }
    std::fs::create_dir_all(folder.path().join("2001-01-01/a/b")).unwrap();
    std::fs::write(folder.path().join("2001-01-01/a/b/of-somebody-else"), b"").unwrap();
    let (mut old, mut jobs, mut removed) = (documents.old(NOW_MS).await.unwrap(), HashSet::new(), 0);
    while let Some(page) = old.page().await.unwrap() {
        jobs.extend(page.jobs());
        removed += documents.remove_but_for(page, &HashSet::from([needed])).await.unwrap();
    }
    assert_eq!((removed, jobs), (1, HashSet::from([gone, needed])));
    assert_eq!(files(folder.path()).len(), 4, "that of yesterday stays as well");
}

#[tokio::test]
async fn readiness_tells_whether_the_store_answers() {
    let folder = tempfile::tempdir().unwrap();
    let documents = open(folder.path());
    assert!(documents.look().await);
    let (clock, option) = (Clock::manual(0), |name: &str, value: &str| (name.to_owned(), value.to_owned()));
    let readiness = Readiness::new(clock, "ingest");
    let settings = DocumentSettings {
        url: "s3://bucket/x".to_owned(),
        transfers_max: 1,
        options: vec![
            option("AWS_ENDPOINT", "http://127.0.0.1:9"),
            option("AWS_ACCESS_KEY_ID", "me"),
            option("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ],
        ..DocumentSettings::default()
    };
    let documents = Documents::open(&settings, readiness.clone()).unwrap().unwrap();
    assert!(!documents.look().await);
    let told = readiness.dependencies().pop().unwrap();
    assert_eq!((told.name.as_str(), told.ok), ("documents", false));
    assert!(!told.message.contains("hunter2") && !told.message.is_empty(), "{}", told.message);
}

#[test]
fn a_signature_in_a_url_is_not_told() {
    assert_eq!(without_queries("GET https://a/b?sig=hunter2 in 5 ms"), "GET https://a/b?… in 5 ms");
}

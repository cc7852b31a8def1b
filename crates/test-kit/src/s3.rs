//! A private S3: S3Proxy, which keeps objects as files in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::folder::DataFolder;
use crate::http::http_client;
use crate::port::Port;
use crate::process::{Launch, Process};
use crate::tool::tool_path;

/// Ready in 2 to 3 s on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(120);
const BUCKET: &str = "bucket";
const KEY_ID: &str = "test-key";
const SECRET: &str = "test-secret";

/// A private S3 with one bucket; it goes, with its objects, when dropped. They outlast `kill9` and `restart`.
#[derive(Debug)]
pub struct S3 {
    process: Process,
    port: Port,
    folder: DataFolder,
}

impl S3 {
    /// Starts it and waits until it serves.
    pub async fn start() -> Result<Self> {
        let (jars, java) = (tool_path("s3proxy")?, tool_path("java")?);
        let (port, folder) = (Port::take()?, DataFolder::new("s3")?);
        let objects = folder.path().join("objects");
        fs::create_dir_all(objects.join(BUCKET)).context("the bucket's folder")?;
        let properties = folder.path().join("s3proxy.conf");
        let lines = [
            format!("s3proxy.endpoint=http://127.0.0.1:{}", port.number()),
            "s3proxy.authorization=aws-v2-or-v4".to_owned(),
            format!("s3proxy.identity={KEY_ID}"),
            format!("s3proxy.credential={SECRET}"),
            "s3proxy.ignore-unknown-headers=true".to_owned(),
            "jclouds.provider=filesystem-nio2".to_owned(),
            "jclouds.identity=unused".to_owned(),
            "jclouds.credential=unused".to_owned(),
            format!("jclouds.filesystem.basedir={}", objects.display()),
        ];
        fs::write(&properties, lines.join("\n")).context("the settings of S3Proxy")?;
        let launch = Launch::new("s3", java)
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar"])
            .arg(jars.join("s3proxy.jar"))
            .arg("--properties")
            .arg(&properties)
            .folder(folder.path());
        let mut s3 = Self { process: Process::start(launch)?, port, folder };
        s3.wait_until_ready().await?;
        Ok(s3)
    }

    /// The variables by which our processes find it.
    pub fn variables(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port.number());
        let pairs = [
            ("MEANWHILE__DOCUMENTS__URL", format!("s3://{BUCKET}/documents")),
            ("AWS_ENDPOINT", endpoint),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// The objects that are there, by their keys. Parts of unfinished ones do not count.
    pub fn objects(&self) -> Vec<String> {
        let root = self.folder.path().join("objects").join(BUCKET);
        let key = |path: PathBuf| Some(path.strip_prefix(&root).ok()?.to_str()?.to_owned());
        files(&root.join("documents")).into_iter().filter_map(key).collect()
    }

    /// The file of an object, as it lies there.
    pub fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join("objects").join(BUCKET).join(key)
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again with the same port and objects, and waits until it serves.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart()?;
        self.wait_until_ready().await
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let (client, url) = (http_client(), format!("http://127.0.0.1:{}/", self.port.number()));
        // Nobody is known without a signature.
        let answers = async || client.get(&url).timeout(Duration::from_secs(2)).send().await.is_ok();
        self.process.wait_until(READY_WITHIN, "S3 answers", answers).await
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

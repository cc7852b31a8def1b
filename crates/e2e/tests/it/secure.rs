//! Servers that let nobody in without TLS, a port that speaks it, and secrets that are told nowhere.

use std::fs;
use std::path::Path;

use flow::event::JobStatus;
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::{
    Authority, MeanwhileProcess, Postgres, PostgresOptions, PostgresTls, Receiver, Role, TlsFront, eventually,
    http_client, psql,
};

use crate::client::order;
use crate::command_line::meanwhile;
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

const POSTGRES: &str = "planted-password-of-postgres";
const REGISTRY: &str = "planted-password-of-the-registry";
const KEYS: &str = "planted-secret-of-keys-0123456789";
const CALLBACKS: &str = "planted-secret-of-callbacks-0123456789";
const OF_FLOWS: &str = "planted-secret-of-flows";
const WRONG: &str = "planted-wrong-password";
/// The secret part of an API key.
const KEY: &str = "abcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcd";
const PLANTED: [&str; 7] = [POSTGRES, REGISTRY, KEYS, CALLBACKS, OF_FLOWS, WRONG, KEY];

/// Text that may tell no secret.
struct Told(Vec<(String, String)>);

impl Told {
    fn add(&mut self, of: &str, text: String) {
        self.0.push((of.to_owned(), text));
    }

    fn holds_none(&self) {
        for (of, text) in &self.0 {
            for secret in PLANTED {
                let line = text.lines().find(|line| line.contains(secret));
                assert!(line.is_none(), "{of} tells {secret}: {}", line.unwrap_or_default());
            }
        }
    }
}

fn text_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn pairs(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn owned<const N: usize>(pairs: [(&str, String); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// The servers' authority, another one, and what processes are told of both.
struct Scene {
    authority: Authority,
    other: Authority,
    shared: Vec<(String, String)>,
    told: Told,
}

impl Scene {
    fn new(registry_url: String, collector_url: String) -> Self {
        let (authority, other) = (Authority::new("ours").unwrap(), Authority::new("others").unwrap());
        let mut scene = Self { authority, other, shared: vec![], told: Told(vec![]) };
        scene.shared = owned([
            ("SCHEMA_REGISTRY_URL", registry_url),
            ("MEANWHILE__SCHEMA_REGISTRY__AUTHORITIES", scene.ca()),
            ("MEANWHILE__SCHEMA_REGISTRY__USER", "ada".to_owned()),
            ("MEANWHILE__SCHEMA_REGISTRY__PASSWORD_FILE", scene.file("registry", REGISTRY)),
            ("MEANWHILE__AUTH__KEYS_SECRET_FILE", scene.file("keys", KEYS)),
            ("MEANWHILE__CALLBACKS__SECRETS_FILE", scene.file("callbacks", CALLBACKS)),
            ("MEANWHILE_SECRET_CARD", OF_FLOWS.to_owned()),
            ("MEANWHILE_LOG", "debug".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector_url),
        ]);
        scene
    }

    fn ca(&self) -> String {
        text_of(&self.authority.certificate())
    }

    /// Makes a file with a secret.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.authority.folder().join(name);
        fs::write(&path, format!("{text}\n")).unwrap();
        text_of(&path)
    }

    /// Of a Postgres that is called so, and lets nobody in without TLS.
    fn postgres(&self, names: &[&str]) -> PostgresOptions {
        let query = format!("sslmode=verify-full&sslrootcert={}&password={POSTGRES}", self.ca());
        let tls = PostgresTls { leaf: self.authority.server_named(names).unwrap(), query };
        PostgresOptions { tls: Some(tls), ..PostgresOptions::default() }
    }

    fn with(&self, changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let changes = changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.shared.iter().cloned().chain(changes).collect()
    }

    async fn run(
        &mut self,
        arguments: &[&str],
        variables: &[(String, String)],
        more: &[(&str, &str)],
    ) -> (Option<i32>, String, String) {
        let (code, output, error) = meanwhile(arguments, &[&pairs(variables), more].concat(), "").await;
        // Whoever makes a key sees it.
        if !arguments.contains(&"create") {
            self.told.add(&arguments.join(" "), format!("{output}\n{error}"));
        }
        (code, output, error)
    }

    /// A process of a role does not become ready, and says so of this dependency.
    async fn unready(&mut self, role: Role, changes: &[(&str, &str)], of: &str, said: &[&str]) {
        let mut process = MeanwhileProcess::start(role, "unready", &self.with(changes)).await.unwrap();
        let url = format!("{}/readyz", process.url());
        let text = eventually(PATIENCE, &format!("{} says {said:?} of {of}", role.as_str()), async || {
            let text = http_client().get(&url).send().await.ok()?.text().await.ok()?;
            let document: Value = serde_json::from_str(&text).ok()?;
            let dependencies = document["dependencies"].as_array()?;
            let message = dependencies.iter().find(|dependency| dependency["name"] == of)?["message"].as_str()?;
            said.iter().any(|said| message.contains(said)).then_some(text.clone())
        })
        .await;
        self.told.add("readiness", text);
        self.told.add("a process that is not ready", fs::read_to_string(process.process().log()).unwrap());
    }

    /// The port with TLS, the first key, and the command line, which trusts our authority where it is told to. A job
    /// that came in by this port.
    async fn submit_by_tls(&mut self) -> JobId {
        let leaf = self.authority.server().unwrap();
        let mut variables = self.shared.clone();
        variables.extend(owned([
            ("MEANWHILE__TLS__CERTIFICATE", text_of(&leaf.certificate)),
            ("MEANWHILE__TLS__KEY", text_of(&leaf.key)),
            ("MEANWHILE__INGEST__LEAVE_AFTER_MS", "0".to_owned()),
        ]));
        let mut ingest = MeanwhileProcess::start(Role::Ingest, "ingest-tls", &variables).await.unwrap();
        let (url, listen) = (ingest.url(), ingest.url().replace("http://", ""));
        eventually(PATIENCE, "a check of health by TLS", async || {
            let listen = [("MEANWHILE_LISTEN", listen.as_str())];
            (self.run(&["healthcheck"], &variables, &listen).await.0 == Some(0)).then_some(())
        })
        .await;
        let key = format!("mw_{}_{KEY}", "c".repeat(16));
        let bootstrap = ["keys", "create", "a", "--bootstrap", "--scope", "jobs:submit", "--key", key.as_str()];
        let (code, _, error) = self.run(&bootstrap, &variables, &[]).await;
        assert_eq!(code, Some(0), "{error}");
        let (key_file, ca, secure) =
            (self.file("key", &key), self.ca(), url.replace("http://127.0.0.1", "https://localhost"));
        let access = [("MEANWHILE_URL", secure.as_str()), ("MEANWHILE_API_KEY_FILE", key_file.as_str())];
        let trusting = [&access[..], &[("MEANWHILE_CA", ca.as_str())]].concat();
        let input = order("c-2", json!({})).to_string();
        let submit = ["submit", "order", "--input", input.as_str()];
        let job = eventually(PATIENCE, "a job is submitted by TLS", async || {
            let (code, output, _) = self.run(&submit, &variables, &trusting).await;
            (code == Some(0)).then(|| output.trim().parse().unwrap())
        })
        .await;
        let (code, _, error) = self.run(&submit, &variables, &access).await;
        assert!(code == Some(1) && error.contains("certificate"), "{error}");
        let (code, _, error) = self.run(&submit, &variables, &[("MEANWHILE_URL", url.as_str())]).await;
        assert!(code == Some(1) && error.contains("This port speaks TLS"), "{error}");
        self.run(&["config"], &variables, &[]).await;
        self.told.add("ingest with TLS", fs::read_to_string(ingest.process().log()).unwrap());
        job
    }

    /// Servers that are not who they should be, and a login that is none.
    async fn refuse(&mut self, url: &str) {
        let (ours, others) = (self.ca(), text_of(&self.other.certificate()));
        let (by_url, by_log) = (["certificate"], ["certificate", "UnknownIssuer"]);
        let wrong_authority = [("DATABASE_URL_FILE", ""), ("DATABASE_URL", &*url.replace(&ours, &others))];
        self.unready(Role::Orchestrator, &wrong_authority, "postgres", &by_url).await;
        self.unready(Role::Relay, &wrong_authority, "postgres", &by_log).await;
        let named = Postgres::start(self.postgres(&["db.example.com"])).await.unwrap();
        let wrong_name = [("DATABASE_URL_FILE", ""), ("DATABASE_URL", &*named.url("postgres"))];
        self.unready(Role::Notifier, &wrong_name, "postgres", &["not valid for name"]).await;
        let of_others = [("MEANWHILE__SCHEMA_REGISTRY__AUTHORITIES", others.as_str())];
        self.unready(Role::Workers, &of_others, "registry", &by_log).await;
        let wrong = self.file("wrong", WRONG);
        let not_ada = [("MEANWHILE__SCHEMA_REGISTRY__PASSWORD_FILE", wrong.as_str())];
        self.unready(Role::Workers, &not_ada, "registry", &["401"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_whose_servers_demand_tls_runs_and_tells_none_of_its_secrets() {
    let _turn = beside_others().await;
    let collector = Receiver::start().await;
    let mut scene = Scene::new(String::new(), collector.url());
    let leaf = scene.authority.server().unwrap();
    let front = TlsFront::start(&leaf, &test_kit::registry().await, "ada", REGISTRY).await.unwrap();
    scene.shared[0].1 = front.url();
    let mut stage = Stage::start_with(|builder| {
        let builder = builder.private_postgres(scene.postgres(&["localhost"]));
        scene.shared.iter().fold(builder, |builder, (name, value)| builder.variable(name, value.as_str()))
    })
    .await;
    let url = stage.system.database_url().to_owned();
    assert!(psql(&url.replace("verify-full", "disable"), "select 1").is_err(), "Postgres demands TLS");
    let job = stage.submit("order", &order("c-1", json!({}))).await;
    assert_eq!(stage.end_of(job).await.status, JobStatus::Succeeded);

    scene.shared.extend(owned([
        ("KAFKA_BROKERS", stage.system.brokers().to_owned()),
        ("MEANWHILE__TOPICS__PREFIX", stage.system.topics().prefix().to_owned()),
        ("DATABASE_URL_FILE", scene.file("database", &url)),
    ]));
    let job = scene.submit_by_tls().await;
    stage.system.note_accepted([job]);
    assert_eq!(stage.end_of(job).await.status, JobStatus::Succeeded);
    scene.refuse(&url).await;

    stage.system.postgres().kill9();
    stage.system.postgres().restart().await.unwrap();
    for role in stage.system.roles() {
        role.wait_until_ready().await.unwrap();
        let text = fs::read_to_string(role.process().log()).unwrap();
        assert!(text.contains("DEBUG"), "debug lines are there");
        scene.told.add(role.role().as_str(), text);
    }
    for request in collector.requests() {
        scene.told.add("traces", String::from_utf8_lossy(&request.body).into_owned());
    }
    scene.told.holds_none();
    stage.finish().await;
}

//! Rights at a broker: commands of `kafka-acls` as an operator writes them, sent by `CreateAcls` (the tool itself takes
//! some seconds a command).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};

const CREATE_ACLS: i16 = 30;
/// The last version without tagged fields.
const VERSION: i16 = 1;
const LITERAL: u8 = 3;
const PREFIXED: u8 = 4;
const ALLOW: u8 = 3;
/// Kafka's numbers of resources and operations (`ResourceType`, `AclOperation`).
const RESOURCES: [(&str, u8); 4] = [("--topic", 2), ("--group", 3), ("--cluster", 4), ("--transactional-id", 5)];
const OPERATIONS: [(&str, u8); 10] = [
    ("All", 2),
    ("Read", 3),
    ("Write", 4),
    ("Create", 5),
    ("Delete", 6),
    ("Alter", 7),
    ("Describe", 8),
    ("DescribeConfigs", 10),
    ("AlterConfigs", 11),
    ("IdempotentWrite", 12),
];

/// One right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    principal: String,
    resource: u8,
    pattern: u8,
    name: String,
    operation: u8,
}

impl Grant {
    /// The rights of one command.
    pub(super) fn read(command: &str) -> Result<Vec<Self>> {
        let mut words = command.split_whitespace().map(|word| word.trim_matches('\''));
        anyhow::ensure!(words.next() == Some("kafka-acls"), "not a command of kafka-acls");
        let (mut principal, mut pattern, mut names, mut operations) = (None, LITERAL, vec![], vec![]);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} has no value"));
            match word {
                "--add" => {}
                "--bootstrap-server" | "--command-config" => drop(value()?),
                "--allow-principal" => principal = Some(value()?.to_owned()),
                "--resource-pattern-type" => {
                    pattern = match value()? {
                        "literal" => LITERAL,
                        "prefixed" => PREFIXED,
                        other => bail!("pattern {other}"),
                    }
                }
                "--operation" => operations.push(number(&OPERATIONS, value()?)?),
                "--cluster" => names.push((number(&RESOURCES, word)?, "kafka-cluster".to_owned())),
                resource => names.push((number(&RESOURCES, resource)?, value()?.to_owned())),
            }
        }
        let principal = principal.context("no --allow-principal")?;
        let of = |(resource, name): &(u8, String)| {
            let grant = |operation: &u8| Self {
                principal: principal.clone(),
                resource: *resource,
                pattern,
                name: name.clone(),
                operation: *operation,
            };
            operations.iter().map(grant).collect::<Vec<_>>()
        };
        Ok(names.iter().flat_map(of).collect())
    }
}

fn number(of: &[(&str, u8)], word: &str) -> Result<u8> {
    let found = of.iter().find(|(known, _)| *known == word);
    found.map(|(_, number)| *number).with_context(|| format!("{word} is unknown"))
}

/// Sends them; blocks. They hold on return.
pub(super) fn create_acls(broker: &str, grants: &[Grant]) -> Result<()> {
    let mut body = Vec::new();
    body.extend(i32::try_from(grants.len())?.to_be_bytes());
    for grant in grants {
        body.push(grant.resource);
        put(&mut body, &grant.name)?;
        body.push(grant.pattern);
        put(&mut body, &grant.principal)?;
        put(&mut body, "*")?;
        body.extend([grant.operation, ALLOW]);
    }
    let mut request = Vec::new();
    request.extend(CREATE_ACLS.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    put(&mut request, "test-kit")?;
    request.extend(body);
    let mut stream = TcpStream::connect(broker)?;
    stream.write_all(&u32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("the broker hung up")?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    // Correlation id, throttle time, count; then a code and a text each.
    let mut rest = answer.get(12..).context("a short answer")?;
    for grant in grants {
        let code = i16::from_be_bytes(take(&mut rest)?);
        let bytes = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).unwrap_or(0);
        let (text, more) = rest.split_at_checked(bytes).context("a short answer")?;
        anyhow::ensure!(code == 0, "{grant:?}: code {code}: {}", String::from_utf8_lossy(text));
        rest = more;
    }
    Ok(())
}

fn put(bytes: &mut Vec<u8>, text: &str) -> Result<()> {
    bytes.extend(i16::try_from(text.len())?.to_be_bytes());
    bytes.extend(text.as_bytes());
    Ok(())
}

fn take(rest: &mut &[u8]) -> Result<[u8; 2]> {
    let (first, more) = rest.split_first_chunk::<2>().context("a short answer")?;
    *rest = more;
    Ok(*first)
}

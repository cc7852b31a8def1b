//! What the log says, read from the sources, so that docs/logging.md can be held to it.

/// One place that writes to the log at info or above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The file.
    pub path: String,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    /// The message as it stands in the source.
    pub message: String,
    /// The names of its fields.
    pub fields: Vec<String>,
}

const LEVELS: [&str; 3] = ["info", "warn", "error"];

/// The log lines of a source file, without those of its tests.
pub fn log_lines(path: &str, text: &str) -> Vec<LogLine> {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = vec![];
    for level in LEVELS {
        let call = format!("tracing::{level}!(");
        for (start, _) in text.match_indices(&call) {
            let arguments = arguments(&text[start + call.len()..]);
            let message = arguments.iter().rev().find_map(|argument| literal(argument)).unwrap_or_default();
            let fields = arguments.iter().filter_map(|argument| field(argument)).collect();
            found.push(LogLine { path: path.to_owned(), level, message, fields });
        }
    }
    found
}

/// What in the document does not agree with the sources: lines without a row, fields that their row does not name, rows
/// without a line. A row is `| level | `message` | `field`, `field` | when |`.
pub fn disagreements(document: &str, lines: &[LogLine]) -> Vec<String> {
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| LEVELS.iter().any(|level| line.starts_with(&format!("| {level} |"))))
        .map(|line| line.split('|').map(str::trim).skip(1).collect())
        .collect();
    let tells = |row: &[&str], line: &LogLine| row.first() == Some(&line.level) && message_of(row) == line.message;
    let mut findings = vec![];
    for line in lines {
        let LogLine { path, level, message, fields } = line;
        let Some(row) = rows.iter().find(|row| tells(row, line)) else {
            findings.push(format!("{path}: docs/logging.md has no row for {level} `{message}`"));
            continue;
        };
        let named = row.get(2).copied().unwrap_or_default();
        let missing = fields.iter().filter(|field| !named.contains(&format!("`{field}`")));
        findings.extend(missing.map(|field| format!("{path}: the row of {level} `{message}` does not name `{field}`")));
    }
    for row in &rows {
        if !lines.iter().any(|line| tells(row, line)) {
            findings.push(format!("docs/logging.md: nobody says {} `{}`", row[0], message_of(row)));
        }
    }
    findings
}

/// The message of a row; two backticks around it let it hold some itself.
fn message_of<'a>(row: &[&'a str]) -> &'a str {
    let cell = row.get(1).copied().unwrap_or_default();
    cell.trim_matches('`').trim()
}

/// The arguments of a macro call, from behind its opening bracket.
pub(crate) fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let (mut arguments, mut current) = (vec![], String::new());
    for c in text.chars() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            current.push(c);
            continue;
        }
        match c {
            '"' => quoted = true,
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(std::mem::take(&mut current).trim().to_owned());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    arguments.push(current.trim().to_owned());
    arguments.retain(|argument| !argument.is_empty());
    arguments
}

pub(crate) fn literal(argument: &str) -> Option<String> {
    let inside = argument.strip_prefix('"')?.strip_suffix('"')?;
    let pieces = inside.split("\\\n").enumerate();
    Some(pieces.map(|(place, piece)| if place == 0 { piece } else { piece.trim_start() }).collect())
}

/// The field that an argument sets: `name = value`, or a variable's own name with or without `%` and `?`.
fn field(argument: &str) -> Option<String> {
    if argument.starts_with('"') || argument.starts_with("target:") {
        return None;
    }
    let name = argument.split('=').next().unwrap_or_default().trim().trim_start_matches(['%', '?']);
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    (plain && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lines_level_message_and_fields_are_read_off_its_source() {
        let source = "fn f() {\n tracing::warn!(job.id = %job, topic, error = format!(\"{error:#}\", 1), %place,\n \
                      \"it, \\\n   went wrong\");\n tracing::debug!(\"no\");\n}\n#[cfg(test)]\nmod tests {\n \
                      tracing::info!(\"no\");\n}";
        let fields = ["job.id", "topic", "error", "place"].map(str::to_owned).to_vec();
        let line = LogLine { path: "a.rs".to_owned(), level: "warn", message: "it, went wrong".to_owned(), fields };
        assert_eq!(log_lines("a.rs", source), [line]);
    }

    #[test]
    fn a_line_a_field_and_a_row_too_many_are_found() {
        let lines = log_lines("a.rs", "tracing::info!(a, b, \"told\"); tracing::info!(\"secret\");");
        let document = "| level | message |\n| info | `told` | `a` | often |\n| warn | `told` | | never |";
        let findings = disagreements(document, &lines);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings[0].ends_with("does not name `b`") && findings[1].contains("`secret`"), "{findings:?}");
        assert_eq!(findings[2], "docs/logging.md: nobody says warn `told`");
    }
}

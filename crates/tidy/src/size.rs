//! Limits on our own code.

/// Lines of a file.
pub const FILE_LINES_MAX: usize = 400;
/// Lines of a function, from `fn` to its closing brace.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
pub const LINE_CHARS_MAX: usize = 120;

/// Files and lines that are too long.
pub fn long_files_and_lines(path: &str, text: &str) -> Vec<String> {
    let mut findings = vec![];
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(format!("{path}: {lines} lines; the limit is {FILE_LINES_MAX}"));
    }
    for (index, line) in text.lines().enumerate() {
        let chars = line.chars().count();
        if chars > LINE_CHARS_MAX {
            findings.push(format!("{path}:{}: {chars} characters; the limit is {LINE_CHARS_MAX}", index + 1));
        }
    }
    findings
}

/// Functions that are too long. Reads what rustfmt wrote: a function ends at the brace in the column where it began.
pub fn long_functions(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = vec![];
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let length = function_lines(&lines[start..]);
        if length > FUNCTION_LINES_MAX {
            let number = start + 1;
            findings.push(format!("{path}:{number}: `{name}` has {length} lines; the limit is {FUNCTION_LINES_MAX}"));
        }
    }
    findings
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        if let Some(name) = rest.strip_prefix("fn ") {
            return name.split(['(', '<']).next();
        }
        let (word, after) = rest.split_once(' ')?;
        let qualifier =
            matches!(word, "pub" | "async" | "const" | "unsafe" | "extern" | "\"C\"") || word.starts_with("pub(");
        if !qualifier {
            return None;
        }
        rest = after;
    }
}

/// The lines of the function that begins at the first of `lines`; 0 for a declaration without a body.
fn function_lines(lines: &[&str]) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let column = indent(lines[0]);
    for (index, line) in lines.iter().enumerate() {
        if indent(line) != column {
            continue;
        }
        if line.ends_with("{}") || (index > 0 && line.trim() == "}") {
            return index + 1;
        }
        if line.ends_with(';') {
            return 0;
        }
    }
    lines.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(body_lines: usize) -> String {
        format!(
            "impl X {{\n    pub(crate) async fn f(\n        x: u8,\n    ) {{\n{}    }}\n}}\n",
            "        x;\n".repeat(body_lines)
        )
    }

    #[test]
    fn a_file_of_401_lines_is_found() {
        assert!(long_files_and_lines("f", &"\n".repeat(400)).is_empty());
        assert_eq!(long_files_and_lines("f", &"\n".repeat(401)), ["f: 401 lines; the limit is 400"]);
    }

    #[test]
    fn a_line_of_121_characters_is_found() {
        assert!(long_files_and_lines("f", &"ü".repeat(120)).is_empty());
        assert_eq!(long_files_and_lines("f", &"ü".repeat(121)), ["f:1: 121 characters; the limit is 120"]);
    }

    #[test]
    fn a_function_of_71_lines_is_found() {
        assert!(long_functions("f", &function(66)).is_empty());
        assert_eq!(long_functions("f", &function(67)), ["f:2: `f` has 71 lines; the limit is 70"]);
    }

    #[test]
    fn a_declaration_does_not_reach_into_what_follows() {
        let text = format!("trait T {{\n    fn declared(&self);\n{}}}\n", "    const X: u8 = 1;\n".repeat(100));
        assert!(long_functions("f", &text).is_empty());
    }
}

//! Rewrites an expression so that its operators are those of [`operation`](super::operation): `a < b` becomes
//! `_compare(a, '<', b)`. The grammar and its precedences are the engine's, which compiles the result.

use super::operation::{ALIKE, COMPARE, COMPUTE, COMPUTING, COMPUTING_TESTS, NEGATE, NUMBERS, ORDERING, SLICE};

/// Levels of nesting; the engine takes no more either.
const DEPTH_MAX: usize = 100;

/// The expression with our operators; none when it cannot be read.
pub(super) fn rewrite(source: &str) -> Option<String> {
    let mut reader = Reader { tokens: tokens(source)?, at: 0, depth: 0 };
    let rewritten = reader.conditional()?;
    (reader.at == reader.tokens.len()).then_some(rewritten)
}

struct Reader<'s> {
    tokens: Vec<&'s str>,
    at: usize,
    depth: usize,
}

impl<'s> Reader<'s> {
    fn peek(&self) -> &'s str {
        self.tokens.get(self.at).copied().unwrap_or_default()
    }

    fn next(&mut self) -> Option<&'s str> {
        let token = self.tokens.get(self.at).copied()?;
        self.at += 1;
        Some(token)
    }

    fn skip(&mut self, token: &str) -> bool {
        let here = self.peek() == token;
        self.at += usize::from(here);
        here
    }

    fn expect(&mut self, token: &str) -> Option<()> {
        self.skip(token).then_some(())
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let result = if self.depth > DEPTH_MAX { None } else { read(self) };
        self.depth -= 1;
        result
    }

    fn conditional(&mut self) -> Option<String> {
        self.nested(|reader| {
            let mut value = reader.either()?;
            while reader.skip("if") {
                let condition = reader.either()?;
                value = match reader.skip("else") {
                    true => format!("({value} if {condition} else {})", reader.conditional()?),
                    false => format!("({value} if {condition})"),
                };
            }
            Some(value)
        })
    }

    fn either(&mut self) -> Option<String> {
        self.joined("or", Self::both)
    }

    fn both(&mut self) -> Option<String> {
        self.joined("and", Self::negation)
    }

    /// Operands with one operator of the engine's own between them.
    fn joined(&mut self, sign: &str, operand: fn(&mut Self) -> Option<String>) -> Option<String> {
        let mut operands = vec![operand(self)?];
        while self.skip(sign) {
            operands.push(operand(self)?);
        }
        Some(if operands.len() == 1 {
            operands.remove(0)
        } else {
            format!("({})", operands.join(&format!(" {sign} ")))
        })
    }

    fn negation(&mut self) -> Option<String> {
        if self.skip("not") {
            return self.nested(|reader| Some(format!("(not {})", reader.negation()?)));
        }
        self.called(COMPARE, &["==", "!=", "<", "<=", ">", ">=", "in", "not in"], Self::sum)
    }

    fn sum(&mut self) -> Option<String> {
        self.called(COMPUTE, &["+", "-"], |reader| reader.joined("~", Self::product))
    }

    fn product(&mut self) -> Option<String> {
        self.called(COMPUTE, &["*", "/", "//", "%"], |reader| reader.called(COMPUTE, &["**"], Self::operand))
    }

    /// Operands with operators between them as the arguments of a function of ours.
    fn called(
        &mut self,
        function: &str,
        signs: &[&str],
        operand: impl Fn(&mut Self) -> Option<String>,
    ) -> Option<String> {
        let first = operand(self)?;
        let mut arguments = String::new();
        loop {
            let sign = if self.peek() == "not" && self.tokens.get(self.at + 1) == Some(&"in") {
                "not in"
            } else {
                self.peek()
            };
            if !signs.contains(&sign) {
                break;
            }
            self.at += if sign == "not in" { 2 } else { 1 };
            arguments.push_str(&format!(", '{sign}', {}", operand(self)?));
        }
        Some(if arguments.is_empty() { first } else { format!("{function}({first}{arguments})") })
    }

    /// A value with its filters and tests.
    fn operand(&mut self) -> Option<String> {
        let mut value = self.signed()?;
        loop {
            if self.skip("|") {
                let name = self.name()?;
                let computes = COMPUTING.contains(&name.as_str());
                let prepare = if ORDERING.contains(&name.as_str()) { ALIKE } else { NUMBERS };
                if computes || prepare == ALIKE {
                    value = format!("{prepare}({value})");
                }
                let arguments = if self.peek() == "(" { self.arguments(computes)? } else { String::new() };
                value = format!("({value} | {name}{arguments})");
            } else if self.skip("is") {
                let not = if self.skip("not") { "not " } else { "" };
                let name = self.name()?;
                if COMPUTING_TESTS.contains(&name.as_str()) {
                    value = format!("{NUMBERS}({value})");
                }
                let argument = match self.peek() {
                    "(" => self.arguments(false)?,
                    "and" | "or" | "else" | "is" | "if" | "in" | "not" => String::new(),
                    first if first.starts_with(starts_argument) => format!("({})", self.signed()?),
                    _ => String::new(),
                };
                value = format!("({value} is {not}{name}{argument})");
            } else {
                return Some(value);
            }
        }
    }

    /// The name of a filter or test, which may have dots.
    fn name(&mut self) -> Option<String> {
        let mut name = self.next().filter(|name| name.starts_with(is_name_start))?.to_owned();
        while self.skip(".") {
            name = format!("{name}.{}", self.next()?);
        }
        Some(name)
    }

    fn signed(&mut self) -> Option<String> {
        if !self.skip("-") {
            let value = self.primary()?;
            return self.postfix(value);
        }
        let operand = self.nested(Self::signed)?;
        Some(match operand.starts_with(|first: char| first.is_ascii_digit()) {
            true => format!("(-{operand})"),
            false => format!("{NEGATE}({operand})"),
        })
    }

    fn primary(&mut self) -> Option<String> {
        let token = self.next()?;
        match token {
            "(" => self.items(")").map(|items| format!("({items})")),
            "[" => self.items("]").map(|items| format!("[{items}]")),
            "{" => self.items("}").map(|items| format!("{{{items}}}")),
            _ if token.starts_with(['"', '\'']) => {
                let mut text = token.to_owned();
                while self.peek().starts_with(['"', '\'']) {
                    text = format!("{text} {}", self.next()?);
                }
                Some(text)
            }
            _ if token.starts_with(|first: char| is_name_start(first) || first.is_ascii_digit()) => {
                Some(token.to_owned())
            }
            _ => None,
        }
    }

    /// What stands between brackets: values with commas, and in mappings colons.
    fn items(&mut self, close: &str) -> Option<String> {
        let mut items = String::new();
        while !self.skip(close) {
            items.push_str(&self.conditional()?);
            for sign in [":", ","] {
                if self.skip(sign) {
                    items.push_str(sign);
                    items.push(' ');
                }
            }
        }
        Some(items)
    }

    fn postfix(&mut self, mut value: String) -> Option<String> {
        loop {
            if self.skip(".") {
                value = format!("{value}.{}", self.next()?);
            } else if self.skip("[") {
                let bounds = self.bounds()?;
                value = match bounds.as_slice() {
                    [place] => format!("{value}[{place}]"),
                    _ => format!("{SLICE}({value}, {})", bounds.join(", ")),
                };
            } else if self.peek() == "(" {
                let computes = value == "range";
                value = format!("{value}{}", self.arguments(computes)?);
            } else {
                return Some(value);
            }
        }
    }

    /// What stands in square brackets behind a value: a place, or the two or three bounds of a slice.
    fn bounds(&mut self) -> Option<Vec<String>> {
        let mut bounds = vec![String::new()];
        while !self.skip("]") {
            match self.skip(":") {
                true => bounds.push(String::new()),
                false => *bounds.last_mut()? = self.subscript()?,
            }
        }
        if bounds.len() > 1 {
            let absent = bounds.iter_mut().filter(|bound| bound.is_empty());
            absent.for_each(|bound| "none".clone_into(bound));
        }
        Some(bounds)
    }

    fn subscript(&mut self) -> Option<String> {
        let value = self.conditional()?;
        let literal = value.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '"' | '\''));
        Some(if literal { value } else { format!("{NUMBERS}({value})") })
    }

    fn arguments(&mut self, computes: bool) -> Option<String> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.skip(")") {
            let splat = if self.skip("**") {
                "**"
            } else if self.skip("*") {
                "*"
            } else {
                ""
            };
            let mut argument = self.conditional()?;
            let keyword =
                if self.skip("=") { Some(std::mem::replace(&mut argument, self.conditional()?)) } else { None };
            if computes && splat.is_empty() {
                argument = format!("{NUMBERS}({argument})");
            }
            arguments.push(keyword.map_or_else(|| format!("{splat}{argument}"), |name| format!("{name}={argument}")));
            if self.peek() != ")" {
                self.expect(",")?;
            }
        }
        Some(format!("({})", arguments.join(", ")))
    }
}

fn is_name_start(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}

fn starts_argument(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '"' | '\'' | '-' | '[' | '{')
}

/// The tokens of an expression; none when a quoted text does not end.
pub(super) fn tokens(source: &str) -> Option<Vec<&str>> {
    let mut tokens: Vec<&str> = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => quoted(rest, first)?,
            '0'..='9' => number(rest, tokens.last() == Some(&".")),
            _ if is_name_start(first) => {
                rest.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len())
            }
            _ => {
                let long = ["**", "//", "==", "!=", "<=", ">="].iter().find(|sign| rest.starts_with(**sign));
                long.map_or(first.len_utf8(), |sign| sign.len())
            }
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    Some(tokens)
}

/// The length of a quoted text, quotes included.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return Some(at + 1);
        }
    }
    None
}

/// The length of a number. After a dot it is the place of an item, which ends at the next dot.
fn number(text: &str, after_dot: bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let next_is_digit = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        let signed = matches!(byte, b'e' | b'E') && matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        match byte {
            _ if signed && !text.starts_with("0x") => at += 2,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' => at += 1,
            b'.' if next_is_digit && !after_dot => at += 1,
            _ => break,
        }
    }
    at
}

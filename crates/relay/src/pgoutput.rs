//! Reads the messages of Postgres' `pgoutput` plugin, protocol version 1 (Postgres manual, section 55.9).
//!
//! Only two matter here: Relation (which columns a table has) and Insert (one row). Begin and Commit are taken out
//! by the stream before; everything else is passed over. Always holds: no bytes make this panic, and a count or length
//! in a message is never trusted to allocate by.

use std::collections::HashMap;

/// A message that does not follow the protocol. The stream cannot be trusted after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    /// The message ends before it should.
    #[error("a pgoutput message ends early, while reading {0}")]
    Truncated(&'static str),
    /// A name in the message is not UTF-8.
    #[error("a pgoutput message names something in other than UTF-8")]
    NotUtf8,
    /// An insert for a table that was not described before.
    #[error("an insert for relation {0}, which was never described")]
    UnknownRelation(u32),
    /// A tuple of another kind than a new row.
    #[error("an insert carries a tuple of kind {0:#04x}, not a new row")]
    NotANewRow(u8),
    /// A column value of a kind that an insert does not have.
    #[error("a column of kind {0:#04x}")]
    UnknownColumnKind(u8),
}

/// A message's meaning for the relay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a, C> {
    /// A row of a table that the caller wants.
    Insert(&'a C, Tuple<'a>),
    /// Anything else.
    Other,
}

/// The tables that were described so far, with what the caller made of their columns (`None`: not of interest).
#[derive(Debug)]
pub(crate) struct Relations<C> {
    known: HashMap<u32, Option<C>>,
}

impl<C> Default for Relations<C> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<C> Relations<C> {
    /// Reads one message. For a table's description, `plan(schema, table, column names)` says what to make of it.
    pub(crate) fn read<'a, E: From<MessageError>>(
        &'a mut self,
        message: &'a [u8],
        plan: impl FnOnce(&str, &str, &[&str]) -> Result<Option<C>, E>,
    ) -> Result<Message<'a, C>, E> {
        let mut bytes = Reader(message);
        match bytes.0.first() {
            Some(b'R') => {
                bytes.byte("tag")?;
                let (id, planned) = read_relation(bytes, plan)?;
                self.known.insert(id, planned);
                Ok(Message::Other)
            }
            Some(b'I') => {
                bytes.byte("tag")?;
                let id = bytes.u32("relation id")?;
                let Some(planned) = self.known.get(&id).ok_or(MessageError::UnknownRelation(id))? else {
                    return Ok(Message::Other);
                };
                match bytes.byte("tuple kind")? {
                    b'N' => Ok(Message::Insert(planned, Tuple { left: bytes.u16("column count")?, bytes })),
                    kind => Err(MessageError::NotANewRow(kind).into()),
                }
            }
            _ => Ok(Message::Other),
        }
    }
}

fn read_relation<C, E: From<MessageError>>(
    mut bytes: Reader<'_>,
    plan: impl FnOnce(&str, &str, &[&str]) -> Result<Option<C>, E>,
) -> Result<(u32, Option<C>), E> {
    let id = bytes.u32("relation id")?;
    let (schema, table) = (bytes.text("schema")?, bytes.text("table")?);
    bytes.byte("replica identity")?;
    let count = bytes.u16("column count")?;
    let mut columns = Vec::new();
    for _ in 0..count {
        bytes.byte("column flags")?;
        columns.push(bytes.text("column name")?);
        bytes.u32("column type")?;
        bytes.u32("column type modifier")?;
    }
    Ok((id, plan(schema, table, &columns)?))
}

/// The columns of one row, in the table's order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tuple<'a> {
    left: u16,
    bytes: Reader<'a>,
}

/// One column's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// SQL NULL.
    Null,
    /// A value in the type's text form.
    Text(&'a [u8]),
    /// A value in the type's binary form.
    Binary(&'a [u8]),
}

impl<'a> Iterator for Tuple<'a> {
    type Item = Result<Value<'a>, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let value = self.column();
        if value.is_err() {
            self.left = 0;
        }
        Some(value)
    }
}

impl<'a> Tuple<'a> {
    fn column(&mut self) -> Result<Value<'a>, MessageError> {
        match self.bytes.byte("column kind")? {
            b'n' => Ok(Value::Null),
            b't' => Ok(Value::Text(self.sized()?)),
            b'b' => Ok(Value::Binary(self.sized()?)),
            kind => Err(MessageError::UnknownColumnKind(kind)),
        }
    }

    fn sized(&mut self) -> Result<&'a [u8], MessageError> {
        let length = self.bytes.u32("column length")? as usize;
        self.bytes.take(length, "column value")
    }
}

/// A cursor over bytes that refuses to run past their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], MessageError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(MessageError::Truncated(what))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], MessageError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(MessageError::Truncated(what))?;
        self.0 = tail;
        Ok(*head)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, MessageError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, MessageError> {
        self.array(what).map(u16::from_be_bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, MessageError> {
        self.array(what).map(u32::from_be_bytes)
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, MessageError> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(MessageError::Truncated(what))?;
        let text = self.take(end, what)?;
        self.byte(what)?;
        str::from_utf8(text).map_err(|_| MessageError::NotUtf8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn relation(id: u32, table: &str, columns: &[&str]) -> Vec<u8> {
        let mut message = vec![b'R'];
        message.extend(id.to_be_bytes());
        message.extend(b"outbox\0");
        message.extend(table.as_bytes());
        message.extend([0, b'd']);
        message.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
        for column in columns {
            message.push(1);
            message.extend(column.as_bytes());
            message.extend([0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff]);
        }
        message
    }

    fn insert(id: u32, values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut message = vec![b'I'];
        message.extend(id.to_be_bytes());
        message.push(b'N');
        message.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            match value {
                None => message.push(b'n'),
                Some(value) => {
                    message.push(b'b');
                    message.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                    message.extend(*value);
                }
            }
        }
        message
    }

    /// Wants the table `messages` only, and keeps its column count.
    fn plan(_: &str, table: &str, columns: &[&str]) -> Result<Option<usize>, MessageError> {
        Ok((table == "messages").then_some(columns.len()))
    }

    #[test]
    fn an_insert_is_read_by_the_relation_it_names() {
        let mut relations = Relations::default();
        for (id, table) in [(7, "messages"), (8, "messages_p1")] {
            assert_eq!(relations.read(&relation(id, table, &["a", "b"]), plan).unwrap(), Message::Other);
        }
        let message = insert(7, &[Some(b"x"), None]);
        let Message::Insert(2, tuple) = relations.read(&message, plan).unwrap() else { panic!("not an insert") };
        assert_eq!(tuple.collect::<Result<Vec<_>, _>>().unwrap(), [Value::Binary(b"x"), Value::Null]);
        assert_eq!(relations.read(&insert(8, &[]), plan).unwrap(), Message::Other);
        assert_eq!(relations.read(&insert(9, &[]), plan), Err(MessageError::UnknownRelation(9)));
    }

    #[test]
    fn other_messages_are_passed_over() {
        let mut relations = Relations::default();
        for message in [&b""[..], b"T\0\0\0\x01", b"Y", b"O", b"U\0"] {
            assert_eq!(relations.read(message, plan), Ok(Message::Other));
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_an_error_or_complete() {
        let whole = insert(7, &[Some(b"key"), Some(b"value"), None]);
        let mut relations = Relations::default();
        relations.read(&relation(7, "messages", &["a", "b", "c"]), plan).unwrap();
        for length in 1..whole.len() {
            let cut = match relations.read(&whole[..length], plan) {
                Err(error) => Err(error),
                Ok(Message::Insert(_, tuple)) => tuple.collect::<Result<Vec<_>, _>>().map(|_| ()),
                Ok(Message::Other) => panic!("an insert is not passed over"),
            };
            assert!(matches!(cut, Err(MessageError::Truncated(_))), "{length}: {cut:?}");
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn damaged_messages_are_read_or_refused(messages in proptest::collection::vec(fuzz::damaged(&[
            relation(7, "messages", &["a", "b", "c"]),
            relation(8, "others", &["a"]),
            insert(7, &[Some(b"key"), Some(b"value"), None]),
            insert(8, &[Some(b"")]),
        ]), 1..6)) {
            let mut relations = Relations::default();
            for message in messages {
                if let Ok(Message::Insert(_, tuple)) = relations.read(&message, plan) {
                    prop_assert!(tuple.take(70_000).count() <= 65_535);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(tag in prop_oneof![Just(b'R'), Just(b'I'), any::<u8>()], body: Vec<u8>) {
            let mut relations = Relations::default();
            relations.read(&relation(0, "messages", &["a"]), plan).unwrap();
            let mut message = vec![tag];
            message.extend(&body);
            if let Ok(Message::Insert(_, tuple)) = relations.read(&message, plan) {
                prop_assert!(tuple.take(70_000).count() <= 65_535);
            }
            message.splice(1..1, [0, 0, 0, 0, b'N']);
            if let Ok(Message::Insert(_, tuple)) = relations.read(&message, plan) {
                prop_assert!(tuple.take(70_000).count() <= 65_535);
            }
        }
    }
}

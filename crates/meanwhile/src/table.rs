//! Tables for people: columns as wide as their longest entry; the last one is the rest.

/// The head, and one line for each row.
pub(crate) fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: Vec<[String; COLUMNS]>) -> String {
    let lines: Vec<[String; COLUMNS]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let line = |line: &[String; COLUMNS]| {
        let columns = line.iter().zip(widths).map(|(text, width)| format!("{text:width$}  "));
        columns.collect::<String>().trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

//! What a command prints: tables for people, JSON and YAML for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::error::Failure;

/// The form of results on standard output, and of errors on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs; streams are one object per line.
    Json,
    /// For programs and files.
    Yaml,
}

/// One kind of thing in a table.
pub(crate) trait Row: Serialize {
    /// Column headings.
    const HEADINGS: &'static [&'static str];
    /// One cell per heading.
    fn cells(&self) -> Vec<String>;
}

/// Rows below their headings, columns aligned, no lines: greppable, and close to what operators know.
pub(crate) fn table<R: Row>(rows: &[R]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(R::HEADINGS.iter().copied());
    for row in rows {
        table.add_row(row.cells());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect::<String>();
    if text.is_empty() {
        text.push('\n');
    }
    text
}

/// Lines of `Name:   value`, for `describe` and `status`. A value of several lines is indented below its name.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for (name, value) in pairs {
        let label = if name.is_empty() {
            String::new()
        } else {
            format!("{name}:")
        };
        let mut lines = value.lines();
        let first = lines.next().unwrap_or_default();
        text.push_str(format!("{label:width$}{first}").trim_end());
        text.push('\n');
        for line in lines {
            text.push_str(format!("{:width$}{line}", "").trim_end());
            text.push('\n');
        }
    }
    text
}

/// Prints a list: a table, or an array.
pub(crate) fn list<R: Row>(format: Format, rows: &[R], nothing: &str) -> Result<(), Failure> {
    match format {
        Format::Table if rows.is_empty() => note(nothing),
        Format::Table => text(&table(rows)),
        Format::Json | Format::Yaml => value(format, &rows),
    }
}

/// Prints one thing: its own text, or an object.
pub(crate) fn object<T: Serialize>(
    format: Format,
    thing: &T,
    human: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => text(&human()),
        Format::Json | Format::Yaml => value(format, thing),
    }
}

/// Prints one element of a stream: a line of text, a line of JSON, or a YAML document.
pub(crate) fn element<T: Serialize>(
    format: Format,
    thing: &T,
    human: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => text(&human()),
        Format::Json => text(&(serde_json::to_string(thing).map_err(Failure::Encode)? + "\n")),
        Format::Yaml => {
            text("---\n")?;
            value(format, thing)
        }
    }
}

/// A remark for people, kept out of standard output so that a pipe sees results only.
pub(crate) fn note(line: &str) -> Result<(), Failure> {
    writeln!(io::stderr(), "{line}").or_else(ignore_closed_pipe)
}

/// Text to standard output, flushed, so that a reader of a stream sees each element at once.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .or_else(ignore_closed_pipe)
}

fn value<T: Serialize>(format: Format, thing: &T) -> Result<(), Failure> {
    let encoded = match format {
        Format::Yaml => serde_yaml_ng::to_string(thing).map_err(Failure::EncodeYaml)?,
        Format::Json | Format::Table => serde_json::to_string_pretty(thing).map_err(Failure::Encode)? + "\n",
    };
    text(&encoded)
}

/// `tieline get … | head` closes our output; that is the reader's right and no failure.
fn ignore_closed_pipe(error: io::Error) -> Result<(), Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Ok(())
    } else {
        Err(Failure::Output(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair(&'static str, u32);

    impl Row for Pair {
        const HEADINGS: &'static [&'static str] = &["NAME", "COUNT"];
        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_string()]
        }
    }

    #[test]
    fn columns_are_aligned_without_lines_or_trailing_blanks() {
        assert_eq!(
            table(&[Pair("gold-network", 1), Pair("x", 12345)]),
            "NAME           COUNT\ngold-network   1\nx              12345\n"
        );
    }

    #[test]
    fn fields_are_aligned_and_long_values_indented() {
        assert_eq!(
            fields(&[
                ("Id", "a".into()),
                ("Addresses", "10.0.0.1/32\n10.0.0.2/32".into())
            ]),
            "Id:         a\nAddresses:  10.0.0.1/32\n            10.0.0.2/32\n"
        );
    }
}

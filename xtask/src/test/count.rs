//! Reading the test harness's own result lines.

/// How many tests ran and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Passed.
    pub passed: u32,
    /// Failed.
    pub failed: u32,
    /// Marked `ignore`: did not run.
    pub ignored: u32,
}

impl Count {
    /// Adds what a line reports: `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn read_line(&mut self, line: &str) {
        let line = without_colour(line);
        let Some(rest) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        let counts = rest.split_once(". ").map_or("", |(_verdict, counts)| counts);
        for part in counts.split("; ") {
            let Some((number, word)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else {
                continue;
            };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Without terminal escapes such as `ESC [ 32 m`.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> Count {
        let mut count = Count::default();
        text.lines().for_each(|line| count.read_line(line));
        count
    }

    #[test]
    fn several_binaries_add_up() {
        let text = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            test result: FAILED. 10 passed; 2 failed; 4 ignored; 0 measured; 7 filtered out; finished in 0.01s\n";
        assert_eq!(
            count(text),
            Count {
                passed: 13,
                failed: 2,
                ignored: 4
            }
        );
    }

    #[test]
    fn colour_does_not_hide_the_numbers() {
        let text = "test result: \u{1b}[32mok\u{1b}[m. 12 passed; 0 failed; 1 ignored; 0 measured";
        assert_eq!(
            count(text),
            Count {
                passed: 12,
                failed: 0,
                ignored: 1
            }
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(
            count("test result of mine: 3 passed; 1 failed\nok. 3 passed;"),
            Count::default()
        );
    }
}

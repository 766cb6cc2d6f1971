//! What is run on another kernel.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    messages::{self, TestBinary},
    sh,
    test::ENV_BINARY,
    verifier, workspace,
};

/// Environment variable: the factor by which tests stretch their waits.
const ENV_SLOW: &str = "TIELINE_TEST_SLOW";
/// How much longer every wait may take in a machine that is probably emulated.
const SLOW_FACTOR: &str = "4";

/// Floors 2 and 3.
const PACKAGES: &[&str] = &["tieline-tests-prog-run", "tieline-lab", "tieline-tests-netns"];

/// One command in the virtual machine.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// What the table calls it.
    pub name: String,
    /// Working folder.
    pub folder: PathBuf,
    /// Environment besides `PATH` and `HOME`.
    pub environment: Vec<(String, OsString)>,
    /// Program and arguments.
    pub words: Vec<OsString>,
    /// Whether its output is that of a test harness.
    pub is_test: bool,
    /// Whether its output is shown when all is well.
    pub show: bool,
}

impl Job {
    /// A command of the user's.
    pub(super) fn command(words: &[OsString]) -> Self {
        Self {
            name: words
                .first()
                .map(|word| word.to_string_lossy().into_owned())
                .unwrap_or_default(),
            folder: env::current_dir().unwrap_or_else(|_| workspace::root().to_path_buf()),
            environment: vec![(ENV_SLOW.to_owned(), SLOW_FACTOR.into())],
            words: words.to_vec(),
            is_test: false,
            show: false,
        }
    }

    /// The job as lines of a shell script.
    pub(super) fn script(&self) -> String {
        let mut script = format!("cd {} || exit 125\n", quoted(self.folder.as_os_str()));
        for (name, value) in &self.environment {
            script.push_str(&format!("export {name}={}\n", quoted(value)));
        }
        let words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        script.push_str(&format!("exec {}\n", words.join(" ")));
        script
    }
}

/// A word of a shell command.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}

/// Builds everything on this machine and says what to run of it.
pub(super) fn build(dev: bool) -> Result<Vec<Job>> {
    let built = sh::step("building the tests", || build::build(&build::Args { dev }))?;
    let binary = OsString::from(&built.binary);
    let check = Job {
        name: "tieline check".to_owned(),
        words: vec![binary.clone(), "check".into()],
        // It says which back end this kernel gets.
        show: true,
        ..Job::command(&[])
    };
    let verifier = Job {
        name: "programs load".to_owned(),
        words: vec![verifier::build_report()?.into()],
        ..Job::command(&[])
    };
    let mut jobs = vec![check, verifier];
    jobs.extend(test_jobs(&binary)?);
    Ok(jobs)
}

fn test_jobs(binary: &OsStr) -> Result<Vec<Job>> {
    let mut cargo = sh::cargo();
    cargo.args(["test", "--no-run"]);
    cargo.args(PACKAGES.iter().map(|package| format!("--package={package}")));
    let messages = messages::of_cargo(&mut cargo)?;
    let mut jobs = Vec::new();
    for test in messages.test_binaries() {
        if has_tests(&test)? {
            jobs.push(test_job(&test, binary));
        }
    }
    if jobs.is_empty() {
        bail!("{} hold no test", PACKAGES.join(", "));
    }
    Ok(jobs)
}

/// Libraries and helpers without tests have a test binary all the same.
fn has_tests(test: &TestBinary) -> Result<bool> {
    let listed = sh::capture(sh::command(&test.path).arg("--list"))
        .with_context(|| format!("{} cannot list its tests", test.path.display()))?;
    Ok(listed.lines().any(|line| line.ends_with(": test")))
}

fn test_job(test: &TestBinary, binary: &OsStr) -> Job {
    let folder = test.manifest.parent().unwrap_or(Path::new("/"));
    let environment = [
        (ENV_SLOW, OsStr::new(SLOW_FACTOR)),
        (ENV_BINARY, binary),
        ("CARGO_MANIFEST_DIR", folder.as_os_str()),
    ];
    Job {
        name: format!("{} {}", test.package, test.target),
        folder: folder.to_path_buf(),
        environment: environment
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        words: vec![test.path.clone().into(), "--test-threads=1".into()],
        is_test: true,
        show: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_becomes_a_script_that_keeps_its_words_apart() {
        let job = Job {
            folder: "/".into(),
            environment: vec![("A".to_owned(), "it's".into())],
            ..Job::command(&["printf".into(), "%s|".into(), "a b".into(), "$HOME".into()])
        };
        let out = std::process::Command::new("sh")
            .args(["-c", &job.script()])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "a b|$HOME|");
        assert!(job.script().contains("A='it'\\''s'"));
    }

    #[test]
    fn tests_run_one_at_a_time_in_their_own_folder_and_know_that_they_are_slow() {
        let test = TestBinary {
            package: "p".to_owned(),
            target: "t".to_owned(),
            path: "/t/deps/t-1".into(),
            manifest: "/t/p/Cargo.toml".into(),
        };
        let script = test_job(&test, OsStr::new("/t/tieline")).script();
        for part in [
            "cd '/t/p'",
            "TIELINE_TEST_SLOW='4'",
            "TIELINE_BIN='/t/tieline'",
            "'--test-threads=1'",
        ] {
            assert!(script.contains(part), "{script}");
        }
    }
}

//! Cargo's `--message-format=json`: which files a build made.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::sh;

/// The messages that name files.
#[derive(Debug, Default)]
pub(crate) struct Messages(Vec<Message>);

#[derive(Debug, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        package_id: String,
        manifest_path: PathBuf,
        target: Target,
        executable: Option<PathBuf>,
        profile: Profile,
    },
    BuildScriptExecuted {
        package_id: String,
        env: Vec<(String, String)>,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// One compiled test binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestBinary {
    /// Package it belongs to.
    pub package: String,
    /// Name of the target: the crate, or the file below `tests/`.
    pub target: String,
    /// The executable.
    pub path: PathBuf,
    /// The package's `Cargo.toml`.
    pub manifest: PathBuf,
}

/// Runs cargo; its diagnostics go to the user, its messages are returned.
pub(crate) fn of_cargo(cargo: &mut Command) -> Result<Messages> {
    cargo
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let mut child = cargo
        .spawn()
        .with_context(|| format!("cannot start {}", sh::line(cargo)))?;
    let mut messages = Messages::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            messages.push(&line?);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed ({status})", sh::line(cargo));
    }
    Ok(messages)
}

impl Messages {
    fn push(&mut self, line: &str) {
        // A build script or a test harness may print other lines into the same stream.
        if let Ok(message) = serde_json::from_str::<Message>(line) {
            self.0.push(message);
        }
    }

    /// The binary target of this name.
    pub(crate) fn executable(&self, name: &str) -> Option<PathBuf> {
        self.0.iter().find_map(|message| match message {
            Message::CompilerArtifact {
                target,
                executable: Some(path),
                profile,
                ..
            } if target.name == name && !profile.test => Some(path.clone()),
            _ => None,
        })
    }

    /// What the build script of `package` set for the compiler.
    pub(crate) fn build_script_env(&self, package: &str, variable: &str) -> Option<&str> {
        self.0.iter().find_map(|message| match message {
            Message::BuildScriptExecuted { package_id, env } if package_name(package_id) == package => env
                .iter()
                .find(|(name, _)| name == variable)
                .map(|(_, value)| value.as_str()),
            _ => None,
        })
    }

    /// Every test binary.
    pub(crate) fn test_binaries(&self) -> Vec<TestBinary> {
        let test = |message: &Message| match message {
            Message::CompilerArtifact {
                package_id,
                manifest_path,
                target,
                executable: Some(path),
                profile,
            } if profile.test => Some(TestBinary {
                package: package_name(package_id).to_owned(),
                target: target.name.clone(),
                path: path.clone(),
                manifest: manifest_path.clone(),
            }),
            _ => None,
        };
        self.0.iter().filter_map(test).collect()
    }
}

/// The name in a package id: `path+file:///tree/cli#tieline@0.1.0`, or `…/tree/proto#0.1.0` when the folder
/// bears the name.
fn package_name(id: &str) -> &str {
    let (source, fragment) = id.split_once('#').unwrap_or((id, id));
    match fragment.split_once('@') {
        Some((name, _version)) => name,
        None => source.rsplit('/').next().unwrap_or(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Messages {
        let mut messages = Messages::default();
        for line in [
            r#"{"reason":"compiler-artifact","package_id":"path+file:///t/cli#tieline@0.1.0","manifest_path":"/t/cli/Cargo.toml","target":{"name":"tieline","kind":["bin"]},"profile":{"test":true},"executable":"/t/deps/tieline-1"}"#,
            r#"{"reason":"compiler-artifact","package_id":"path+file:///t/cli#tieline@0.1.0","manifest_path":"/t/cli/Cargo.toml","target":{"name":"tieline","kind":["bin"]},"profile":{"test":false},"executable":"/t/tieline"}"#,
            r#"{"reason":"build-script-executed","package_id":"path+file:///t/dataplane-user#0.1.0","env":[["A","1"],["OBJECT","/o"]]}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "running 0 tests",
        ] {
            messages.push(line);
        }
        messages
    }

    #[test]
    fn a_binary_is_not_confused_with_its_own_tests() {
        assert_eq!(sample().executable("tieline"), Some("/t/tieline".into()));
        let tests = sample().test_binaries();
        assert_eq!(tests.len(), 1);
        assert_eq!(tests[0].package, "tieline");
        assert_eq!(tests[0].path, PathBuf::from("/t/deps/tieline-1"));
    }

    #[test]
    fn what_a_build_script_set_is_found_by_package() {
        assert_eq!(sample().build_script_env("dataplane-user", "OBJECT"), Some("/o"));
        assert_eq!(sample().build_script_env("tieline", "OBJECT"), None);
    }
}

//! Starting other programs: what is run is shown, and what fails is named with its command line.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// A command in the workspace's root folder.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::workspace::root());
    command
}

/// The cargo that runs this program, so that its toolchain is used throughout.
pub(crate) fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command whose output belongs to the user.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a command that is silent unless it fails; then its output is in the error.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    capture(command.stderr(Stdio::piped())).map(drop)
}

/// Runs a command and returns its standard output.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let out = command
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        bail!("{} failed ({})\n{}{stdout}", line(command), out.status, stderr);
    }
    Ok(stdout)
}

/// Becomes the command: signals and the exit code are the command's own.
pub(crate) fn replace_with(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", line(command)))
}

/// The command line, to repeat it by hand.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| quoted(&w.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Says what begins, and how long it took if that was more than a second.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let began = Instant::now();
    let outcome = work();
    let took = began.elapsed();
    if took >= Duration::from_secs(1) {
        let verdict = if outcome.is_ok() { "done" } else { "failed" };
        eprintln!("    {verdict} after {}", seconds(took));
    }
    outcome
}

/// `0.4 s`, `73.2 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Where a program lies: in `PATH`, or in the folders of the system's administration tools.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("printf");
        command.args(["%s", "it's; $HOME", ""]);
        let printed = line(&command);
        let out = Command::new("sh").args(["-c", &printed]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "it's; $HOME");
    }

    #[test]
    fn a_failure_shows_the_command_and_what_it_said() {
        let error = run_quietly(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("why") && text.contains("sh -c"), "{text}");
    }
}

//! Where this machine's packages come from: only its own apt configuration knows.

use std::{env, fs, path::Path};

use anyhow::{Result, bail};

/// Environment variable: a Debian mirror to use instead.
const ENV_MIRROR: &str = "TIELINE_DEBIAN_MIRROR";

/// Where Debian's packages and their security updates come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    /// Base of the main archive.
    pub main: String,
    /// Base of the security archive.
    pub security: String,
}

impl Mirror {
    /// As apt is configured.
    pub(super) fn of_this_machine() -> Result<Self> {
        if let Ok(main) = env::var(ENV_MIRROR) {
            return Ok(Self {
                security: format!("{main}-security"),
                main,
            });
        }
        let mut text = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
        if let Ok(entries) = fs::read_dir(Path::new("/etc/apt/sources.list.d")) {
            for entry in entries.flatten() {
                text.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
                text.push('\n');
            }
        }
        match Self::in_sources(&text) {
            Some(mirror) => Ok(mirror),
            None => bail!("apt's configuration names no Debian mirror: set {ENV_MIRROR} to one"),
        }
    }

    /// From the text of `sources.list` and `*.sources` files: an address is a word with `://` in it, and Debian's end
    /// in the archive's name.
    fn in_sources(text: &str) -> Option<Self> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let addresses: Vec<&str> = lines
            .flat_map(str::split_whitespace)
            .filter(|word| word.contains("://"))
            .map(|word| word.trim_end_matches('/'))
            .collect();
        let ending = |end: &str| {
            addresses
                .iter()
                .find(|address| address.ends_with(end))
                .map(|a| (*a).to_owned())
        };
        let main = ending("/debian")?;
        let security = ending("/debian-security").unwrap_or_else(|| format!("{main}-security"));
        Some(Self { main, security })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let old = "# deb http://old/debian x main\ndeb [arch=amd64] http://m/debian/ bookworm main\n\
            deb http://m/debian-security bookworm-security main\n";
        let expected = Mirror {
            main: "http://m/debian".into(),
            security: "http://m/debian-security".into(),
        };
        assert_eq!(Mirror::in_sources(old), Some(expected));
        let new = "Types: deb\nURIs: https://m/debian\nSuites: trixie\n\nTypes: deb\nURIs: https://other/node_20.x\n";
        let expected = Mirror {
            main: "https://m/debian".into(),
            security: "https://m/debian-security".into(),
        };
        assert_eq!(Mirror::in_sources(new), Some(expected));
    }

    #[test]
    fn another_distribution_is_no_mirror() {
        assert_eq!(Mirror::in_sources("deb http://m/ubuntu noble main\n"), None);
    }
}

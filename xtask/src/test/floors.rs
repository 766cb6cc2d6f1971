//! What each floor is and how cargo is asked for it.

/// A test floor, by what it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
    /// Unit, property and documentation tests; no privileges.
    Host,
    /// Scripted scenarios on the in-memory datapath.
    Scenarios,
    /// The kernel programs under `BPF_PROG_TEST_RUN`.
    Programs,
    /// Network namespaces with real traffic.
    Namespaces,
}

/// Reads a floor's number from the command line.
pub(super) fn parse(text: &str) -> Result<Floor, String> {
    let number = |floor: &&Floor| floor.number().to_string() == text;
    match (Floor::ALL.iter().find(number), text) {
        (Some(&floor), _) => Ok(floor),
        (None, "4") => Err("floor 4 is `cargo xtask kernels`".to_owned()),
        (None, _) => Err("floors are 0, 1, 2 and 3".to_owned()),
    }
}

impl Floor {
    /// Every floor, lowest first.
    pub(crate) const ALL: &'static [Self] = &[Self::Host, Self::Scenarios, Self::Programs, Self::Namespaces];

    /// Its number, as in CONTRIBUTING.md.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Host => 0,
            Self::Scenarios => 1,
            Self::Programs => 2,
            Self::Namespaces => 3,
        }
    }

    /// What it proves.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Host => "host unit and property tests",
            Self::Scenarios => "scenarios on the fake datapath",
            Self::Programs => "kernel programs, frame by frame",
            Self::Namespaces => "namespaces with real traffic",
        }
    }

    /// Whether it touches the kernel.
    pub(crate) const fn needs_root(self) -> bool {
        matches!(self, Self::Programs | Self::Namespaces)
    }

    /// Which packages and targets.
    pub(crate) const fn cargo_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Host => &[
                "--workspace",
                "--no-fail-fast",
                "--exclude=dataplane-ebpf",
                "--exclude=tieline-lab",
                "--exclude=tieline-tests-prog-run",
                "--exclude=tieline-tests-netns",
            ],
            Self::Scenarios => &["--package=dataplane-user", "--features=fake", "--test=scenarios"],
            Self::Programs => &["--package=tieline-tests-prog-run", "--no-fail-fast"],
            Self::Namespaces => &[
                "--package=tieline-lab",
                "--package=tieline-tests-netns",
                "--package=tieline",
                "--features=tieline/namespaces",
                "--no-fail-fast",
            ],
        }
    }

    /// For the test binaries: what shares this machine's kernel runs one test at a time.
    pub(crate) const fn harness_arguments(self) -> &'static [&'static str] {
        if self.needs_root() {
            &["--test-threads=1"]
        } else {
            &[]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_found_by_its_number_and_others_are_refused() {
        for &floor in Floor::ALL {
            assert_eq!(parse(&floor.number().to_string()), Ok(floor));
        }
        assert!(parse("4").unwrap_err().contains("kernels"));
        assert!(parse("first").is_err());
    }
}

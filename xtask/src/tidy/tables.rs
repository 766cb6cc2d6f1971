//! `docs/maps.md` and `docs/reasons.md`: written from the sources, so that they cannot lag behind.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use dataplane_common::{ABI_VERSION, Reason, names};

use super::{Violation, find};
use crate::{
    source::{self, AbiStruct},
    workspace::{self, File},
};

const MAPS: &str = "docs/maps.md";
const REASONS: &str = "docs/reasons.md";
const NAMES: &str = "dataplane-common/src/names.rs";
const ABI: &str = "dataplane-common/src/abi";
const WRITTEN_BY: &str =
    "<!-- Written by `cargo xtask tidy --bless` from the sources of `dataplane-common`. -->\n";

pub(super) fn check(files: &[File]) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for (path, expected) in generated(files)? {
        match find(files, path) {
            Ok(file) if file.text == expected => {}
            Ok(_) => violations.push(Violation::new(
                path,
                0,
                "is not what the sources say: `cargo xtask tidy --bless`",
            )),
            Err(missing) => violations.push(missing),
        }
    }
    Ok(violations)
}

pub(super) fn bless(files: &[File]) -> Result<()> {
    generated(files)?
        .iter()
        .try_for_each(|(path, text)| workspace::write(path, text))
}

fn generated(files: &[File]) -> Result<[(&'static str, String); 2]> {
    Ok([(MAPS, maps(files)?), (REASONS, reasons())])
}

fn reasons() -> String {
    let mut text = format!(
        "# Reasons\n\n{WRITTEN_BY}\nEvery packet that enters a wire ends with one reason, counted per CPU. The numbers \
         never change their meaning.\n`tieline status` and the metrics show the counts by label.\n\n\
         | number | label | meaning | what to do |\n|---|---|---|---|\n"
    );
    for reason in Reason::ALL {
        let cell = |cell: &str| cell.trim().replace('|', "\\|");
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} |",
            reason.number(),
            reason.as_str(),
            cell(reason.meaning()),
            cell(reason.advice())
        );
    }
    text
}

fn maps(files: &[File]) -> Result<String> {
    let tokens = source::tokens(
        files
            .iter()
            .find(|file| file.path == NAMES)
            .with_context(|| format!("{NAMES} is missing"))?,
    )?;
    let consts = source::string_consts(&tokens);
    let mut text = format!(
        "# Maps\n\n{WRITTEN_BY}\nABI version {ABI_VERSION}; pins lie below `{}/v{ABI_VERSION}` of the bpffs. Integers are in host \
         order, addresses in network order.\n\n| map | holds | outlives the agent |\n|---|---|---|\n",
        names::PIN_ROOT
    );
    for map in names::MAPS {
        let Some(found) = consts.iter().find(|c| c.value == *map && !c.docs.is_empty()) else {
            bail!("{NAMES}: the constant of map `{map}` has no documentation, which {MAPS} is written from");
        };
        let pinned = if names::PINNED_MAPS.contains(map) {
            "yes, pinned"
        } else {
            "no"
        };
        let _ = writeln!(text, "| `{map}` | {} | {pinned} |", plain(&found.docs));
    }
    if let Some(unlisted) = consts
        .iter()
        .find(|c| c.name.starts_with("MAP_") && !names::MAPS.contains(&c.value.as_str()))
    {
        bail!(
            "{NAMES}: {} is not in MAPS, so no start-up check looks for it",
            unlisted.name
        );
    }
    text.push_str("\n## Programs\n\n| program | |\n|---|---|\n");
    for program in names::PROGRAMS {
        let docs = consts
            .iter()
            .find(|c| c.value == *program)
            .map_or("", |c| c.docs.as_str());
        let _ = writeln!(text, "| `{program}` | {} |", plain(docs));
    }
    text.push_str("\n## Values\n");
    for file in files
        .iter()
        .filter(|file| file.path.starts_with(ABI) && file.path.ends_with(".rs"))
    {
        source::abi_structs(&source::tokens(file)?)
            .iter()
            .for_each(|found| value(&mut text, found));
    }
    Ok(text)
}

fn value(text: &mut String, found: &AbiStruct) {
    let _ = write!(
        text,
        "\n### {}\n\n{} {} octets.\n\n| field | type | |\n|---|---|---|\n",
        found.name,
        plain(&found.docs),
        found.size
    );
    for (name, kind, docs) in &found.fields {
        let _ = writeln!(
            text,
            "| `{name}` | `{}` | {} |",
            kind.replace(' ', "").replace(';', "; "),
            plain(docs)
        );
    }
}

/// Without the links that only rustdoc follows.
fn plain(docs: &str) -> String {
    docs.replace("[`crate::abi::", "`")
        .replace("[`", "`")
        .replace("`]", "`")
        .replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn names_file() -> File {
        let mut text = String::new();
        for name in names::MAPS {
            let _ = writeln!(
                text,
                "/// Hash: key → [`crate::abi::Position`].\npub const MAP_{name}: &str = \"{name}\";"
            );
        }
        file(NAMES, &text)
    }

    #[test]
    fn every_map_gets_a_row() {
        let text = maps(&[names_file()]).unwrap();
        for map in names::MAPS {
            assert!(
                text.contains(&format!("| `{map}` | Hash: key → `Position`. |")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_map_without_documentation_is_an_error() {
        let bare = file(NAMES, &names_file().text.replacen("///", "//", 1));
        assert!(maps(&[bare]).is_err());
    }

    #[test]
    fn a_map_that_is_not_listed_is_an_error() {
        let extra = format!(
            "{}/// Hash: a → b.\npub const MAP_NEW: &str = \"TL_NEW\";\n",
            names_file().text
        );
        assert!(
            maps(&[file(NAMES, &extra)])
                .unwrap_err()
                .to_string()
                .contains("MAP_NEW")
        );
    }

    #[test]
    fn a_stale_table_is_refused() {
        let stale = file(REASONS, &reasons().replacen("| 0 |", "| 9 |", 1));
        let fresh = file(MAPS, &maps(&[names_file()]).unwrap());
        let found = check(&[names_file(), stale, fresh]).unwrap();
        assert_eq!(
            found.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(),
            [REASONS]
        );
    }

    #[test]
    fn every_reason_gets_a_row() {
        for reason in Reason::ALL {
            assert!(reasons().contains(&format!("| {} | `{}` |", reason.number(), reason.as_str())));
        }
    }
}

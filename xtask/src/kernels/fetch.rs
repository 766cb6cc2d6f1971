//! Kernels: fetched from this machine's mirror once, unpacked, kept in the cache.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::mirror::Mirror;
use crate::sh;

/// The package that always depends on the newest kernel built for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel series and the Debian release that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    name: &'static str,
    suite: &'static str,
}

const SERIES: &[Series] = &[
    Series {
        name: "5.10",
        suite: "bullseye",
    },
    Series {
        name: "6.1",
        suite: "bookworm",
    },
    Series {
        name: "6.12",
        suite: "trixie",
    },
    Series {
        name: "sid",
        suite: "sid",
    },
];

impl Series {
    /// From the command line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        SERIES
            .iter()
            .find(|series| series.name == text)
            .cloned()
            .ok_or_else(|| {
                let names: Vec<&str> = SERIES.iter().map(|series| series.name).collect();
                format!("known are {}", names.join(", "))
            })
    }
}

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// What `uname -r` will say.
    pub release: String,
    /// The uncompressed kernel: an emulated processor starts it without a boot loader.
    pub image: PathBuf,
    /// Folder with `lib/modules`.
    pub root: PathBuf,
}

impl Kernel {
    /// The folder of its modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        let release = fs::read_to_string(folder.join("release"))?;
        Ok(Self {
            release,
            image: folder.join("vmlinux"),
            root: folder.join("root"),
        })
    }
}

/// The kernel of a series, fetched if need be. A folder in the cache is complete: it is moved there at the end.
pub(super) fn kernel(series: &Series) -> Result<Kernel> {
    let cache = ebpf_toolchain::cache_dir().join("kernels");
    let folder = cache.join(series.name);
    if !folder.is_dir() {
        sh::step(&format!("fetching Debian's kernel {}", series.name), || {
            fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
            let scratch = tempfile::Builder::new().prefix(".fetching-").tempdir_in(&cache)?;
            let unpacked = scratch.path().join("kernel");
            fetch(series, scratch.path(), &unpacked)?;
            match fs::rename(&unpacked, &folder) {
                Err(error) if !folder.is_dir() => Err(error).context("cannot move the kernel into the cache"),
                // Or another process was faster.
                _ => Ok(()),
            }
        })?;
    }
    Kernel::in_folder(&folder).with_context(|| format!("{} is damaged: remove it", folder.display()))
}

fn fetch(series: &Series, scratch: &Path, unpacked: &Path) -> Result<()> {
    let apt = Apt::new(&Mirror::of_this_machine()?, series, &scratch.join("apt"))?;
    sh::run_quietly(apt.get().arg("update"))?;
    let depends = sh::capture(apt.cache().args(["depends", META_PACKAGE]))?;
    let release =
        release_in(&depends).with_context(|| format!("{META_PACKAGE} depends on no kernel:\n{depends}"))?;
    let root = unpacked.join("root");
    let debs = scratch.join("debs");
    for folder in [&root, &debs] {
        fs::create_dir_all(folder)?;
    }
    // Newer releases split image and modules.
    let parts = ["image", "binary", "modules", "base"].map(|part| format!("linux-{part}-{release}"));
    let exists = |name: &&String| {
        sh::capture(apt.cache().args(["show", name.as_str()])).is_ok_and(|text| !text.is_empty())
    };
    let packages: Vec<&String> = parts.iter().filter(exists).collect();
    sh::run_quietly(apt.get().arg("download").args(packages).current_dir(&debs))?;
    for deb in fs::read_dir(&debs)? {
        sh::run_quietly(
            sh::command("dpkg-deb")
                .arg("--extract")
                .arg(deb?.path())
                .arg(&root),
        )?;
    }
    if !root.join("lib/modules").is_dir() {
        fs::create_dir_all(root.join("lib"))?;
        std::os::unix::fs::symlink("../usr/lib/modules", root.join("lib/modules"))?;
    }
    sh::run_quietly(sh::command("depmod").arg("--basedir").arg(&root).arg(&release))?;
    uncompress(&compressed_image(&root, &release)?, &unpacked.join("vmlinux"))?;
    fs::write(unpacked.join("release"), &release)?;
    Ok(())
}

/// The release in `Depends: linux-image-6.1.0-56-cloud-amd64`.
fn release_in(depends: &str) -> Option<String> {
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))?;
    Some(package.split_whitespace().next()?.to_owned())
}

fn compressed_image(root: &Path, release: &str) -> Result<PathBuf> {
    [
        root.join(format!("boot/vmlinuz-{release}")),
        root.join(format!("lib/modules/{release}/vmlinuz")),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .with_context(|| format!("the packages of {release} hold no vmlinuz"))
}

/// Compressions that kernels use: the beginning of the data, and what unpacks it.
const COMPRESSIONS: &[(&[u8], &[&str])] = &[
    (b"\xfd7zXZ\0", &["xz", "--decompress", "--stdout", "--quiet"]),
    (
        b"\x28\xb5\x2f\xfd",
        &["zstd", "--decompress", "--stdout", "--quiet"],
    ),
    (b"\x02\x21\x4c\x18", &["lz4", "-dcq"]),
];

/// Takes the ELF file out of a compressed kernel. What unpacks it complains of the bytes behind the data; what
/// came out decides.
fn uncompress(image: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(image)?;
    for (magic, program) in COMPRESSIONS {
        for at in positions(&bytes, magic) {
            let mut from = File::open(image)?;
            from.seek(SeekFrom::Start(u64::try_from(at)?))?;
            Command::new(program[0])
                .args(&program[1..])
                .stdin(from)
                .stdout(File::create(to)?)
                .stderr(Stdio::null())
                .status()
                .with_context(|| format!("cannot start {}", program[0]))?;
            let mut magic = [0; 4];
            if File::open(to)?.read_exact(&mut magic).is_ok() && &magic == b"\x7fELF" {
                return Ok(());
            }
        }
    }
    bail!("{} holds no kernel in a known compression", image.display())
}

fn positions<'a>(bytes: &'a [u8], magic: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes
        .windows(magic.len())
        .enumerate()
        .filter(move |(_, window)| *window == magic)
        .map(|(at, _)| at)
}

/// apt with lists and state of its own: this machine's are left alone.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(mirror: &Mirror, series: &Series, folder: &Path) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        let sources = folder.join("sources.list");
        fs::write(&sources, sources_list(mirror, series.suite))?;
        let at = folder.display();
        let settings = [
            format!("Dir::State={at}"),
            format!("Dir::State::lists={at}/lists"),
            format!("Dir::State::status={at}/status"),
            format!("Dir::Cache={at}/cache"),
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self {
            options: settings
                .into_iter()
                .flat_map(|setting| ["-o".to_owned(), setting])
                .collect(),
        })
    }

    fn get(&self) -> Command {
        let mut command = sh::command("apt-get");
        command.args(&self.options).arg("--quiet=2");
        command
    }

    fn cache(&self) -> Command {
        let mut command = sh::command("apt-cache");
        command.args(&self.options);
        command
    }
}

fn sources_list(mirror: &Mirror, suite: &str) -> String {
    let keys = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let mut list = format!("deb {keys} {} {suite} main\n", mirror.main);
    if suite != "sid" {
        list.push_str(&format!("deb {keys} {} {suite}-security main\n", mirror.security));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_the_dependency() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Suggests: x\n";
        assert_eq!(release_in(depends).as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(release_in("x\n  Depends: other\n"), None);
    }

    #[test]
    fn an_unknown_series_is_refused_with_the_known_ones() {
        assert!(Series::parse("6.1").is_ok());
        assert!(Series::parse("6.2").unwrap_err().contains("6.12"));
    }

    #[test]
    fn a_kernel_is_found_behind_false_beginnings() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, image, out) = (dir.path().join("p"), dir.path().join("i"), dir.path().join("o"));
        fs::write(&plain, b"\x7fELF and so on").unwrap();
        let packed = Command::new("xz")
            .arg("--stdout")
            .arg(&plain)
            .output()
            .unwrap()
            .stdout;
        let mut bytes = b"stub \xfd7zXZ\0 not data ".to_vec();
        bytes.extend_from_slice(&packed);
        bytes.extend_from_slice(b"trailer");
        fs::write(&image, bytes).unwrap();
        uncompress(&image, &out).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"\x7fELF and so on");
    }

    #[test]
    fn sid_has_no_security_archive() {
        let mirror = Mirror {
            main: "http://m/debian".into(),
            security: "http://m/debian-security".into(),
        };
        assert!(!sources_list(&mirror, "sid").contains("security"));
        assert!(sources_list(&mirror, "trixie").contains("trixie-security"));
    }
}

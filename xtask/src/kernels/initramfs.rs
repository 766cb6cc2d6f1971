//! The first file system of a virtual machine: busybox, the modules that reach the host's root folder, a script.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::fetch::Kernel;
use crate::sh;

/// What mounts the host's root folder; built into some kernels, a module of others.
const MODULES: &[&str] = &["virtio_pci", "virtiofs", "overlay"];
/// Names under which the script calls busybox.
const APPLETS: &[&str] = &["sh", "mount", "mkdir", "insmod", "ip", "switch_root", "sleep"];

/// Builds the archive around `script`, which becomes `/init`.
pub(super) fn build(kernel: &Kernel, script: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "modules"] {
        archive.folder(folder);
    }
    archive.console();
    let busybox = sh::which("busybox").context("busybox is installed by `cargo xtask setup --kernels`")?;
    archive.executable("bin/busybox", &fs::read(busybox)?);
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    let dependencies = fs::read_to_string(kernel.modules().join("modules.dep"))?;
    // Numbered, because they must be loaded in this order.
    for (number, path) in load_order(&dependencies, MODULES).iter().enumerate() {
        archive.file(
            &format!("modules/{number:02}.ko"),
            &module(&kernel.modules().join(path))?,
        );
    }
    archive.executable("init", script.as_bytes());
    Ok(archive.finish())
}

/// Paths of modules, each after those it depends on. `modules.dep` lists the nearest dependency first.
fn load_order(dependencies: &str, wanted: &[&str]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let line = dependencies.lines().find(|line| {
            line.split(':')
                .next()
                .is_some_and(|path| module_name(path) == *name)
        });
        let Some((path, needs)) = line.and_then(|line| line.split_once(':')) else {
            continue; // built in
        };
        for module in needs.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|known| known == module) {
                order.push(module.to_owned());
            }
        }
    }
    order
}

/// `virtio_pci` for `kernel/drivers/virtio/virtio-pci.ko.xz`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn module(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return fs::read(path).with_context(|| path.display().to_string()),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        other => bail!("{}: compression {other:?} is not known", path.display()),
    };
    let mut command = Command::new(program);
    let out = command
        .args(["-dcq"])
        .arg(path)
        .stderr(Stdio::inherit())
        .output()?;
    if !out.status.success() {
        bail!("{} failed ({})", sh::line(&command), out.status);
    }
    Ok(out.stdout)
}

/// A cpio archive in the kernel's `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inodes: usize,
}

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, &[], (0, 0));
    }

    fn file(&mut self, name: &str, data: &[u8]) {
        self.entry(name, FILE, data, (0, 0));
    }

    fn executable(&mut self, name: &str, data: &[u8]) {
        self.entry(name, EXECUTABLE, data, (0, 0));
    }

    fn link(&mut self, name: &str, target: &str) {
        self.entry(name, LINK, target.as_bytes(), (0, 0));
    }

    /// The kernel opens it for `/init` before anything is mounted.
    fn console(&mut self) {
        self.entry("dev/console", CHARACTER_DEVICE, &[], (5, 1));
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8], device: (u32, u32)) {
        self.inodes += 1;
        let (inode, size, name_size) = (self.inodes, data.len(), name.len() + 1);
        let (major, minor) = device;
        let header = format!(
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{major:08x}{minor:08x}{name_size:08x}{:08x}",
            0,
            0,
            1,
            0,
            0,
            0,
            0 // owner, group, links, time, device of the archive, checksum
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let text = "kernel/fs/fuse/virtiofs.ko.xz: kernel/fs/fuse/fuse.ko.xz kernel/v/virtio.ko.xz kernel/v/virtio_ring.ko.xz\n\
            kernel/v/virtio_pci.ko.xz: kernel/v/virtio.ko.xz kernel/v/virtio_ring.ko.xz\n";
        let order = load_order(text, &["virtio_pci", "virtiofs", "overlay"]);
        let names: Vec<String> = order.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_pci", "fuse", "virtiofs"]);
    }

    #[test]
    fn the_archive_is_one_that_cpio_reads() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Archive::default();
        archive.folder("a");
        archive.file("a/b", b"hello");
        archive.link("c", "a/b");
        let path = dir.path().join("x.cpio");
        fs::write(&path, archive.finish()).unwrap();
        let busybox = sh::which("busybox").or_else(|| sh::which("cpio")).unwrap();
        let mut cpio = Command::new(&busybox);
        if busybox.ends_with("busybox") {
            cpio.arg("cpio");
        }
        let status = cpio
            .arg("-i")
            .current_dir(dir.path())
            .stdin(fs::File::open(&path).unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(fs::read(dir.path().join("c")).unwrap(), b"hello");
    }
}

//! One virtual machine: booted, given jobs through a shared folder, gone.
//!
//! The machine's root folder is this machine's own, read through virtiofs, with a tmpfs laid over it: what a job
//! writes is lost, except in the exchange folder, where the host reads exit codes and output.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{fetch::Kernel, initramfs, suite::Job};
use crate::{setup, sh, workspace};

/// A virtual machine to be booted.
pub(super) struct Machine<'a> {
    /// What boots.
    pub kernel: &'a Kernel,
    /// How many processors.
    pub processors: u32,
    /// How much memory.
    pub memory_mib: u32,
    /// When to give up.
    pub timeout: Duration,
}

/// What became of a job.
pub(super) struct Done {
    /// Which one.
    pub job: Job,
    /// Its exit code; `None` when the machine went down before it ended.
    pub exit: Option<i32>,
    /// How long it took, by the machine's own clock.
    pub took: Duration,
    /// What it printed.
    pub output: String,
}

/// What became of a machine.
enum Boot {
    /// It began with the jobs.
    Ran(Vec<Done>),
    /// It did not; its console.
    Failed(String),
}

/// How often a machine is started. Emulated with several processors, a kernel now and then traps on an instruction
/// that it is just patching.
const BOOTS: u32 = 3;
/// The mark of lines on the machine's console that are meant for people.
const SAY: &str = "@ ";
/// The name under which the file server offers the host's root folder.
const SHARE: &str = "host";

impl Machine<'_> {
    /// Boots, runs the jobs in order, and returns when the machine is gone. One that falls over before it has begun with
    /// the first of them is started again.
    pub(super) fn run(&self, jobs: &[Job]) -> Result<Vec<Done>> {
        let mut boot = 1;
        loop {
            match self.boot(jobs)? {
                Boot::Ran(done) => return Ok(done),
                Boot::Failed(console) if boot < BOOTS => {
                    println!("{console}\nthe machine did not boot; it is started again");
                    boot += 1;
                }
                Boot::Failed(console) => {
                    let release = &self.kernel.release;
                    bail!("Linux {release} did not boot {BOOTS} times; the last time:\n{console}");
                }
            }
        }
    }

    /// Boots once.
    fn boot(&self, jobs: &[Job]) -> Result<Boot> {
        let parent = workspace::target_dir().join("kernels");
        fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let exchange = tempfile::Builder::new().prefix("vm-").tempdir_in(&parent)?;
        let exchange = exchange.path();
        for (number, job) in jobs.iter().enumerate() {
            fs::write(exchange.join(format!("{number}.job")), job.script())?;
        }
        fs::write(exchange.join("jobs"), jobs_script(exchange, jobs))?;
        let initramfs = exchange.join("initramfs");
        fs::write(
            &initramfs,
            initramfs::build(self.kernel, &self.init_script(exchange))?,
        )?;

        let socket = exchange.join("files.sock");
        let files = serve_files(&socket, &exchange.join("files.log"))?;
        let console = exchange.join("console.log");
        let mut machine = Guard(
            self.command(&socket, &initramfs)
                .spawn()
                .context("cannot start qemu-system-x86_64")?,
        );
        let reader = machine.0.stdout.take().map(|stdout| {
            let console = console.clone();
            thread::spawn(move || show_console(stdout, &console))
        });
        let in_time = self.wait(&mut machine)?;
        drop((machine, files));
        if let Some(reader) = reader {
            reader
                .join()
                .map_err(|_panic| anyhow::anyhow!("the console could not be read"))??;
        }
        if !in_time {
            println!(
                "the machine was given up after {}: see --timeout",
                sh::seconds(self.timeout)
            );
        } else if !exchange.join("booted").is_file() {
            return Ok(Boot::Failed(fs::read_to_string(&console)?));
        }
        let done = jobs
            .iter()
            .enumerate()
            .map(|(number, job)| collect(exchange, number, job));
        Ok(Boot::Ran(done.collect::<Result<_>>()?))
    }

    /// Whether the machine ended by itself.
    fn wait(&self, machine: &mut Guard) -> Result<bool> {
        let deadline = Instant::now() + self.timeout;
        while Instant::now() < deadline {
            if machine.0.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }

    fn command(&self, socket: &Path, initramfs: &Path) -> Command {
        let memory = self.memory_mib;
        // `no_timer_check`: an emulated timer is too slow for the check. Panic at once: the machine then ends.
        let kernel_line =
            "console=ttyS0 quiet loglevel=3 panic=-1 no_timer_check mitigations=off rdinit=/init";
        let mut command = sh::command("qemu-system-x86_64");
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
                "-serial",
                "stdio",
            ])
            .args(["-smp", &self.processors.to_string(), "-m", &format!("{memory}M")])
            .args(acceleration())
            .args([
                "-object",
                &format!("memory-backend-memfd,id=ram,size={memory}M,share=on"),
            ])
            .args(["-numa", "node,memdev=ram"])
            .args(["-chardev", &format!("socket,id=files,path={}", socket.display())])
            .args(["-device", &format!("vhost-user-fs-pci,chardev=files,tag={SHARE}")])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", kernel_line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// `/init` of the first file system: lays out the root folder and hands over to the jobs.
    fn init_script(&self, exchange: &Path) -> String {
        let modules = self.kernel.modules();
        // A tree below /tmp must stay visible.
        let needs_tmp = [exchange, workspace::root()]
            .iter()
            .any(|path| path.starts_with("/tmp"));
        let fresh = if needs_tmp {
            "run dev/shm"
        } else {
            "run dev/shm tmp"
        };
        format!(
            r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS0 2>&1
give_up() {{ echo "{SAY}$*"; echo b >/proc/sysrq-trigger; sleep 9; }}
for module in /modules/*.ko; do insmod "$module" || give_up "cannot load $module"; done
mkdir /lower /fresh /new
mount -t virtiofs {SHARE} /lower || give_up "cannot mount the host's root folder"
mount -t tmpfs fresh /fresh
mkdir /fresh/upper /fresh/scratch
mount -t overlay -o lowerdir=/lower,upperdir=/fresh/upper,workdir=/fresh/scratch new /new || give_up "no overlay"
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
for folder in {fresh}; do mount -t tmpfs "$folder" "/new/$folder"; done
mount -t bpf bpf /new/sys/fs/bpf
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
mkdir -p /new/lib/modules/{release} "/new{exchange}"
mount --bind "/lower{modules}" /new/lib/modules/{release} || give_up "no modules"
mount --bind "/lower{exchange}" "/new{exchange}" || give_up "no exchange folder"
ip link set lo up
exec switch_root /new /bin/sh "{exchange}/jobs"
"#,
            release = self.kernel.release,
            modules = modules.display(),
            exchange = exchange.display(),
        )
    }
}

/// The script that runs the jobs and ends the machine. A reset does that, as `-no-reboot` is set.
fn jobs_script(exchange: &Path, jobs: &[Job]) -> String {
    let value = |name: &str| env::var(name).unwrap_or_default().replace('\'', r"'\''");
    let mut script = format!(
        "export PATH='{}:/usr/sbin:/usr/bin:/sbin:/bin' HOME='{}'\ncd '{}'\n: >booted\n",
        value("PATH"),
        value("HOME"),
        exchange.display()
    );
    for (number, job) in jobs.iter().enumerate() {
        let name = job.name.replace('\'', r"'\''");
        script.push_str(&format!(
            "began=$(date +%s%3N)\n/bin/sh {number}.job >{number}.out 2>&1\ncode=$?\n\
             echo $(($(date +%s%3N) - began)) >{number}.ms\necho $code >{number}.exit\n\
             echo '{SAY}{name}:' $code \"($(cat {number}.ms) ms)\"\n"
        ));
    }
    script.push_str("sync\necho b >/proc/sysrq-trigger\nsleep 9\n");
    script
}

fn collect(exchange: &Path, number: usize, job: &Job) -> Result<Done> {
    let read = |end: &str| {
        fs::read(exchange.join(format!("{number}.{end}"))).map(|b| String::from_utf8_lossy(&b).into_owned())
    };
    let exit = match read("exit") {
        Ok(text) => Some(
            text.trim()
                .parse()
                .with_context(|| format!("exit code of `{}`", job.name))?,
        ),
        Err(_not_written) => None,
    };
    let milliseconds = read("ms")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    Ok(Done {
        job: job.clone(),
        exit,
        took: Duration::from_millis(milliseconds),
        output: read("out").unwrap_or_default(),
    })
}

/// `/dev/kvm` may exist where no stock kernel can run: the processor's flags decide.
fn acceleration() -> &'static [&'static str] {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let writable = fs::OpenOptions::new().write(true).open("/dev/kvm").is_ok();
    if writable && can_virtualise(&flags) {
        &["-accel", "kvm", "-cpu", "host"]
    } else {
        &["-accel", "tcg,thread=multi", "-cpu", "max"]
    }
}

fn can_virtualise(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "svm" || flag == "vmx")
}

fn serve_files(socket: &Path, log: &Path) -> Result<Guard> {
    let server = setup::virtiofsd().context("virtiofsd is installed by `cargo xtask setup --kernels`")?;
    let mut command = sh::command(&server);
    command.arg(format!("--socket-path={}", socket.display()));
    if server.starts_with("/usr/lib/qemu") {
        // The one that came with QEMU before 8.0.
        command.args([
            "-o",
            "source=/",
            "-o",
            "sandbox=chroot",
            "-o",
            "cache=auto",
            "-o",
            "xattr",
        ]);
    } else {
        command.args(["--shared-dir=/", "--sandbox=chroot", "--cache=auto", "--xattr"]);
    }
    let log_file = fs::File::create(log)?;
    command
        .stdin(Stdio::null())
        .stdout(log_file.try_clone()?)
        .stderr(log_file);
    let mut guard = Guard(
        command
            .spawn()
            .with_context(|| format!("cannot start {}", server.display()))?,
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        if guard.0.try_wait()?.is_some() || Instant::now() > deadline {
            bail!(
                "{} does not serve files:\n{}",
                server.display(),
                fs::read_to_string(log)?
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(guard)
}

/// Shows what is meant for people as it comes, and keeps the rest.
fn show_console(stdout: ChildStdout, log: &Path) -> Result<()> {
    let mut log = fs::File::create(log)?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        // The firmware does not end its last line.
        if let Some((_, said)) = line.split_once(SAY) {
            eprintln!("    {said}");
        }
        writeln!(log, "{line}")?;
    }
    Ok(())
}

/// A process that does not outlive its use.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may be gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_processor_decides_about_kvm() {
        assert!(can_virtualise("processor : 0\nflags\t\t: fpu vmx sse\n"));
        assert!(!can_virtualise(
            "processor : 0\nflags\t\t: fpu sse\nbugs : vmx\nmodel name: svm\n"
        ));
    }

    #[test]
    fn a_job_that_did_not_end_has_no_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0.out"), "half").unwrap();
        let done = collect(dir.path(), 0, &Job::command(&["x".into()])).unwrap();
        assert_eq!((done.exit, done.output.as_str()), (None, "half"));
    }

    #[test]
    fn the_jobs_of_a_machine_leave_output_exit_code_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let job = Job::command(&["sh".into(), "-c".into(), "echo out; echo err >&2; exit 3".into()]);
        fs::write(dir.path().join("0.job"), job.script()).unwrap();
        let script = jobs_script(dir.path(), std::slice::from_ref(&job));
        // Everything but the reset.
        let script = script.split("sync\n").next().unwrap();
        let status = Command::new("sh").args(["-c", script]).status().unwrap();
        assert!(status.success());
        let done = collect(dir.path(), 0, &job).unwrap();
        assert_eq!((done.exit, done.output.as_str()), (Some(3), "out\nerr\n"));
    }
}

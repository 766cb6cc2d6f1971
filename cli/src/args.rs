//! The command line: what all commands share, and the list of commands.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    check, client::Address, client::AddressError, commands, daemon, demo, exit::Exit, logs, logs::LogFormat,
    output::Format,
};

/// vWires to network services, forwarded by the kernel.
#[derive(Debug, Parser)]
#[command(
    name = "tieline",
    version,
    max_term_width = 110,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Form of results, and of errors on standard error
    #[arg(short = 'o', long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// The agent's local API [default: unix://RUN_DIR/agent.sock]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) socket: Option<Address>,
    /// Where control listens: served there by `up` and `control`, called by the others [default:
    /// unix://RUN_DIR/control.sock]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) control: Option<Address>,
    /// Folder of the sockets; one per node on this machine
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/tieline")]
    pub(crate) run_dir: PathBuf,
    /// error, warn, info, debug, trace, or a filter such as info,dataplane_user=debug [default: info for up, agent
    /// and control, warn for the rest]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = logs::parse_level)]
    pub(crate) log_level: Option<String>,
    /// Form of log lines on standard error
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,
}

impl Global {
    /// The agent's local API.
    pub(crate) fn agent_address(&self) -> Result<Address, AddressError> {
        self.socket
            .clone()
            .map_or_else(|| Address::unix(&self.run_dir.join("agent.sock")), Ok)
    }

    /// Control's API.
    pub(crate) fn control_address(&self) -> Result<Address, AddressError> {
        self.control
            .clone()
            .map_or_else(|| Address::unix(&self.run_dir.join("control.sock")), Ok)
    }
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run control and agent in this process: a whole node
    Up(daemon::UpArgs),
    /// Run the node agent alone
    Agent(daemon::AgentArgs),
    /// Run control alone
    Control(daemon::ControlArgs),
    /// Create or change NetworkServices, NetworkServiceEndpoints and NetworkServiceWirings from YAML
    Apply(commands::apply::ApplyArgs),
    /// Show which live connections a file would move, and why
    Plan(commands::plan::PlanArgs),
    /// Say why a connection leads where it leads
    Explain(commands::explain::ExplainArgs),
    /// Hand over what an endpoint has, and give it nothing new
    Drain(commands::drain::DrainArgs),
    /// List networkservices, endpoints, networkservicewirings, connections, nodes or wires
    Get(commands::get::GetArgs),
    /// Show one object in full
    Describe(commands::describe::DescribeArgs),
    /// Delete an object, or everything that a file names
    Delete(commands::delete::DeleteArgs),
    /// Register a workload or an interface as endpoint of a NetworkService
    Register(commands::register::RegisterArgs),
    /// Request a vWire to a NetworkService
    Request(commands::request::RequestArgs),
    /// Close a vWire
    Close(commands::close::CloseArgs),
    /// Show connections as they change
    Monitor(commands::monitor::MonitorArgs),
    /// Show the state of control and of this node, with advice
    Status(commands::status::StatusArgs),
    /// Say whether this machine can run Tieline, and what to change
    Check(check::CheckArgs),
    /// Connect two workloads of its own, pass real traffic, show the counters, clean up
    Demo(demo::DemoArgs),
    /// Print a shell's completion script
    Completion(commands::completion::CompletionArgs),
}

impl Command {
    /// Whether it runs until it is told to stop.
    pub(crate) const fn is_daemon(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Agent(_) | Self::Control(_))
    }
}

/// The commands in the order and groups in which help shows them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Run a node", &["up", "agent", "control", "check", "demo"]),
    ("Workloads", &["register", "request", "close", "monitor"]),
    (
        "Operators",
        &[
            "plan", "apply", "get", "describe", "explain", "drain", "delete", "status",
        ],
    ),
    ("Shell", &["completion"]),
];

const EXAMPLES: &str = "\
Examples:
  tieline check                                     can this machine run it?
  tieline up                                        start a node
  tieline register --service gold-network --name vpngateway --netns gateway --keep
  tieline request gold-network --netns laptop
  tieline get connections -o json";

/// Reads the command line.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    parse_from(std::env::args_os())
}

/// Reads this command line.
pub(crate) fn parse_from(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches_from(arguments)?)
}

/// The whole command with help groups and environment variables.
pub(crate) fn command() -> clap::Command {
    let command = with_environment(Cli::command());
    let template = format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{}Options:\n{{options}}\n{{after-help}}",
        groups(&command)
    );
    command
        .help_template(template)
        .after_help(format!("{EXAMPLES}\n\n{}", exit_codes()))
}

/// Gives every flag an environment variable by one rule: `--run-dir` is `TIELINE_RUN_DIR`.
fn with_environment(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| match argument.get_long().map(variable) {
            Some(name) if !matches!(argument.get_id().as_str(), "help" | "version") => argument.env(name),
            _ => argument,
        })
        .mut_subcommands(with_environment)
}

fn variable(flag: &str) -> String {
    format!("TIELINE_{}", flag.replace('-', "_").to_uppercase())
}

fn groups(command: &clap::Command) -> String {
    let mut text = String::new();
    for (heading, names) in GROUPS {
        text.push_str(&format!("{heading}:\n"));
        for name in *names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            text.push_str(&format!(
                "  {name:<11}{}\n",
                about.map(ToString::to_string).unwrap_or_default()
            ));
        }
        text.push('\n');
    }
    text
}

fn exit_codes() -> String {
    let mut text = "Exit codes:\n".to_owned();
    for (exit, meaning) in Exit::ALL {
        text.push_str(&format!("  {}  {meaning}\n", exit.code()));
    }
    text + "\nEvery flag can be given by environment: --run-dir is TIELINE_RUN_DIR. `tieline COMMAND --help` has examples."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> clap::Error {
        parse_from(line.split_whitespace()).expect_err(line)
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_command_is_in_exactly_one_group_and_has_examples() {
        let command = command();
        let mut grouped = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect::<Vec<_>>();
        let mut defined = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect::<Vec<_>>();
        grouped.sort_unstable();
        defined.sort_unstable();
        assert_eq!(grouped, defined);
        for sub in command.get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                help.contains("Examples:\n  ") && help.contains("tieline "),
                "{} has no examples",
                sub.get_name()
            );
        }
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let Some(long) = argument
                    .get_long()
                    .filter(|long| !matches!(*long, "help" | "version"))
                else {
                    continue;
                };
                let name = argument.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(name, Some(variable(long)), "{} --{long}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&command());
    }

    #[test]
    fn sockets_follow_the_run_dir_unless_named() {
        let cli = parse_from(["tieline", "--run-dir", "/tmp/n1", "status"]).unwrap();
        assert_eq!(
            cli.global.agent_address().unwrap().to_string(),
            "unix:///tmp/n1/agent.sock"
        );
        assert_eq!(
            cli.global.control_address().unwrap().to_string(),
            "unix:///tmp/n1/control.sock"
        );
        let cli = parse_from(["tieline", "status", "--control", "http://c:1"]).unwrap();
        assert_eq!(cli.global.control_address().unwrap().to_string(), "http://c:1");
    }

    #[test]
    fn bad_command_lines_end_with_the_usage_code() {
        for line in [
            "tieline",
            "tieline frobnicate",
            "tieline get",
            "tieline get frogs",
            "tieline request",
            "tieline request gold --netns a --pid 1",
            "tieline request gold --pid 0",
            "tieline request gold --pid x",
            "tieline request gold --mtu 1279",
            "tieline request gold --mtu 65536",
            "tieline request gold --interface sixteen-bytes-xx",
            "tieline request gold --label novalue",
            "tieline request gold --label =x",
            "tieline request gold --lifetime 10",
            "tieline request gold --lifetime 0s",
            "tieline request gold --exclude 10.0.0.0/33",
            "tieline request gold --exclude 10.0.0.1/8",
            "tieline register --name n",
            "tieline register --service s",
            "tieline register --service s --name n --netns a --interface eth0",
            "tieline apply",
            "tieline plan",
            "tieline explain",
            "tieline explain connection",
            "tieline explain endpoint gw",
            "tieline drain endpoint",
            "tieline register --service s --name n --plumbing bump",
            "tieline delete",
            "tieline delete ns",
            "tieline delete ns a -f x.yaml",
            "tieline status -o xml",
            "tieline status --socket relative.sock",
            "tieline status --log-level info,x=chatty",
            "tieline up --http 127.0.0.1",
            "tieline up --domain West",
            "tieline control --domain east --peer west=",
            "tieline control --domain east --peer west=127.0.0.1:80",
            "tieline control --domain east --peer =unix:///x",
            "tieline completion powershellish",
        ] {
            assert_eq!(refused(line).exit_code(), i32::from(Exit::Usage.code()), "{line}");
        }
    }

    #[test]
    fn a_refused_value_is_named_with_its_rule() {
        for (line, words) in [
            (
                "tieline request gold --interface sixteen-bytes-xx",
                ["sixteen-bytes-xx", "15 bytes"],
            ),
            ("tieline request gold --label novalue", ["novalue", "KEY=VALUE"]),
            ("tieline request gold --lifetime 0s", ["0s", "at least 1s"]),
            (
                "tieline request gold --exclude 10.0.0.1/8",
                ["10.0.0.1/8", "10.0.0.0/8"],
            ),
            ("tieline get frogs", ["frogs", "networkservices"]),
        ] {
            let text = refused(line).to_string();
            for word in words {
                assert!(text.contains(word), "{line}: no '{word}' in {text}");
            }
        }
    }
}

//! Flags of the daemons.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use dataplane_common::limits::{DEFAULT_MAX_WIRES, MAX_WIRES};
use ipnet::IpNet;
use serde::{Serialize, Serializer};
use tieline_control::PeerConfig;
use tieline_model::RegistryDomain;

use crate::input;

/// Flags of `up`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline up                                       a whole node, on its own
  tieline up --mount-bpffs --http 0.0.0.0:9180
  tieline up --run-dir /run/n2 --state-dir /var/lib/n2 --bpffs /run/n2/bpf --mount-bpffs --http off --node n2
                                                   a second node on this machine")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) plane: PlaneArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Flags of `agent`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline agent --control unix:///run/tieline/control.sock
  tieline agent --control http://control.example:7180 --node node-7")]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Flags of `control`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline control
  tieline control --prefix 10.200.0.0/16 --prefix fd00:200::/64
  tieline control --domain east --peer west=unix:///run/west/control.sock
                                                   NETWORKSERVICE@west is another control's")]
pub(crate) struct ControlArgs {
    #[command(flatten)]
    pub(crate) plane: PlaneArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// What the agent's half needs.
#[derive(Args, Clone, Debug, Serialize)]
#[command(next_help_heading = "Agent options")]
pub(crate) struct NodeArgs {
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", default_value_t = host_name(), hide_default_value = true)]
    pub(crate) node: String,
    /// The BPF file system that programs, links and maps are pinned in
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub(crate) bpffs: PathBuf,
    /// Mount a BPF file system there if there is none
    #[arg(long)]
    pub(crate) mount_bpffs: bool,
    /// How many wires the tables hold; takes effect when the maps are made
    #[arg(long, value_name = "COUNT", default_value_t = DEFAULT_MAX_WIRES,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WIRES)))]
    pub(crate) max_wires: u32,
    /// How programs are attached: auto, tcx (Linux 6.6 on) or clsact; see docs/kernel-support.md
    #[arg(long, value_enum, default_value_t)]
    pub(crate) attach: Attach,
    /// Send an event for each drop and each n-th forwarded frame; 0: none, at no cost
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) event_sample: u32,
    /// How often plan and kernel are compared when nothing else asks for it
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = input::parse_lifetime)]
    #[serde(serialize_with = "duration")]
    pub(crate) resync_interval: Duration,
    /// A file that gives workloads of this node their labels, by namespace, cgroup, user or interface; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) workloads: Vec<PathBuf>,
    /// A folder with a file for each pod of this node: who it is and its labels; see docs/guide/labels.md
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_metadata: Option<PathBuf>,
}

/// What control's half needs.
#[derive(Args, Clone, Debug, Serialize)]
#[command(next_help_heading = "Control options")]
pub(crate) struct PlaneArgs {
    /// Where control keeps its state: redb (a file in the state folder) or memory (lost at the end)
    #[arg(long, value_enum, default_value_t)]
    pub(crate) store: Store,
    /// Where the addresses of wires come from when their service does not say; may be repeated
    #[arg(long = "prefix", value_name = "PREFIX", value_parser = input::parse_prefix)]
    pub(crate) prefixes: Vec<IpNet>,
    /// How long a node may be silent before the wires and endpoints end that it keeps for its workloads
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = input::parse_lifetime)]
    #[serde(serialize_with = "duration")]
    pub(crate) node_lease: Duration,
    /// The name that other registry domains know this control by; see docs/guide/domains.md
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<RegistryDomain>,
    /// Another registry domain: NAME may ask for what is registered here; with NAME=ADDRESS, NETWORKSERVICE@NAME can be
    /// requested here as well; may be repeated [default: none, domains ignore each other]
    #[arg(long = "peer", value_name = "NAME[=ADDRESS]")]
    #[serde(serialize_with = "peers")]
    pub(crate) peers: Vec<PeerConfig>,
}

/// What both need.
#[derive(Args, Clone, Debug, Serialize)]
#[command(next_help_heading = "Process options")]
pub(crate) struct CommonArgs {
    /// Folder of everything that outlives this process, besides the pins
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tieline")]
    pub(crate) state_dir: PathBuf,
    /// Where /metrics, /healthz and /readyz are served, or `off`
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9180")]
    pub(crate) http: Http,
    /// Print the settings that would be used, and end
    #[arg(long)]
    #[serde(skip)]
    pub(crate) print_config: bool,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Attach {
    /// A shared block for wires' ends, tcx for the rest where the kernel has it
    #[default]
    Auto,
    /// Tcx links everywhere: 30 wires a second
    Tcx,
    /// No tcx: a shared block for wires' ends, clsact for the rest
    Clsact,
}

/// Where control keeps its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// A file
    #[default]
    Redb,
    /// Nowhere
    Memory,
}

/// `HOST:PORT` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Http(pub Option<SocketAddr>);

impl FromStr for Http {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| "write ADDRESS:PORT, for example 127.0.0.1:9180, or off")?;
        Ok(Self(Some(address)))
    }
}

impl Serialize for Http {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(address) => serializer.collect_str(&address),
            None => serializer.serialize_str("off"),
        }
    }
}

fn peers<S: Serializer>(peers: &[PeerConfig], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(peers.iter().map(ToString::to_string))
}

fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// The host's name as a node name: lower case, without domain. `node` if the host has none.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    match name.split('.').next() {
        Some(first) if !first.is_empty() => first.to_owned(),
        _ => "node".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_an_address_or_off() {
        assert_eq!("off".parse(), Ok(Http(None)));
        assert_eq!("[::1]:80".parse::<Http>().unwrap().0.unwrap().port(), 80);
        for text in ["", "127.0.0.1", "localhost:1", "on"] {
            assert!(text.parse::<Http>().is_err(), "{text}");
        }
    }
}
